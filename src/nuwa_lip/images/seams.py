"""Seamless pasting: what is painted keeps its own differences and takes its colours from the known pixels around it.

Poisson image editing (Pérez, Gangnet, Blake 2003) as a membrane: at the hole's edge the known pixels differ from
what is painted beside them; these differences, continued smoothly over the hole (Laplace's equation), are added to
it. No known pixel is changed, and nothing but known pixels and the painting is looked at.

Legend: H W size of a window's part inside the photo, h w of a level of the pyramid.
"""

import numpy as np

LARGEST = 512
"""Side of the finest grid to compute on; larger holes get an enlarged membrane, which is smooth anyway."""
SWEEPS = 24
"""Sweeps of relaxation on each level, which begins with the solution of the next coarser one."""
DAMPING = 0.8
COARSEST = 4
"""Side below which no coarser level is taken."""
NEIGHBOURS = ((0, 1), (0, -1), (1, 1), (1, -1))  # axis, direction


def blend(painted: np.ndarray, known: np.ndarray, mask: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Fit what is painted to the known pixels by the membrane between them.

    Args:
        painted: float32 [H, W, 3] from 0 to 1; only what is under `mask` counts.
        known: float32 [H, W, 3] from 0 to 1; what is under `hidden` is not looked at.
        mask: bool [H, W], the pixels to replace.
        hidden: bool [H, W], what is not known, `mask` included.

    Returns:
        float32 [H, W, 3] from 0 to 1; `painted` itself if no part of the hole touches anything known.
    """
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return painted
    box = (slice(max(ys.min() - 1, 0), ys.max() + 2), slice(max(xs.min() - 1, 0), xs.max() + 2))
    hole = mask[box]
    edge, step = _steps(painted[box], known[box], hole, ~hidden[box])
    if not edge.any():
        return painted
    factor = -(-max(hole.shape) // LARGEST)
    values, fixed = _reduce(step, edge, factor)
    inside = _any(hole, factor) & ~fixed
    membrane = _enlarge(_solve(values, fixed, inside | fixed), factor, hole.shape)
    out = painted.copy()
    out[box][hole] = (painted[box] + membrane)[hole].clip(0, 1)
    return out


def _steps(
    painted: np.ndarray, known: np.ndarray, hole: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Known pixels beside the hole, bool [h, w], and by how much they differ from what is painted beside them."""
    count = sum(_shifted(hole, *n, fill=False).astype(np.float32) for n in NEIGHBOURS)
    beside = sum(_shifted(np.where(hole[..., None], painted, 0), *n, fill=0) for n in NEIGHBOURS)
    edge = usable & ~hole & (np.asarray(count) > 0)
    mean = beside / np.maximum(count, 1)[..., None]
    return edge, np.where(edge[..., None], known - mean, np.float32(0)).astype(np.float32)


def _solve(values: np.ndarray, fixed: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Laplace's equation, coarse to fine.

    Args:
        values: float32 [h, w, 3], the solution where `fixed`.
        fixed: bool [h, w], somewhere True.
        active: bool [h, w], where there is a solution at all; nothing flows across the border of that.
    """
    if min(fixed.shape) < 2 * COARSEST:
        start = np.broadcast_to(values[fixed].mean(0), values.shape)
    else:
        coarse_values, coarse_fixed = _reduce(values, fixed, 2)
        coarse = _solve(coarse_values, coarse_fixed, _any(active, 2))
        start = _enlarge(coarse, 2, fixed.shape)
    free = (active & ~fixed)[..., None]
    u = np.where(free, start, values)
    weights = [_shifted(active, *n, fill=False)[..., None].astype(np.float32) for n in NEIGHBOURS]
    scale = np.float32(DAMPING) / np.maximum(np.sum(weights, 0), 1)
    for _ in range(SWEEPS):
        around = sum(w * _shifted(u, *n, fill=0) for w, n in zip(weights, NEIGHBOURS, strict=True))
        u = np.where(free, (1 - DAMPING) * u + scale * around, values).astype(np.float32)
    return u


def _shifted(array: np.ndarray, axis: int, direction: int, fill: float | bool) -> np.ndarray:
    """Every pixel's neighbour; `fill` beyond the border."""
    out = np.full_like(array, fill)
    here, there = (slice(None, -1), slice(1, None))[::direction]
    both = (slice(None),) * axis
    out[(*both, here)] = array[(*both, there)]
    return out


def _reduce(values: np.ndarray, where: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the values that count in each cell of factor² pixels, and which cells have any."""
    weights = where[..., None].astype(np.float32)
    total, count = (_cells(a, factor).sum((1, 3)) for a in (values * weights, weights))
    return total / np.maximum(count, 1), count[..., 0] > 0


def _any(where: np.ndarray, factor: int) -> np.ndarray:
    """Which cells of factor² pixels have one that is True."""
    return np.any(_cells(where[..., None], factor), axis=(1, 3))[..., 0]


def _cells(array: np.ndarray, factor: int) -> np.ndarray:
    """[h, w, C] → [h / factor, factor, w / factor, factor, C], completed with zeros."""
    h, w, channels = array.shape
    padded = np.pad(array, ((0, -h % factor), (0, -w % factor), (0, 0)))
    return padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, channels)


def _enlarge(array: np.ndarray, factor: int, size: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation of cells' centres, cut to `size`."""
    for axis in (0, 1):
        place = ((np.arange(size[axis]) + 0.5) / factor - 0.5).clip(0, array.shape[axis] - 1)
        low = place.astype(int)
        high = np.minimum(low + 1, array.shape[axis] - 1)
        share = (place - low).astype(np.float32).reshape(-1, *(1,) * (array.ndim - 1 - axis))
        array = array.take(low, axis) * (1 - share) + array.take(high, axis) * share
    return array
