"""Where to work: a square window around each hole, reduced to the model's size from known pixels only.

What stands in the hole is removed before any resizing, which would smear it into its neighbours. Colours at
the hole's edge are averages over known pixels; a pixel of the reduced window is defective if any pixel under
it is. What a window has beyond the photo's edges counts as hole, and is never pasted.

Legend: H W height and width of the upright photo, h w those of a window, S side of the model's square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nuwa_lip.images.photo import Photo

CONTEXT = 1.5  # side of a window over the longer side of its hole: the hole is 44 % of the window, as in training
MAX_ASPECT = 1.5  # a window may be squeezed to the square up to this; the models are trained so


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; it may reach beyond the photo."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def overlaps(self, other: Box) -> bool:
        """Whether they have a pixel in common."""
        rows = self.top < other.bottom and other.top < self.bottom
        return rows and self.left < other.right and other.left < self.right

    def moved(self, down: int, right: int) -> Box:
        """The same rectangle elsewhere."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    def join(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def within(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """The part inside a photo of `size` (H, W), as slices."""
        rows = slice(max(self.top, 0), min(self.bottom, size[0]))
        return rows, slice(max(self.left, 0), min(self.right, size[1]))


def find_windows(mask: np.ndarray, resolution: int, padding: int | None = None) -> list[Box]:
    """One window for each separate hole; holes whose windows overlap share one.

    Args:
        mask: bool [H, W], True = to repaint, somewhere.
        resolution: S; a window is at least as large where the photo allows: nothing is enlarged in vain.
        padding: pixels around the hole instead of the usual context.
    """
    holes: list[Box] = []
    windows: list[Box] = []
    for hole in find_holes(mask):
        window = place(hole, mask.shape, resolution, padding)
        while touching := [i for i, other in enumerate(windows) if window.overlaps(other)]:
            for i in reversed(touching):
                hole = hole.join(holes.pop(i))
                windows.pop(i)
            window = place(hole, mask.shape, resolution, padding)
        holes.append(hole)
        windows.append(window)
    return sorted(windows, key=lambda box: (box.top, box.left))


def place(hole: Box, size: tuple[int, ...], resolution: int, padding: int | None = None) -> Box:
    """The window for one hole: centred on it, inside the photo where that is large enough."""
    longer = max(hole.height, hole.width)
    side = max(resolution, math.ceil(CONTEXT * longer)) if padding is None else longer + 2 * padding
    height, width = min(side, size[0]), min(side, size[1])
    # a strip is completed to a shape that may be squeezed, with nothing
    full_height = max(height, math.ceil(width / MAX_ASPECT))
    full_width = max(width, math.ceil(height / MAX_ASPECT))
    top = _centre(hole.top, hole.bottom, full_height, size[0])
    left = _centre(hole.left, hole.right, full_width, size[1])
    return Box(top, left, top + full_height, left + full_width)


def _centre(start: int, end: int, length: int, limit: int) -> int:
    """Start of an interval of `length` around [start, end), moved into [0, limit) or centred on it."""
    if length >= limit:
        return (limit - length) // 2
    return min(max((start + end - length) // 2, 0), limit - length)


def find_holes(mask: np.ndarray) -> list[Box]:
    """Boxes around the connected parts of a mask, found on a coarse grid (diagonal neighbours connect)."""
    cell = max(8, math.ceil(max(mask.shape) / 256))
    whole = _shrink(mask, 0, 0, *mask.shape)  # of a small hole in a large photo the rest need not be looked at
    mask = mask[whole.top : whole.bottom, whole.left : whole.right]
    rows, columns = (np.arange(0, n, cell) for n in mask.shape)
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
    waiting = {(int(y), int(x)) for y, x in np.argwhere(coarse)}
    boxes = []
    for seed in sorted(waiting):
        if seed not in waiting:
            continue
        waiting.discard(seed)
        found, edge = [seed], [seed]
        while edge:
            y, x = edge.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & waiting
            waiting -= near
            found += near
            edge += near
        ys, xs = zip(*found, strict=True)
        box = _shrink(mask, min(ys) * cell, min(xs) * cell, (max(ys) + 1) * cell, (max(xs) + 1) * cell)
        boxes.append(box.moved(whole.top, whole.left))
    return boxes


def _shrink(mask: np.ndarray, top: int, left: int, bottom: int, right: int) -> Box:
    """The box of the True pixels within a coarse box."""
    part = mask[top:bottom, left:right]
    ys = np.flatnonzero(part.any(1))
    xs = np.flatnonzero(part[ys[0] : ys[-1] + 1].any(0))
    return Box(top + int(ys[0]), left + int(xs[0]), top + int(ys[-1]) + 1, left + int(xs[-1]) + 1)


class View(NamedTuple):
    """What the model sees of a window."""

    image: np.ndarray
    """float32 [S, S, 3] from 0 to 1, zero in the hole."""
    mask: np.ndarray
    """bool [S, S], True = defective."""


def look(photo: Photo, mask: np.ndarray, window: Box, resolution: int) -> View:
    """Take a window out of the upright photo and bring it to S x S.

    Args:
        photo: what is under `mask`, and under full transparency, is never looked at.
        mask: bool [H, W].
        window: one of `find_windows`.
        resolution: S.
    """
    rows, columns = window.within(photo.size)
    hidden = photo.hidden(mask, (rows, columns))
    down = resize_weights(window.height, resolution)[:, rows.start - window.top : rows.stop - window.top]
    across = resize_weights(window.width, resolution)
    across = across[:, columns.start - window.left : columns.stop - window.left]
    image = np.zeros((resolution, hidden.shape[1], 3), np.float32)
    weight = np.zeros((resolution, hidden.shape[1]), np.float32)
    # rows at a time, so that a large window is never held as floating-point numbers
    for start in range(0, len(hidden), 256):
        part = slice(start, min(start + 256, len(hidden)))
        pixels = photo.rgb((slice(rows.start + part.start, rows.start + part.stop), columns), hidden[part])
        image += np.tensordot(down[:, part], pixels, 1)
        weight += down[:, part] @ ~hidden[part]
    image = np.einsum("swc,tw->stc", image, across, optimize=True)
    weight = weight @ across.T
    defective = _any_under(hidden, window, photo.size, resolution)
    known = np.maximum(weight, np.float32(1e-6))[..., None]
    return View(np.where(defective[..., None], np.float32(0), image / known), defective)


def resize_weights(n: int, out: int) -> np.ndarray:
    """Weights [out, n] that bring n pixels to `out`: the area's average to reduce, linear to enlarge."""
    step = n / out
    if n >= out:
        start = np.arange(out)[:, None] * step
        pixel = np.arange(n)[None]
        overlap = np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)
        return (overlap.clip(0) / step).astype(np.float32)
    centre = ((np.arange(out) + 0.5) * step - 0.5).clip(0, n - 1)[:, None]
    return (1 - np.abs(centre - np.arange(n)[None])).clip(0).astype(np.float32)


def _any_under(hidden: np.ndarray, window: Box, size: tuple[int, int], resolution: int) -> np.ndarray:
    """Reduce (or enlarge) a window's mask: True if any pixel that an output pixel covers is True.

    Args:
        hidden: bool, the part of the window inside the photo; what is beyond counts as True.
        size: (H, W) of the photo.
    """
    inside = window.within(size)
    for axis, (first, length) in enumerate(((window.top, window.height), (window.left, window.width))):
        # whole numbers: rounding must not let a sliver of a defective pixel pass
        starts = first + np.arange(resolution) * length // resolution
        stops = first + ((np.arange(resolution) + 1) * length - 1) // resolution + 1
        low, high = inside[axis].start, inside[axis].stop
        beyond = np.expand_dims((starts < low) | (stops > high), 1 - axis)
        empty = np.zeros_like(hidden.take([0], axis), np.int32)
        counts = np.concatenate([empty, hidden.cumsum(axis, dtype=np.int32)], axis)
        starts, stops = (edge.clip(low, high) - low for edge in (starts, stops))
        hidden = beyond | (counts.take(stops, axis) > counts.take(starts, axis))
    return hidden
