"""How cost grows: with defective tokens, image size, candidates, model size and the photo; each with fits.

Time is of the decoding loop (tokens, candidates, model size) or of encoding and decoding by the tokenizer (image
size), of the bundled model's size; memory is what a fresh process peaks at beyond the same process with the least of
the values. Photos are repainted by the command, with a hole of fixed size; what counts is the time and the memory
beyond reading and writing them.

Fits are least squares: a line, whose slope is reported, and a power law, whose exponent is 1 for linear growth and 2
for quadratic.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nuwa_lip.bench.inpaint import repaint_big
from nuwa_lip.bench.limits import precisions
from nuwa_lip.bench.measure import Row, call_apart, timings
from nuwa_lip.bench.sizes import MODEL, random_dfvqgan, random_memory, random_mps2s, step_weights
from nuwa_lip.models import DFVQGANConfig, MPS2SConfig
from nuwa_lip.sampling import sample

PHOTO_BAR = 1.0
"""Largest ratio, for the largest photo, of the time beyond reading and writing to the time of these."""


class Curve(NamedTuple):
    """One quantity that grows."""

    what: str
    unit: str
    per: str
    """Unit of what the fits are against."""
    values: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]
    """Prepares the work of one value."""
    size: Callable[[int], float] = float
    """Gives a value in the unit `per`."""
    through_zero: bool = False
    """Whether cost = a · size + b · size² is fitted too, and the share of its linear part reported."""


def curves(small: bool = False) -> dict[str, Curve]:
    """List all curves by name."""
    preset = "tiny" if small else "mini"
    config, tokenizer = MPS2SConfig.preset(preset), DFVQGANConfig.preset(preset)
    row = config.grid[1]
    lengths = tuple(row * rows for rows in ((1, 2, 4) if small else (1, 2, 4, 8, 16)))
    sides, widths = ((32, 64), (32, 64)) if small else ((128, 256, 512, 1024), (192, 384, 768, 1152))

    def weights(width: int) -> float:
        return sum(step_weights(widened(config, width))) / 1e6

    tokens = Curve("defective tokens", "tokens", "token", lengths, lambda n: _loop(config, n // row), through_zero=True)
    image = Curve(
        "image size", "pixels on a side", "megapixel", sides, lambda n: _tokenizer(tokenizer, n), lambda n: n**2 / 1e6
    )
    many = Curve("candidates", "candidates", "candidate", (1, 2, 4, 8), lambda n: _loop(config, candidates=n))
    model = Curve("model size", "channels", "million weights", widths, lambda n: _loop(widened(config, n), 2), weights)
    return {"tokens": tokens, "image": image, "candidates": many, "model": model}


def widened(config: MPS2SConfig, width: int) -> MPS2SConfig:
    """Change the width of a model, in channels."""
    return dataclasses.replace(config, width=width, heads=max(1, width // 64))


def _loop(config: MPS2SConfig, rows: int | None = None, candidates: int = 1) -> Callable[[], object]:
    """Prepare decoding rows of tokens, one token a step."""
    model = random_mps2s(config, precisions()[-1])
    memory = random_memory(model, rows)
    return lambda: sample(model, memory, num_candidates=candidates)


def _tokenizer(config: DFVQGANConfig, side: int) -> Callable[[], object]:
    """Prepare encoding and decoding a square photo of `side` pixels with a hole."""
    model = random_dfvqgan(config, precisions()[-1])
    image, mask = torch.zeros(1, 3, side, side), torch.zeros(1, 1, side, side, dtype=torch.bool)
    mask[..., : side // 2] = True

    def run() -> object:
        with torch.inference_mode():
            encoding = model.encode(image, mask)
            return model.decode(encoding.tokens, encoding.skips)

    return run


def measure_growth(rounds: int, small: bool = False, memory: bool = True) -> dict[str, list[Row]]:
    """Measure all curves, by what grows.

    Args:
        rounds: interleaved repeats.
        small: measure tiny sizes.
        memory: measure memory too.
    """
    found = {}
    for name, curve in curves(small).items():
        found[curve.what] = _times(curve, rounds) + (peaks(name, curve, small) if memory else [])
    megapixels = (0.02, 0.04) if small else (1, 4, 16, 50, 100)
    return found | {"photo with a hole of fixed size": _photos(megapixels, rounds)}


def _times(curve: Curve, rounds: int) -> list[Row]:
    """Measure a curve's times, and their fits."""
    found = timings({str(value): curve.prepare(value) for value in curve.values}, rounds)
    rows = [found[str(v)].row(f"time, {curve.what}, {v} {curve.unit}", "ms") for v in curve.values]
    sizes, costs, what = [curve.size(v) for v in curve.values], [row.value for row in rows], f"time, {curve.what}"
    rows.append(Row(f"{what}, each further {curve.per}", slope(sizes, costs), "ms"))
    rows.append(Row(f"{what}, power of its growth by {curve.per}", power(sizes, costs), ""))
    if curve.through_zero:
        share = linear_share(sizes, costs)
        rows.append(Row(f"{what}, linear share at {curve.values[-1]} {curve.unit}", share, "x"))
    return rows


