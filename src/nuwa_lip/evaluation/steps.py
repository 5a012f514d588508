"""Quality against parallel steps: the curve from which a model's number of steps is chosen.

The K tokens of a window are decided in S = ceil(K / g) steps, g of them in a step on average (the sampler's schedule
says how many in which), for several g. The photos are repainted as users have it, by the pipeline with its windows, and
with the same seeds for every g, so that all comparisons are paired.

`bits` are those of `evaluate likelihood`, -log2 P(true token | true tokens of earlier steps, caption) a token, on the
photo as one square: what it costs that the tokens of a step do not see each other. With g = 1 they are Eq. 15. The
"confidence" schedule has none, because its order depends on the tokens that were drawn.

Legend: g tokens a step, K defective tokens, S steps, N photos, G numbers of tokens a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.baselines.methods import paint
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.evaluation.distances import Change, Estimate, mean_change, ratio_interval, set_change
from nuwa_lip.evaluation.features import Networks
from nuwa_lip.evaluation.images import MEANS, SETS, Figures, Observer, summarise
from nuwa_lip.evaluation.store import Store
from nuwa_lip.evaluation.tokenizers import Squares
from nuwa_lip.images.windows import View
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.models.groups import group_sizes, rows_of
from nuwa_lip.models.orders import decoding_order, target_tokens
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling

RATIOS = ("fsd", "fsd_hole", "lpips_squeeze", "lpips_squeeze_hole")
"""Figures that are reported as multiples of those with the fewest tokens a step."""
DIFFERENCES = ("krd", "krd_hole", "psnr_hole", "ssim_hole")
"""Figures that are reported as differences from these; a kernel distance may be 0."""
BAR_TOKENS, BAR = 8, 1.05
"""With 8 tokens a step FSD may be 1.05 times as large as with one."""


def steps_of(tokens: int, a_step: int) -> int:
    """Compute the steps S for K tokens, `a_step` of them in a step on average."""
    return max(1, math.ceil(tokens / a_step))


class Paced(InpaintPipeline):
    """A pipeline whose number of tokens a step is fixed, however many a window has."""

    tokens_per_step = 1
    steps = 0
    """Taken so far."""

    def _fill(
        self,
        view: View,
        prompt: str,
        seeds: list[int],
        sampling: Sampling,
        callback: Callable[[int, int], None] | None,
    ) -> tuple[list[Tensor], Tensor, int]:
        tokens = int(pool_mask(torch.from_numpy(view.mask)[None, None], self.dfvqgan.config.factor).sum())
        steps = steps_of(tokens, self.tokens_per_step)
        self.steps += steps
        return super()._fill(view, prompt, seeds, replace(sampling, num_inference_steps=steps), callback)

    def repaint(self, item: BenchmarkItem, a_step: int, order: str, schedule: str, seed: int) -> np.ndarray:
        """Repaint a photo: uint8 [H, W, 3].

        Args:
            item: the photo.
            a_step: tokens a step on average.
            order: of decoding.
            schedule: one of `groups.SCHEDULES`.
            seed: the photo gets seed + its index.
        """
        self.tokens_per_step = a_step
        return paint(self, item, item.caption, seed, order=order, schedule=schedule)


def measure(
    pipe: Paced,
    benchmark: Benchmark,
    networks: Networks,
    store: Store,
    items: Iterable[int],
    *,
    tokens_per_step: Sequence[int],
    order: str,
    schedule: str,
    seed: int,
) -> None:
    """Repaint photos with each number of tokens a step, except those that the store has already.

    Args:
        pipe: the model.
        benchmark: the photos.
        networks: of the figures.
        store: gets the figures of each photo.
        items: numbers of photos.
        tokens_per_step: G numbers g, rising.
        order: of decoding.
        schedule: one of `groups.SCHEDULES`.
        seed: photo i is repainted with seed + i.
    """
    squares, observer = Squares(benchmark, pipe.resolution), Observer({}, networks, ())

    def of_photo(index: int) -> dict[str, np.ndarray]:
        item, photos, steps, seconds = benchmark[index], {}, [], []
        for a_step in tokens_per_step:
            start, before = time.perf_counter(), pipe.steps
            photos[str(a_step)] = pipe.repaint(item, a_step, order, schedule, seed)
            seconds.append(float(time.perf_counter() - start))
            steps.append(float(pipe.steps - before))
        bits = true_bits(pipe, squares[index], tokens_per_step, order, schedule)
        return {**observer.observe(item, photos), "bits": bits, "steps": np.array(steps), "seconds": np.array(seconds)}

    store.fill(items, of_photo)


@torch.inference_mode()
def true_bits(
    pipe: InpaintPipeline, item: BenchmarkItem, tokens_per_step: Sequence[int], order: str, schedule: str
) -> np.ndarray:
    """Compute the bits a token of what really was in the hole, for each number of tokens a step: float64 [G].

    They are NaN with the schedule "confidence".

    Args:
        pipe: the model.
        item: at the model's resolution.
    """
    if schedule == "confidence":
        return np.full(len(tokens_per_step), np.nan)
    y, m = item.tensors()
    known, whole, token_mask, _ = pipe.dfvqgan.encode_pair(y, m)
    at = decoding_order(order, token_mask, torch.Generator().manual_seed(item.index))[None]  # [1, K]
    targets = target_tokens(whole.tokens, at)
    caption = pipe.tokenizer([item.caption])
    memory = pipe.mps2s.encode(caption, y.masked_fill(m, 0), m, known.tokens, token_mask)
    found = []
    for a_step in tokens_per_step:
        sizes = group_sizes(at.shape[1], steps_of(at.shape[1], a_step), schedule)
        logits = pipe.mps2s.decoder.predict(memory, targets, at, rows_of(sizes))
        found.append(F.cross_entropy(logits[0], targets[0], reduction="none").double().mean().item() / math.log(2))
    return np.array(found)


@dataclass(frozen=True, kw_only=True)
class Point:
    """The figures of one number of tokens a step."""

    tokens_per_step: int
    """g."""
    least: int
    """The g that it is compared with."""
    steps: float
    """Mean over the photos, all windows of a photo together."""
    seconds: float
    """Median over the photos; of one process, whatever else the machine did."""
    bits: float | None
    figures: Figures
    compared: dict[str, Change]
    """`RATIOS`, `bits` (a ratio too) and `DIFFERENCES` against the first point, with 95 % intervals over the photos,
    paired; without those ratios whose divisor is 0."""

    @property
    def missed(self) -> bool | None:
        """Whether the bar for FSD is missed; None if this point has no bar."""
        if (self.least, self.tokens_per_step) != (1, BAR_TOKENS) or "fsd" not in self.compared:
            return None
        return self.compared["fsd"][0] > BAR

    def as_json(self) -> dict[str, Any]:
        """Give the point as the report has it."""
        own = {name: getattr(self, name) for name in ("tokens_per_step", "steps", "seconds", "bits")}
        compared = {name: {"value": value, "interval_95": pair} for name, (value, pair) in self.compared.items()}
        return {**own, **self.figures.as_json(), "compared": compared}


def summarise_steps(store: Store, n: int, tokens_per_step: Sequence[int]) -> list[Point]:
    """Compute the curve of the first photos.

    Args:
        store: has their measurements.
        n: number of photos.
        tokens_per_step: G, each a point of the curve; the first is compared with.
    """
    methods = [str(a_step) for a_step in tokens_per_step]
    own = store.load(n, ["bits", "steps", "seconds"])  # [N, G] each
    figures = summarise(store, n, methods, ())
    photos = store.load(n, [f"{method}/figures" for method in methods])  # [N, columns] each
    points = []
    for i, method in enumerate(methods):
        pair, columns = (figures[methods[0]], figures[method]), (methods[0], method)
        compared = compare(*pair, *(photos[f"{name}/figures"] for name in columns))
        bits, first = own["bits"][:, i], own["bits"][:, 0]
        known = not np.isnan(bits).any()
        if known and first.any():
            compared["bits"] = float(bits.mean() / first.mean()), ratio_interval(bits, first)
        points.append(
            Point(
                tokens_per_step=tokens_per_step[i],
                least=tokens_per_step[0],
                steps=float(own["steps"][:, i].mean()),
                seconds=float(np.median(own["seconds"][:, i])),
                bits=float(bits.mean()) if known else None,
                figures=figures[method],
                compared=compared,
            )
        )
    return points


def compare(first: Figures, other: Figures, a: np.ndarray, b: np.ndarray) -> dict[str, Change]:
    """Compare the second with the first, paired over the photos; without what cannot be compared.

    Args:
        first, other: means and distances.
        a, b: figures of each photo, [N, columns]; the columns begin with `MEANS`.
    """
    found: dict[str, Change | None] = {}
    for name in RATIOS + DIFFERENCES:
        if name in SETS:
            one, two = (Estimate(figures.sets[name], figures.resampled[name]) for figures in (first, other))
            found[name] = set_change(one, two, ratio=name in RATIOS)
        else:
            found[name] = mean_change(*(rows[:, MEANS.index(name)] for rows in (a, b)), ratio=name in RATIOS)
    return {name: change for name, change in found.items() if change is not None}


COLUMNS = (  # heading, figure, decimals, how it is compared
    ("FSD ↓", "fsd", 2, "FSD, times"),
    ("LPIPS-squeeze, hole ↓", "lpips_squeeze_hole", 4, "LPIPS, times"),
    ("KRD ↓", "krd", 4, "KRD, more"),
    ("PSNR, hole ↑", "psnr_hole", 2, "PSNR, more"),
    ("bits a token ↓", "bits", 4, "bits, times"),
)


def table(points: Sequence[Point]) -> str:
    """Write the curve as Markdown: every figure, and its comparison with the first line's, with a paired interval."""
    headings = ["tokens a step", "steps", "s a photo"]
    headings += [text for shown, _, _, against in COLUMNS for text in (shown, against)]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---:|" * len(headings)]
    for point in points:
        values = point.figures.as_json() | {"bits": point.bits}
        cells = [str(point.tokens_per_step), f"{point.steps:.1f}", f"{point.seconds:.2f}"]
        for _, name, digits, _ in COLUMNS:
            value = values[name]
            cells.append("-" if value is None else f"{value:.{digits}f}")
            if point is points[0] or name not in point.compared:
                cells.append("")
                continue
            middle, (low, high) = point.compared[name]
            digits = digits if name in DIFFERENCES else 3
            cells.append(f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
            if name == "fsd" and point.missed is not None:
                cells[-1] += f" ≤ {BAR}" + " missed" * point.missed
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def describe(setting: Mapping[str, Any], first: int) -> list[str]:
    """Write lines that say what a curve depends on."""
    among = " among equals" if setting["schedule"] == "confidence" else ""
    model = f"model {setting['model']}, {setting['order']} order{among}, {setting['schedule']} schedule"
    return [
        f"{model}, n = {setting['n']}, seed {setting['seed']}, benchmark sha256 {setting['benchmark_sha256']}",
        f"compared with {first} a step by the same schedule; in brackets: 95 % intervals, paired over the photos",
    ]
