"""Encoding one 256 x 256 photo at paper size: defect-free against plain, plain against diffusers' VQModel."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nuwa_lip.bench.limits import has_bf16
from nuwa_lip.bench.measure import Row, child, gflop, interleaved, matmul_gflops
from nuwa_lip.bench.sizes import DTYPES, random_dfvqgan
from nuwa_lip.models import DFVQGANConfig

TIME_BARS = {"fp32": 1.1, "bf16": 1.2}
MEMORY_BAR = 1.2


def picture(size: int) -> tuple[Tensor, Tensor]:
    """A photo-like input [1, 3, size, size] and a mask whose hole is the middle half of the columns."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., size // 4 : size * 3 // 4] = True
    return image, mask


def encode_once(preset: str, precision: str, kind: str) -> None:
    """What a process does whose memory is measured."""
    model = random_dfvqgan(DFVQGANConfig.preset(preset), precision)
    image, mask = picture(model.config.resolution)
    with torch.inference_mode():
        model.encode(image, mask if kind == "defect-free" else None)


def run(rounds: int = 5, preset: str = "paper-f8-8192") -> tuple[list[Row], list[str]]:
    """Measure → (rows, lines about what could not be measured)."""
    rows, skipped = [], []
    precisions = list(DTYPES)
    if not has_bf16():
        precisions.remove("bf16")
        skipped.append("this CPU has no bf16 arithmetic (emulated, it is a hundred times slower); bf16 is left out")
    peer = importlib.util.find_spec("diffusers") is not None
    if not peer:
        skipped.append("diffusers is not installed; its VQModel is left out (pip install diffusers)")
    for precision in precisions:
        rows += speed(preset, precision, rounds, peer)
        rows += memory(preset, precision)
    return rows, skipped


def speed(preset: str, precision: str, rounds: int, peer: bool) -> list[Row]:
    """Seconds of one encoding each, interleaved, and their ratios."""
    model, dtype = random_dfvqgan(DFVQGANConfig.preset(preset), precision), DTYPES[precision]
    image, mask = picture(model.config.resolution)
    cases: dict[str, Callable[[], object]] = {
        "plain": lambda: model.encode(image),
        "defect-free": lambda: model.encode(image, mask),
    }
    if peer:
        other, converted = diffusers_model(model.config, dtype), image.to(dtype)
        quantise = other.quantize.float()  # its distances have no bf16 on a CPU, as little as ours
        cases["diffusers VQModel"] = lambda: quantise(other.encode(converted).latents.float())
    with torch.inference_mode():
        count = gflop(cases["plain"])
        times = interleaved(cases, rounds)
    rate, limit = count / times["plain"], matmul_gflops(dtype)
    ratio = times["defect-free"] / times["plain"]
    rows = [
        *(Row(what=f"{name} encoding, {precision}", value=t, unit="s") for name, t in times.items()),
        Row(what=f"defect-free / plain, time, {precision}", value=ratio, unit="x", bar=TIME_BARS[precision]),
        Row(
            what=f"plain / the matrix product's {limit:.0f} GFLOP/s, {precision}",
            value=rate / limit,
            unit="x",
        ),
    ]
    if peer:
        ratio = times["plain"] / times["diffusers VQModel"]
        rows.append(Row(what=f"plain / diffusers VQModel, time, {precision}", value=ratio, unit="x", bar=1.0))
    return rows


def memory(preset: str, precision: str) -> list[Row]:
    """Peaks of one encoding each in a process of its own."""
    code = "import sys; from nuwa_lip.bench.tokenizer import encode_once; encode_once(*sys.argv[1:])"
    peaks = {kind: child(code, preset, precision, kind).peak_mb for kind in ("plain", "defect-free")}
    rows = [Row(what=f"{kind} encoding, peak, {precision}", value=peak, unit="MB") for kind, peak in peaks.items()]
    ratio = peaks["defect-free"] / peaks["plain"]
    return [
        *rows,
        Row(what=f"defect-free / plain, memory, {precision}", value=ratio, unit="x", bar=MEMORY_BAR),
    ]


def diffusers_model(config: DFVQGANConfig, dtype: torch.dtype) -> Any:
    """diffusers' VQModel of the same encoder shape, random weights; its `encode` stops before the codes."""
    from diffusers import VQModel
    from diffusers.utils import logging

    logging.set_verbosity_error()  # it advises against changing the precision of a model in memory
    levels = len(config.channels)
    model: Any = VQModel(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.encoder_blocks,
        latent_channels=config.latent_channels,
        num_vq_embeddings=config.codebook_size,
        vq_embed_dim=config.codebook_dim,
        norm_num_groups=config.groups,
        mid_block_add_attention=config.mid_attention,
    )
    return model.eval().requires_grad_(False).to(dtype)
