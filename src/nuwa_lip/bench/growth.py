"""How cost grows: with defective tokens, image size, candidates, model size; each with a fit.

Time is of the decoding loop (tokens, candidates, model size) or of encoding and decoding by the tokenizer (image
size); memory is what a fresh process peaks at beyond the same process with the least of the values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from nuwa_lip.bench.limits import precisions
from nuwa_lip.bench.measure import Row, Timing, child, timings
from nuwa_lip.bench.sizes import DTYPES, random_memory, random_mps2s
from nuwa_lip.models import DFVQGAN, DFVQGANConfig, MPS2SConfig
from nuwa_lip.sampling import sample


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity that grows."""

    what: str
    unit: str
    values: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]
    """Makes the work of one value."""


def curves(small: bool = False) -> dict[str, Curve]:
    """By name."""
    preset = "tiny" if small else "mini"
    config = MPS2SConfig.preset(preset)
    rows = (1, 2, 4) if small else (1, 2, 4, 8, 16)
    sides = (32, 64) if small else (128, 256, 512, 1024)
    widths = (32, 64) if small else (192, 384, 768, 1152)
    return {
        "tokens": Curve(
            what="defective tokens",
            unit="rows of tokens",
            values=rows,
            prepare=lambda n: loop(config, rows=n),
        ),
        "image": Curve(
            what="image size",
            unit="pixels on a side",
            values=sides,
            prepare=lambda n: tokenizer(DFVQGANConfig.preset(preset), n),
        ),
        "candidates": Curve(
            what="candidates", unit="candidates", values=(1, 2, 4, 8), prepare=lambda n: loop(config, candidates=n)
        ),
        "model": Curve(
            what="model size",
            unit="channels",
            values=widths,
            prepare=lambda n: loop(dataclasses.replace(config, width=n, heads=max(1, n // 64)), rows=2),
        ),
    }


def loop(config: MPS2SConfig, rows: int | None = None, candidates: int = 1) -> Callable[[], object]:
    """Decoding so many rows of tokens, one token a step."""
    model = random_mps2s(config, precisions()[-1])
    memory = random_memory(model, rows)
    return lambda: sample(model, memory, num_candidates=candidates)


def tokenizer(config: DFVQGANConfig, side: int) -> Callable[[], object]:
    """Encoding and decoding a photo of some size with a hole."""
    torch.manual_seed(0)
    model = DFVQGAN(config).eval().requires_grad_(False).to(DTYPES[precisions()[-1]])
    image, mask = torch.zeros(1, 3, side, side), torch.zeros(1, 1, side, side, dtype=torch.bool)
    mask[..., : side // 2] = True

    def run() -> object:
        with torch.inference_mode():
            encoding = model.encode(image, mask)
            return model.decode(encoding.tokens, encoding.skips)

    return run


def run(rounds: int, small: bool = False, memory: bool = True) -> list[Row]:
    """All curves."""
    rows: list[Row] = []
    for name, curve in curves(small).items():
        found = timings({str(value): curve.prepare(value) for value in curve.values}, rounds)
        rows += lines(curve, found)
        if memory:
            rows += peaks(name, curve, small)
    return rows


def lines(curve: Curve, found: Mapping[str, Timing]) -> list[Row]:
    """Times and the exponent of their fit."""
    rows = [found[str(v)].row(f"time, {curve.what}, {v} {curve.unit}") for v in curve.values]
    power = fit(curve.values, [row.value for row in rows])
    return [*rows, Row(what=f"time grows with {curve.what} to the power of", value=power, unit="")]


def peaks(name: str, curve: Curve, small: bool) -> list[Row]:
    """Memory of processes of their own."""
    code = "import sys; from nuwa_lip.bench.growth import once; once(*sys.argv[1:])"
    found = [child(code, name, str(value), str(int(small))).peak_mb for value in curve.values]
    return [
        Row(what=f"memory beyond the least, {curve.what}, {value} {curve.unit}", value=peak - found[0], unit="MB")
        for value, peak in zip(curve.values, found, strict=True)
    ]


def once(name: str, value: str, small: str) -> None:
    """What a process does whose memory is measured."""
    curves(small == "1")[name].prepare(int(value))()


def fit(values: tuple[int, ...], costs: list[float]) -> float:
    """p of the least-squares line log cost = a + p log value: 1 is linear, 2 quadratic."""
    x, y = [math.log(v) for v in values], [math.log(c) for c in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - mean_x) ** 2 for a in x)
