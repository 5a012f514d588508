"""Where to work: a square window around each hole, reduced to the model's size from known pixels only.

What stands in the hole is removed before any resizing, which would smear it into its neighbours. Colours at
the hole's edge are averages over known pixels; a pixel of the reduced window is defective if any pixel under
it is. What a window has beyond the photo's edges counts as hole, and is never pasted.

Legend: H W height and width of the upright photo, h w those of a window, S side of the model's square.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import Photo

CONTEXT = 1.5  # side of a window over the longer side of its hole: the hole is 44 % of the window, as in training
MAX_ASPECT = 1.5  # a window may be squeezed to the square up to this; the models are trained so
MAX_ENLARGEMENT = 2  # of what is painted, from which a warning says that it may look soft
MAX_JOIN = 3  # times that a shared window may be as long as one of its holes would have alone
SEED_STRIDE = 0x9E3779B97F4A7C15  # between the seeds of two windows of one candidate; far from any seed + i


@dataclass(frozen=True)
class Box:
    """Bounds a rectangle of pixels, which may reach beyond the photo."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Return the number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return self.right - self.left

    @property
    def longer(self) -> int:
        """Return the number of pixels of the longer side."""
        return max(self.height, self.width)

    def overlaps(self, other: Box) -> bool:
        """Say whether the two have a pixel in common."""
        rows = self.top < other.bottom and other.top < self.bottom
        return rows and self.left < other.right and other.left < self.right

    def moved(self, down: int, right: int) -> Box:
        """Return the same rectangle, moved by these pixels."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    def join(self, other: Box) -> Box:
        """Return the smallest box around both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        return Box(top, left, max(self.bottom, other.bottom), max(self.right, other.right))

    def within(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return the part inside a photo of `size` (H, W), as slices."""
        rows = slice(max(self.top, 0), min(self.bottom, size[0]))
        return rows, slice(max(self.left, 0), min(self.right, size[1]))


@dataclass(frozen=True, eq=False)
class Part:
    """Holds the holes that share a window."""

    window: Box
    hole: Box
    """Around all of them."""
    cells: list[tuple[int, int]]
    """Those of the coarse grid that are theirs."""
    least: int
    """Longer side of the smallest window that one of them would have alone."""


def find_windows(mask: np.ndarray, resolution: int, padding: int | None = None) -> list[Box]:
    """Place the windows of `share_windows`.

    Args:
        mask: as there, and so the others.
        resolution: S.
        padding: pixels around the hole.
    """
    return [window for window, _ in share_windows(mask, resolution, padding)]


def share_windows(mask: np.ndarray, resolution: int, padding: int | None = None) -> list[tuple[Box, np.ndarray]]:
    """Place a window for each separate hole; holes whose windows overlap share one that is not much too large for any.

    With each window comes what it repaints, bool as large as its part inside the photo: where windows overlap, a hole
    still belongs to one of them.

    Args:
        mask: bool [H, W], True = to repaint, somewhere.
        resolution: S; where the photo is large enough, no window is smaller, so that nothing is enlarged in vain.
        padding: pixels around the hole instead of the usual context.
    """
    parts: list[Part] = []
    for box, cells in _separate(mask):
        window = place(box, mask.shape, resolution, padding)
        part, before = Part(window, box, cells, window.longer), None
        while part is not before:
            before = part
            for other in [other for other in parts if before.window.overlaps(other.window)]:
                hole, least = part.hole.join(other.hole), min(part.least, other.least)
                window = place(hole, mask.shape, resolution, padding)
                joined = Part(window, hole, part.cells + other.cells, least)
                if joined.window.longer <= MAX_JOIN * least:
                    part = joined
                    parts.remove(other)
        parts.append(part)
    parts.sort(key=lambda part: (part.window.top, part.window.left))
    return [(part.window, _own(mask, part, parts)) for part in parts]


def _own(mask: np.ndarray, part: Part, parts: list[Part]) -> np.ndarray:
    """Take the pixels of a part's holes out of its window's."""
    box = part.window.within(mask.shape[:2])
    if not any(other is not part and other.window.overlaps(part.window) for other in parts):
        return mask[box]
    cell = _cell(mask.shape)
    mine = np.zeros([-(-n // cell) for n in mask.shape], bool)
    mine[tuple(np.transpose(part.cells))] = True
    rows, columns = (np.arange(edge.start, edge.stop) // cell for edge in box)
    return mask[box] & mine[np.ix_(rows, columns)]


def place(hole: Box, size: tuple[int, ...], resolution: int, padding: int | None = None) -> Box:
    """Place the window for one hole: centred on it, and inside the photo where that is large enough.

    Args:
        hole: the box around its pixels.
        size: (H, W) of the photo.
        resolution: S, the least side where the photo is large enough.
        padding: pixels around the hole instead of the usual context.
    """
    side = max(resolution, math.ceil(CONTEXT * hole.longer)) if padding is None else hole.longer + 2 * padding
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
    """Find boxes around the connected parts of a mask, on a coarse grid (diagonal neighbours connect)."""
    return [box for box, _ in _separate(mask)]


def _cell(size: tuple[int, ...]) -> int:
    """Side of the coarse grid's cells in pixels."""
    return max(8, math.ceil(max(size) / 256))


def _separate(mask: np.ndarray) -> list[tuple[Box, list[tuple[int, int]]]]:
    """Find the connected parts of a mask: the box around each, and its cells of the coarse grid."""
    cell = _cell(mask.shape)
    whole = _shrink(mask, 0, 0, *mask.shape)  # a small hole needs no look at the rest of a large photo
    # whole cells, so that no other hole moves the grid
    top, left = (edge // cell * cell for edge in (whole.top, whole.left))
    part = mask[top : whole.bottom, left : whole.right]
    rows, columns = (np.arange(0, n, cell) for n in part.shape)
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(part, rows, axis=0), columns, axis=1)
    waiting = {(int(y) + top // cell, int(x) + left // cell) for y, x in np.argwhere(coarse)}
    parts = []
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
        parts.append((box, found))
    return parts


def _shrink(mask: np.ndarray, top: int, left: int, bottom: int, right: int) -> Box:
    """The box of the True pixels within a coarse box."""
    part = mask[top:bottom, left:right]
    ys = np.flatnonzero(part.any(1))
    xs = np.flatnonzero(part[ys[0] : ys[-1] + 1].any(0))
    return Box(top + int(ys[0]), left + int(xs[0]), top + int(ys[-1]) + 1, left + int(xs[-1]) + 1)


def window_seed(seed: int, number: int) -> int:
    """Give the seed of a candidate's window; the first window has the candidate's own."""
    return (seed + number * SEED_STRIDE) % 2**64


def warn_if_enlarged(times: float) -> None:
    """Warn if what is painted must be enlarged by so much that one sees it."""
    if times > MAX_ENLARGEMENT:
        warnings.warn(
            f"the hole is large: what is painted is enlarged {times:.1f} times and may look soft",
            stacklevel=5,  # who called the pipeline
        )


class View(NamedTuple):
    """Holds what the model sees of a window."""

    image: np.ndarray
    """float32 [S, S, 3] from 0 to 1, zero in the hole."""
    mask: np.ndarray
    """bool [S, S], True = defective."""


def look(photo: Photo, mask: np.ndarray, window: Box, resolution: int) -> View:
    """Take a window out of the upright photo and bring it to S x S.

    Args:
        photo: what lies under `mask`, or is fully transparent, is never looked at.
        mask: bool [H, W], True = to repaint.
        window: one of those that `find_windows` gives.
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


def put_back(image: Tensor, window: Box, size: tuple[int, int]) -> np.ndarray:
    """Bring the model's image back to the window's part inside the photo, float32 [h, w, 3] from 0 to 1.

    Args:
        image: [1, 3, S, S] in [-1, 1].
        window: the one that `look` has reduced.
        size: (H, W) of the photo.

    Raises:
        InputError: a pixel is no finite number.
    """
    rows, columns = window.within(size)
    # one axis after the other: a window may reach far beyond a strip of a photo
    image = _resize(image, (window.height, image.shape[3]))
    image = image[:, :, rows.start - window.top : rows.stop - window.top]
    image = _resize(image, (image.shape[2], window.width))
    image = image[0, :, :, columns.start - window.left : columns.stop - window.left]
    pixels = ((image + 1) / 2).permute(1, 2, 0).cpu().numpy()
    if not np.isfinite(pixels).all():
        raise InputError(
            "the model has painted pixels that are not finite: its weights are damaged, or the dtype is too narrow"
        )
    return pixels.clip(0, 1)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=True)


def resize_weights(n: int, out: int) -> np.ndarray:
    """Make weights [out, n] that bring n pixels to `out`: averages of areas to reduce, linear to enlarge."""
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
