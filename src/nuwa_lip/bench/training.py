"""A training step of both stages: plain eager float32 against what our stages do.

Ours: bf16 by autocast where the machine is fast in it, channels last (stage 1), AdamW in one fused pass. Both sides
run the same model and the same losses (stage 1 without the adversary, as in the first part of its training).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from nuwa_lip.bench.limits import has_bf16
from nuwa_lip.bench.measure import Row, times, timings
from nuwa_lip.bench.sizes import Bench, photo
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.mps2s import mps2s_loss
from nuwa_lip.models.orders import raster_order, target_tokens
from nuwa_lip.models.perceptual import lpips
from nuwa_lip.training.dfvqgan import load_perceptual

BAR = 1.5
Loss = Callable[[], Tensor]


def run(bench: Bench) -> list[Row]:
    """Both stages."""
    rows: list[Row] = []
    for name, build in (("stage 1", stage1), ("stage 2", stage2)):
        cases = {kind: training_step(*build(bench, kind == "ours"), ours=kind == "ours") for kind in ("plain", "ours")}
        found = timings(cases, bench.rounds)
        batch = bench.sizes.training_batch
        rows += [timing.row(f"training step, {name}, {batch} photos, {kind}") for kind, timing in found.items()]
        rows.append(times(f"training step, {name}, plain float32 / ours", found["plain"], found["ours"], BAR))
    return rows


def stage1(bench: Bench, ours: bool) -> tuple[nn.Module, Loss]:
    """DF-VQGAN and what L_V + L_P of a batch are (Eq. 13)."""
    torch.manual_seed(0)
    model = DFVQGAN(bench.sizes.trained_dfvqgan).train()
    side, batch = model.config.resolution, bench.sizes.training_batch
    image = torch.rand(batch, 3, side, side) * 2 - 1
    mask = torch.zeros(batch, 1, side, side, dtype=torch.bool)
    mask[..., side // 4 : side // 2] = True
    if ours:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = image.contiguous(memory_format=torch.channels_last)
    connect, q = torch.ones(batch, dtype=torch.bool), load_perceptual("squeezenet")

    def loss() -> Tensor:
        output = model(image, mask, connect)
        pixel = (output.image - image).abs().mean() + lpips(q, output.image, image).mean()
        return pixel + output.quantised.codebook_loss + model.config.commitment * output.quantised.commitment_loss

    return model, loss


def stage2(bench: Bench, ours: bool) -> tuple[nn.Module, Loss]:
    """MP-S2S and Eq. 15 of a batch."""
    torch.manual_seed(0)
    model = MPS2S(bench.sizes.trained_mps2s).train()
    inputs = photo(model.config, bench.sizes.training_batch)
    order = raster_order(inputs[4])[0]

    def loss() -> Tensor:
        logits, real = model(*inputs, order)
        return mps2s_loss(logits, target_tokens(inputs[3], order), real)

    return model, loss


def training_step(model: nn.Module, loss: Loss, *, ours: bool) -> Callable[[], None]:
    """Forward, backward, clipping, optimizer."""
    optimizer = AdamW(model.parameters(), lr=1e-4, fused=ours)

    def step() -> None:
        with precision(ours):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def precision(ours: bool) -> AbstractContextManager[object]:
    """bf16 for ours, if the machine is fast in it."""
    return torch.autocast("cpu", torch.bfloat16) if ours and has_bf16() else nullcontext()
