"""Holes drawn on the command line, for those who have no mask picture: rectangles and discs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nuwa_lip.errors import InputError
from nuwa_lip.images.hole import Hole

Box = tuple[int, int, int, int]
Circle = tuple[int, int, int]


def drawn_hole(size: tuple[int, int], boxes: Sequence[Box], circles: Sequence[Circle], *, invert: bool = False) -> Hole:
    """Draw rectangles and discs, whose parts outside the photo are cut off.

    Args:
        size: height and width of the photo as a viewer shows it.
        boxes: left, top, width and height of each, in pixels.
        circles: of each the middle's distance from the left and from the top, and the radius.
        invert: the hole is everything else.

    Raises:
        InputError: one of them has no extent, or lies outside; or nothing is left to repaint.
    """
    mask = np.zeros(size, bool)
    down, across = np.ogrid[: size[0], : size[1]]
    for left, top, width, height in boxes:
        shape = (across >= left) & (across < left + width) & (down >= top) & (down < top + height)
        _check(shape, f"--box {left} {top} {width} {height}", size)
        mask |= shape
    for x, y, radius in circles:
        shape = (across - x) ** 2 + (down - y) ** 2 <= radius**2 if radius >= 0 else np.zeros(size, bool)
        _check(shape, f"--circle {x} {y} {radius}", size)
        mask |= shape
    mask = ~mask if invert else mask
    if not mask.any():
        raise InputError("nothing to repaint: --box and --circle cover the whole photo, and --invert takes the rest")
    return Hole(mask, "drawn, inverted" if invert else "drawn")


def _check(shape: np.ndarray, name: str, size: tuple[int, int]) -> None:
    if not shape.any():
        raise InputError(f"{name} has no pixel within the photo of {size[1]}x{size[0]}")
