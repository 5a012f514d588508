"""A training step of both stages: plain eager float32 against ours.

Ours: bf16 by autocast where the machine is fast in it, channels last (stage 1), AdamW in one fused pass; the same with
compiled blocks. For stage 2 memory is measured too, with gradient checkpointing and without. All run the same model and
the same losses (stage 1 without the adversary, as in the first part of its training).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from nuwa_lip.bench.limits import has_bf16, settle
from nuwa_lip.bench.measure import Row, call_apart, gflop, times, timings
from nuwa_lip.bench.sizes import Bench, Sizes, photo, sizes_of
from nuwa_lip.fast import speed_up
from nuwa_lip.fast.compiling import compile_blocks
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.models.orders import raster_order, target_tokens
from nuwa_lip.models.perceptual import lpips
from nuwa_lip.training.dfvqgan import DFVQGANStage, load_perceptual
from nuwa_lip.training.mps2s import MPS2SStage, run_again_for_gradients
from nuwa_lip.training.stage import Stage, repeated

BAR = 1.5
GPU_BAR = 0.45
"""Share of the GPU's measured bf16 matrix rate, for a compiled step of stage 2."""
Loss = Callable[[], Tensor]
Build = Callable[[Sizes, bool, torch.device], tuple[nn.Module, Loss]]
CHECKPOINTED = "ours, blocks run again for gradients"
PHOTOS = 8
"""Photos of a step whose memory is measured: with fewer, nearly all of it are weights and their moments."""


def measure_training(bench: Bench) -> list[Row]:
    """Measure the times of both stages and the memory of stage 2."""
    rows: list[Row] = []
    batch = bench.sizes.training_batch
    for name, build, stage in (("stage 1", _stage1, DFVQGANStage), ("stage 2", _stage2, MPS2SStage)):
        kinds = {kind: build(bench.sizes, kind != "plain", bench.device) for kind in ("plain", "ours")}
        compiled = bench.attempt(f"training step, {name}, compiled", partial(_compiled, bench, build, stage))
        if compiled is not None:
            kinds["ours, compiled"] = compiled
        steps = {kind: _training_step(*made, ours=kind != "plain") for kind, made in kinds.items()}
        found, best = timings(steps, bench.rounds), bench.precisions[-1]
        work = gflop(steps["ours"], bench.device)
        rows += [timing.row(f"training step, {name}, {batch} photos, {kind}") for kind, timing in found.items()]
        for kind in ("ours", "ours, compiled"):
            if kind in found:
                what = f"training step, {name}, plain float32 / {kind}"
                rows.append(times(what, found["plain"], found[kind], bench.bar(BAR)))
                what = f"training step, {name}, {kind}: share of the matrix rate, {best}"
                rate = work / found[kind].seconds / bench.limits.rate(best)
                bar = bench.bar(gpu=GPU_BAR) if (name, kind) == ("stage 2", "ours, compiled") else None
                rows.append(Row(what, rate, "x", bar=bar, at_least=True, noise=found[kind].noise))
    del kinds, steps, compiled  # the next processes need their memory
    bench.release()
    for kind in ("ours", CHECKPOINTED):
        what = f"peak of a process that takes a step, stage 2, {PHOTOS} photos, {kind}"
        done = call_apart(one_step, bench.sizes.small, kind, str(bench.device))
        rows.append(Row(what, float(done.output) if bench.gpu else done.peak_mb, "MB"))
    return rows


def _compiled(bench: Bench, build: Build, stage: type[Stage[Any]]) -> tuple[nn.Module, Loss]:
    """Make ours, with its blocks compiled as the stages do it."""
    model, loss = build(bench.sizes, True, bench.device)
    backend = "eager" if bench.sizes.small else "inductor"
    compile_blocks(repeated(model, stage.blocks), bench.device, backend, dynamic=stage.sizes_vary)
    return model, loss


def one_step(small: bool, kind: str, where: str) -> None:
    """Take a step of stage 2 in the process whose memory is measured, and print the peak on a GPU, in MB.

    Args:
        small: take tiny sizes.
        kind: "ours" or `CHECKPOINTED`.
        where: the device.
    """
    chosen = dataclasses.replace(sizes_of(small), training_batch=PHOTOS)
    device = torch.device(where)
    settle(device)
    model, loss = _stage2(chosen, True, device)
    if kind == CHECKPOINTED:
        run_again_for_gradients(model)
    _training_step(model, loss, ours=True)()
    print(torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0)


def _stage1(sizes: Sizes, ours: bool, device: torch.device) -> tuple[nn.Module, Loss]:
    """Make a DF-VQGAN and the losses L_V + L_P of a batch (Eq. 13)."""
    torch.manual_seed(0)
    model = speed_up(DFVQGAN(sizes.trained_dfvqgan)).train().to(device)
    side, batch = model.config.resolution, sizes.training_batch
    image = torch.rand(batch, 3, side, side, device=device) * 2 - 1
    mask = torch.zeros(batch, 1, side, side, dtype=torch.bool, device=device)
    mask[..., side // 4 : side // 2] = True
    if ours:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = image.contiguous(memory_format=torch.channels_last)
    connect, q = torch.ones(batch, dtype=torch.bool, device=device), load_perceptual("squeezenet").to(device)

    def loss() -> Tensor:
        output = model(image, mask, connect)
        pixel = (output.image - image).abs().mean() + lpips(q, output.image, image).mean()
        return pixel + output.quantised.codebook_loss + model.config.commitment * output.quantised.commitment_loss

    return model, loss


def _stage2(sizes: Sizes, ours: bool, device: torch.device) -> tuple[MPS2S, Loss]:
    """Make an MP-S2S and the loss of a batch (Eq. 15); arguments as for `stage1`."""
    torch.manual_seed(0)
    model = speed_up(MPS2S(sizes.trained_mps2s)).train().to(device)
    inputs = photo(model.config, sizes.training_batch, device=device)
    order = raster_order(inputs[4])[0]

    def loss() -> Tensor:
        logits, real = model(*inputs, order)
        return mps2s_loss(logits, target_tokens(inputs[3], order), real)

    return model, loss


def _training_step(model: nn.Module, loss: Loss, *, ours: bool) -> Callable[[], None]:
    """Prepare a step: forward, backward, clipping, optimizer; ours in bf16 if the machine is fast in it."""
    optimizer = AdamW(model.parameters(), lr=1e-4, fused=True if ours else None)  # None: PyTorch's default
    device = next(model.parameters()).device

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if ours and has_bf16(device) else nullcontext():
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
