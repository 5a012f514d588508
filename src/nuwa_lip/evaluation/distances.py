"""Distances between two sets of photos, given a feature vector of each photo, and how sure each figure is.

Legend: N photos, F features of a photo, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CHUNK = 4096
"""Rows looked at together: bounds the memory whatever N is."""
KERNEL_DEGREE = 3
RESAMPLES, MEAN_RESAMPLES = 50, 2000
"""For the spread of a distance between sets, which is costly: known to a tenth of itself; and for that of a mean."""
Interval = tuple[float, float]
"""Ends of a 95 % interval."""


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute FID's distance of the Gaussians fitted to two sets: |μ_a - μ_b|² + Tr(C_a + C_b - 2 √(C_a C_b)).

    In float64. With few photos it comes out too large: FID is read from 2,048 photos on.

    Args:
        a, b: [N, F], at least two rows each.
    """
    mean = float(np.square(a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)).sum())
    # with C = Rᵀ R, R from the centred features, Tr √(C_a C_b) is the sum of the singular values of R_a R_bᵀ;
    # unlike a matrix root this stays exact where there are fewer photos than features
    root_a, root_b = _root(a), _root(b)
    cross = float(torch.linalg.svdvals(root_a @ root_b.mT).sum())
    return max(0.0, mean + float(root_a.square().sum() + root_b.square().sum()) - 2 * cross)


def _root(x: np.ndarray) -> Tensor:
    """Compute the triangular R with Rᵀ R the covariance of x's columns, from some rows at a time."""
    centre, scale = x.mean(0, dtype=np.float64), np.sqrt(len(x) - 1)
    root = torch.empty(0, x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), CHUNK):
        rows = torch.from_numpy((x[start : start + CHUNK] - centre) / scale)
        root = torch.linalg.qr(torch.cat([root, rows]), mode="r").R
    return root


