"""Two photos compared pixel by pixel: what differs, and where."""

import numpy as np

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import Photo, upright


def differences(before: Photo, after: Photo) -> np.ndarray:
    """Tell which pixels of two photos differ, bool [H, W], both seen upright.

    Raises:
        InputError: they are of different sizes or modes.
    """
    (height, width), (other_height, other_width) = before.size, after.size
    if (before.size, before.mode) != (after.size, after.mode):
        raise InputError(
            f"the original is {width}x{height} {before.mode}, the result {other_width}x{other_height} {after.mode}: "
            "pixels can be compared only if both are alike"
        )
    if before.pixels.dtype != after.pixels.dtype:
        raise InputError(f"the original has {before.pixels.dtype}, the result {after.pixels.dtype} for each colour")
    return np.asarray((upright(before.pixels, before.orientation) != upright(after.pixels, after.orientation)).any(-1))


def region(pixels: np.ndarray) -> str:
    """Describe the smallest box around the pixels that are True; empty if none is."""
    if not pixels.any():
        return ""
    (top, bottom), (left, right) = (np.flatnonzero(pixels.any(axis))[[0, -1]] for axis in (1, 0))
    return f"{right - left + 1}x{bottom - top + 1}+{left}+{top}"
