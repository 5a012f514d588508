"""Blending: the membrane against an exact solution, colour casts, detail, what is not looked at, odd holes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.images.seams import LARGEST, blend

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def smooth(size: int, seed: int) -> np.ndarray:
    """float32 [size, size, 3] within 0.2 to 0.8, a few waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size][..., None] / size
    waves = [np.sin(2 * np.pi * (rng.uniform(-2, 2, 3) * y + rng.uniform(-2, 2, 3) * x) + k) for k in range(3)]
    return (0.5 + 0.1 * np.sum(waves, 0)).astype(np.float32)


def random_hole(size: int, seed: int) -> np.ndarray:
    """Two overlapping rectangles, one of them at the border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), bool)
    for first in (0, int(rng.integers(1, size // 2))):
        top = int(rng.integers(1, size // 2))
        mask[top : top + size // 2, first : first + size // 3] = True
    return mask


def exact(painted: np.ndarray, known: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Every hole pixel's Poisson equation, all at once; across the edge there is no difference left."""
    index = -np.ones(mask.shape, int)
    index[mask] = np.arange(mask.sum())
    matrix, right = np.zeros((mask.sum(), mask.sum())), np.zeros((mask.sum(), 3))
    for y, x in np.argwhere(mask):
        for dy, dx in STEPS:
            if not (0 <= y + dy < len(mask) and 0 <= x + dx < mask.shape[1]):
                continue
            i = index[y, x]
            matrix[i, i] += 1
            if mask[y + dy, x + dx]:
                matrix[i, index[y + dy, x + dx]] -= 1
            else:
                right[i] += known[y + dy, x + dx] - painted[y, x]
    out = painted.astype(float)
    out[mask] += np.linalg.solve(matrix, right)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_it_is_near_the_exact_solution(seed: int) -> None:
    painted, known, mask = smooth(40, seed), smooth(40, seed + 100), random_hole(40, seed)
    wanted = exact(painted, known, mask)
    correction = np.abs(wanted - painted)[mask].mean()
    error = np.abs(blend(painted, known, mask, mask) - wanted.clip(0, 1))[mask].mean()
    assert correction > 0.05 and error < 0.12 * correction


def test_a_colour_cast_is_taken_off() -> None:
    photo, mask = smooth(64, 0), random_hole(64, 0)
    cast = np.array([0.15, -0.1, 0.05], np.float32)
    out = blend(photo + cast, photo, mask, mask)
    # the steps are measured over one pixel, in which the photo itself changes a little
    assert np.abs(out - photo)[mask].mean() < 0.02 and np.abs(out - photo)[mask].max() < 0.06


def test_detail_stays() -> None:
    """What is painted keeps its own differences between neighbours, far below what a blur would leave of them."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, (64, 64, 3)).astype(np.float32)
    painted, known = (0.4 + noise).astype(np.float32), np.full((64, 64, 3), 0.6, np.float32)
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    out = blend(painted, known, mask, mask)
    inner = (slice(24, 40), slice(24, 40))
    before, after = (np.diff(a[inner], axis=0) for a in (painted, out))
    assert np.abs(after - before).max() < 0.01 < np.abs(before).mean()
    assert out[mask].mean() == pytest.approx(0.6, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0.02, 0.3, 0.7, 0.98]),
)
def test_any_hole(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    painted, known = (rng.random((height, width, 3)).astype(np.float32) for _ in range(2))
    mask = rng.random((height, width)) < share
    hidden = mask | (rng.random((height, width)) < 0.2)
    out = blend(painted, known, mask, hidden)
    assert out.dtype == np.float32 and out.shape == painted.shape and np.isfinite(out).all()
    assert np.array_equal(out[~mask], painted[~mask])
    assert out[mask].size == 0 or (out[mask].min() >= 0 and out[mask].max() <= 1)
    # what is hidden, and what is painted elsewhere, is not looked at
    other = np.where(hidden[..., None], np.float32(np.nan), known)
    elsewhere = np.where(mask[..., None], painted, np.float32(np.nan))
    assert np.array_equal(blend(elsewhere, other, mask, hidden)[mask], out[mask])


def test_a_hole_that_touches_nothing_known_stays_as_painted() -> None:
    painted = smooth(16, 0)
    everything, nothing = np.ones((16, 16), bool), np.zeros((16, 16), bool)
    assert np.array_equal(blend(painted, painted * 0, everything, everything), painted)
    assert np.array_equal(blend(painted, painted * 0, nothing, everything), painted)
    hole = nothing.copy()
    hole[4:8, 4:8] = True
    assert np.array_equal(blend(painted, painted * 0, hole, everything), painted)


def test_a_large_hole_gets_the_same_membrane_from_a_coarser_grid() -> None:
    size = LARGEST * 2
    small, large = (np.zeros((n, n, 3), np.float32) for n in (LARGEST, size))
    for array in (small, large):
        array[:] = np.linspace(0.2, 0.8, len(array), dtype=np.float32)[:, None, None]
    holes = [np.zeros(a.shape[:2], bool) for a in (small, large)]
    for hole in holes:
        n = len(hole)
        hole[n // 8 : n * 7 // 8, n // 8 : n * 7 // 8] = True
    half = np.full_like(small, 0.5), np.full_like(large, 0.5)
    found = [blend(p, k, h, h) for p, k, h in zip(half, (small, large), holes, strict=True)]
    assert np.abs(found[1][::2, ::2] - found[0]).mean() < 0.01