def peaks(name: str, curve: Curve, small: bool) -> list[Row]:
    """Measure the memory of processes of their own, and its fit.

    Args:
        name: of the curve.
        curve: what grows.
        small: measure tiny sizes.
    """
    found = {value: call_apart(once, name, value, small).peak_mb for value in curve.values}
    least, what = found[curve.values[0]], f"memory beyond the least, {curve.what}"
    rows = [Row(f"{what}, {value} {curve.unit}", peak - least, "MB") for value, peak in found.items()]
    further = slope([curve.size(value) for value in found], list(found.values()))
    return [*rows, Row(f"memory, {curve.what}, each further {curve.per}", further, "MB")]


def once(name: str, value: int, small: bool) -> None:
    """Do the work of one value, in the process whose memory is measured.

    Args:
        name: of the curve.
        value: where on the curve.
        small: measure tiny sizes.
    """
    curves(small)[name].prepare(value)()


def _photos(megapixels: Sequence[float], rounds: int) -> list[Row]:
    """Measure the command on photos, against reading and writing them."""
    rows: list[Row] = []
    beyond: list[float] = []
    more: list[float] = []
    for size in megapixels:
        height = round(math.sqrt(size * 1e6 / 1.5))
        with tempfile.TemporaryDirectory() as folder:
            rewrite, command = repaint_big(Path(folder), (round(1.5 * height), height), MODEL, rounds)
        beyond.append(command.seconds - rewrite.seconds)
        more.append(command.peak_mb - rewrite.peak_mb)
        rows += [
            Row(f"reading and writing {size:g} megapixels as PNG", rewrite.seconds, "s"),
            Row(f"time beyond that, {size:g} megapixels", beyond[-1], "s"),
            Row(f"memory beyond that, {size:g} megapixels", more[-1], "MB"),
        ]
    what = f"time beyond reading and writing / reading and writing, {megapixels[-1]:g} megapixels"
    return [
        *rows,
        Row(what, beyond[-1] / rewrite.seconds, "x", bar=PHOTO_BAR if megapixels[-1] >= 1 else None),
        Row("time beyond, each further megapixel", 1000 * slope(megapixels, beyond), "ms"),
        Row("memory beyond, each further megapixel", slope(megapixels, more), "MB"),
    ]


def slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """Fit the least-squares line cost = a + b · value, and give b."""
    return float(np.polyfit(values, costs, 1)[0])


def power(values: Sequence[float], costs: Sequence[float]) -> float:
    """Fit the least-squares line log cost = a + p log value, and give p: 1 is linear, 2 quadratic."""
    return slope([math.log(v) for v in values], [math.log(c) for c in costs])


def linear_share(values: Sequence[float], costs: Sequence[float]) -> float:
    """Fit cost = a · value + b · value², and give the share of a · value in it at the largest value."""
    x = np.asarray(values, dtype=np.float64)
    # relative errors count, or the largest value alone would decide
    weighted = np.stack([x, x**2], 1) / np.asarray(costs)[:, None]
    a, b = np.linalg.lstsq(weighted, np.ones(len(x)), rcond=None)[0]
    return float(a / (a + b * x[-1]))