def kernel_distance(a: np.ndarray, b: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Compute the squared maximum mean discrepancy with the kernel (x·y / F + 1)³, unbiased at any N: KID's formula.

    Below 0 where the sets are more alike than two independent draws, as a set and itself are.

    Args:
        a, b: [N, F], as many rows each.
        counts: [R, N], how often each resample holds each photo; None: all once.

    Returns:
        float64 [R].
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    times = np.ones((1, len(a))) if counts is None else counts.astype(np.float64)
    within, across = np.zeros(len(times)), np.zeros(len(times))
    rows = max(1, CHUNK**2 // 8 // len(a))
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        for x, y in ((a, a), (b, b), (a, b)):
            kernel = (x[part] @ y.T / x.shape[1] + 1) ** KERNEL_DEGREE
            if x is y:  # a photo is not compared with itself, nor with its copies in the resample
                np.fill_diagonal(kernel[:, start:], 0)
            total = ((times[:, part] @ kernel) * times).sum(1)
            if x is y:
                within += total
            else:
                across += total
    pairs = np.square(times.sum(1))
    return within / (pairs - np.square(times).sum(1)) - 2 * across / pairs


class Estimate(NamedTuple):
    """A distance of paired sets, and its values on resamples of the photos."""

    value: float
    resampled: np.ndarray
    """float64 [R]. All estimates from N photos share their resamples, so that two of them can be compared in pairs."""

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return spread_interval(self.value, self.resampled)


def frechet_estimate(a: np.ndarray, b: np.ndarray, resamples: int = RESAMPLES) -> Estimate:
    """Estimate `frechet_distance` of paired sets.

    Args:
        a, b: features [N, F].
        resamples: R.
    """
    draws = _draws(len(a), resamples)
    return Estimate(frechet_distance(a, b), np.array([frechet_distance(a[rows], b[rows]) for rows in draws]))


def kernel_estimate(a: np.ndarray, b: np.ndarray, resamples: int = RESAMPLES) -> Estimate:
    """Estimate `kernel_distance` of paired sets.

    Args:
        a, b: features [N, F].
        resamples: R.
    """
    draws = [np.bincount(rows, minlength=len(a)) for rows in _draws(len(a), resamples)]
    value, *resampled = kernel_distance(a, b, np.stack([np.ones(len(a), dtype=np.int64), *draws]))
    return Estimate(float(value), np.array(resampled))


def _draws(n: int, resamples: int) -> list[np.ndarray]:
    """Draw the photos of each resample; never one photo alone, which has no distance."""
    rng = np.random.default_rng(0)
    found: list[np.ndarray] = []
    while len(found) < resamples:
        rows = rng.integers(n, size=n)
        if len(np.unique(rows)) > 1:
            found.append(rows)
    return found


def centred(value: float, resampled: np.ndarray) -> np.ndarray:
    """Move the resamples [R] of a distance so that their mean is its value.

    Photos that a resample repeats lift a distance, by about as much for every method. Divided so, two distances would
    be drawn towards the ratio 1, and the interval of their ratio would be too narrow.
    """
    return resampled - resampled.mean() + value


Change = tuple[float, Interval]
"""By how much one figure differs from another, or how many times as large it is, with the 95 % interval."""


def set_change(one: Estimate, other: Estimate, *, ratio: bool) -> Change | None:
    """Compare two distances that share their resamples, other - one.

    Args:
        one, other: the distances.
        ratio: other / one instead; None where that cannot be divided.
    """
    before, after = (centred(*estimate) for estimate in (one, other))
    if not ratio:
        return other.value - one.value, spread_interval(other.value - one.value, after - before)
    if not one.value or not before.all():
        return None
    return other.value / one.value, spread_interval(other.value / one.value, after / before)


def mean_change(one: np.ndarray, other: np.ndarray, *, ratio: bool) -> Change | None:
    """Compare the means of two figures of the same photos, other - one.

    Args:
        one, other: [N], NaN where a photo has no figure: it is left out of both. None where nothing is left.
        ratio: other / one instead; None where that cannot be divided.
    """
    both = ~np.isnan(one + other)
    one, other = one[both], other[both]
    if not both.any() or (ratio and not one.mean()):
        return None
    if ratio:
        return float(other.mean() / one.mean()), ratio_interval(other, one)
    return float((other - one).mean()), bootstrap_interval(other - one)


def spread_interval(value: float, resampled: np.ndarray) -> Interval:
    """Give the 95 % interval by the resamples' spread; their level is useless, as repeated photos shift a distance."""
    half = 1.96 * float(resampled.std(ddof=1))
    return value - half, value + half


def bootstrap_interval(values: np.ndarray) -> Interval:
    """Give the 95 % interval of the mean of per-photo values [N], by resampling the photos."""
    return ratio_interval(values, np.ones_like(values, dtype=np.float64))


def median_interval(values: np.ndarray) -> Interval:
    """Give the 95 % interval of the median of per-photo values [N], by resampling the photos."""
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(values, len(values))) for _ in range(MEAN_RESAMPLES)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def mean_and_interval(values: np.ndarray, *, median: bool = False) -> tuple[float | None, Interval | None]:
    """Average per-photo values [N] without NaN, with the 95 % interval; None twice if nothing is left."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None, None
    if median:
        return float(np.median(values)), median_interval(values)
    return float(values.mean()), bootstrap_interval(values)


def ratio_interval(values: np.ndarray, others: np.ndarray) -> Interval:
    """Give the 95 % interval of the ratio of the means of two values of the same photos, by resampling the photos.

    Args:
        values, others: [N].
    """
    rng = np.random.default_rng(0)
    together = max(1, 2_000_000 // len(values))  # resamples at a time: bounds the memory
    ratios: list[np.ndarray] = []
    for start in range(0, MEAN_RESAMPLES, together):
        rows = rng.integers(len(values), size=(min(together, MEAN_RESAMPLES - start), len(values)))
        ratios.append(values[rows].mean(1) / others[rows].mean(1))
    low, high = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    return float(low), float(high)


SetFigure = Callable[[np.ndarray, np.ndarray], Estimate]
"""Features of the repainted and of the original photos [N, F] → distance."""
