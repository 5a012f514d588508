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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nuwa_lip.bench.inpaint import big_pair, repaint_big
from nuwa_lip.bench.limits import precisions
from nuwa_lip.bench.measure import Row, Timing, call_apart, timings
from nuwa_lip.bench.sizes import MODEL, random_dfvqgan, random_memory, random_mps2s, step_weights
from nuwa_lip.models import DFVQGANConfig, MPS2SConfig
from nuwa_lip.sampling import sample

PHOTO_BAR = 1.0
"""Largest ratio, for the largest photo, of the time beyond reading and writing to the time of these."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity that grows."""

    what: str
    unit: str
    values: tuple[int, ...]
    prepare: Callable[[int], Callable[[], object]]
    """Prepares the work of one value."""
    per: str
    """Unit of what the fits are against."""
    size: Callable[[int], float] = float
    """Gives a value in that unit."""
    through_zero: bool = False
    """Whether cost = a · size + b · size² is fitted too, and the share of its linear part reported."""


def curves(small: bool = False) -> dict[str, Curve]:
    """List all curves by name."""
    preset = "tiny" if small else "mini"
    config = MPS2SConfig.preset(preset)
    wide = config.grid[1]
    return {
        "tokens": Curve(
            what="defective tokens",
            unit="tokens",
            per="token",
            values=tuple(wide * rows for rows in ((1, 2, 4) if small else (1, 2, 4, 8, 16))),
            prepare=lambda n: _loop(config, rows=n // wide),
            through_zero=True,
        ),
        "image": Curve(
            what="image size",
            unit="pixels on a side",
            per="megapixel",
            values=(32, 64) if small else (128, 256, 512, 1024),
            prepare=lambda n: _tokenizer(DFVQGANConfig.preset(preset), n),
            size=lambda n: n**2 / 1e6,
        ),
        "candidates": Curve(
            what="candidates",
            unit="candidates",
            per="candidate",
            values=(1, 2, 4, 8),
            prepare=lambda n: _loop(config, candidates=n),
        ),
        "model": Curve(
            what="model size",
            unit="channels",
            per="million weights",
            values=(32, 64) if small else (192, 384, 768, 1152),
            prepare=lambda n: _loop(widened(config, n), rows=2),
            size=lambda n: sum(step_weights(widened(config, n))) / 1e6,
        ),
    }


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
    found: dict[str, list[Row]] = {}
    for name, curve in curves(small).items():
        work = timings({str(value): curve.prepare(value) for value in curve.values}, rounds)
        found[curve.what] = _times_of(curve, work) + (peaks(name, curve, small) if memory else [])
    # megapixels
    return found | {"photo with a hole of fixed size": _photos((0.02, 0.04) if small else (1, 4, 16, 50, 100), rounds)}


def _times_of(curve: Curve, found: Mapping[str, Timing]) -> list[Row]:
    """State a curve's times and their fits."""
    rows = [found[str(v)].row(f"time, {curve.what}, {v} {curve.unit}", "ms") for v in curve.values]
    sizes, costs = [curve.size(v) for v in curve.values], [row.value for row in rows]
    rows.append(Row(f"time, {curve.what}, each further {curve.per}", slope(sizes, costs), "ms"))
    what = f"time, {curve.what}, power of its growth by {curve.per}"
    rows.append(Row(what, power(sizes, costs), ""))
    if curve.through_zero:
        what = f"time, {curve.what}, linear share at {curve.values[-1]} {curve.unit}"
        rows.append(Row(what, linear_share(sizes, costs), "x"))
    return rows


def peaks(name: str, curve: Curve, small: bool) -> list[Row]:
    """Measure the memory of processes of their own, and its fit.

    Args:
        name: of the curve.
        curve: what grows.
        small: measure tiny sizes.
    """
    found = [call_apart(once, name, str(value), str(int(small))).peak_mb for value in curve.values]
    rows = [
        Row(f"memory beyond the least, {curve.what}, {value} {curve.unit}", peak - found[0], "MB")
        for value, peak in zip(curve.values, found, strict=True)
    ]
    further = slope([curve.size(value) for value in curve.values], found)
    return [*rows, Row(f"memory, {curve.what}, each further {curve.per}", further, "MB")]


def once(name: str, value: str, small: str) -> None:
    """Do the work of one value, in the process whose memory is measured.

    Args:
        name: of the curve.
        value: where on the curve.
        small: 1 for tiny models, 0 for usual ones.
    """
    curves(small == "1")[name].prepare(int(value))()


def _photos(megapixels: Sequence[float], rounds: int) -> list[Row]:
    """Measure the command on photos with a hole of 200 x 200 pixels, against reading and writing them."""
    rows: list[Row] = []
    beyond: list[float] = []
    more: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        for size in megapixels:
            height = round(math.sqrt(size * 1e6 / 1.5))
            pair = big_pair(Path(name), (round(1.5 * height), height))
            rewrite, command = repaint_big(Path(name), pair, MODEL, rounds)
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
