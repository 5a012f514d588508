"""Holes: a mask in whatever container → the bool array that says what to repaint, checked against its photo."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.exif import TURNED, read_orientation
from nuwa_lip.images.mask import MIDDLE, read_mask
from nuwa_lip.images.photo import Photo, stored, upright

if TYPE_CHECKING:
    from nuwa_lip.images.pictures import Picture

ORIENTATIONS = ("displayed", "stored")


@dataclass(frozen=True)
class Hole:
    """Says what is to be repainted."""

    mask: np.ndarray
    """bool [height, width], upright, True = to repaint."""
    reading: str
    """How the mask was read, for the user."""
    opaque: bool = False
    """The hole is the photo's transparent part, which becomes opaque."""


def as_hole(mask: Picture | Hole | None, photo: Photo, *, invert: bool = False, orientation: str | None = None) -> Hole:
    """Read a mask for a photo, and look at the photo: white (128 to 255, True, 0.5 to 1) is to be repainted.

    Args:
        mask: what `mask.read_mask` reads, as large as the photo. None: what is transparent in the photo. A `Hole`:
            itself.
        photo: the photo that it belongs to.
        invert: repaint what is not white; for masks only.
        orientation: "displayed" or "stored": how the mask lies upon a photo that its EXIF turns. None: as it fits, and
            as the photo is displayed where it fits both ways.

    Raises:
        InputError: the mask cannot be read, has another size or leaves nothing to repaint; or `examine` refuses.
    """
    if isinstance(mask, Hole):
        return mask
    hole = read_hole(mask, photo, invert=invert, orientation=orientation)
    examine(photo, hole)
    return hole


def examine(photo: Photo, hole: Hole) -> None:
    """Look once over what is known of a photo: what its numbers mean must not depend on what is hidden.

    A warning says how much of the hole is fully transparent, which stays invisible.

    Raises:
        InputError: its known floating-point numbers are not within 0 to 1.
    """
    alpha = photo.alpha
    if alpha is not None and not hole.opaque and (unseen := (alpha[hole.mask] == 0).mean()):
        warnings.warn(
            f"{100 * unseen:.3g} % of the hole is fully transparent in the photo, and stays invisible: "
            "give no mask to repaint what is transparent, or a photo without transparency",
            stacklevel=5,
        )
    if photo.pixels.dtype.kind != "f" and photo.mode != "I":
        return
    least, most = photo.known_range(hole.mask)
    if photo.mode == "I":
        photo.bytes_only = least >= 0 and most <= 255
    elif not (least >= 0 and most <= 1):
        # 9 digits tell float32's next after 1 from 1
        found = "NaN among them" if math.isnan(least) else f"{least:.9g} to {most:.9g}"
        raise InputError(
            f"the photo's floating-point numbers, {found}, are not within 0 to 1: scale them, or mask what is wrong"
        )


def read_hole(mask: Picture | None, photo: Photo, *, invert: bool = False, orientation: str | None = None) -> Hole:
    """Read a mask as `as_hole` does, without looking at the photo's colours: the hole may still be widened.

    Args:
        mask: as for `as_hole`.
        photo: its size, orientation and alpha count.
        invert: repaint what is not white; for masks only.
        orientation: as for `as_hole`.

    Raises:
        InputError: the mask cannot be read, has another size, or leaves nothing to repaint.
    """
    if orientation is not None and not (isinstance(orientation, str) and orientation in ORIENTATIONS):
        raise InputError(f"the mask's orientation is {orientation!r}; it must be 'displayed' or 'stored'")
    if mask is None:
        if invert:
            raise InputError("there is no mask to invert")
        return _hole_from_alpha(photo)
    white, reading, note = read_mask(mask, photo)
    if note is not None:
        warnings.warn(note, stacklevel=4)
    own = 1
    if isinstance(mask, Image.Image):
        own = read_orientation(mask)
        if TURNED in mask.info:
            own = mask.info[TURNED]
            white = stored(white, own)
    own = 1 if orientation == "stored" else own
    white, turned = _lay(upright(white, own), photo, orientation, sure=own != 1)
    if turned:
        reading = f"{reading}, turned as the photo"
    if invert:
        white, reading = ~white, f"{reading}, inverted"
    if not white.any():
        raise InputError(f"nothing to repaint: the mask is empty ({reading})")
    return Hole(white, reading)


def _lay(mask: np.ndarray, photo: Photo, orientation: str | None, sure: bool) -> tuple[np.ndarray, bool]:
    """Lay a mask (bool [H, W]) upon the upright photo, and say whether it was turned for that.

    Args:
        mask: it may lie as the photo is displayed or as it is stored.
        photo: its size and orientation count.
        orientation: as for `as_hole`.
        sure: it lies as the photo is displayed, because an orientation of its own has turned it.
    """
    displayed, lying = photo.size, photo.pixels.shape[:2]
    if orientation != "stored" and mask.shape == displayed:
        other = upright(mask, photo.orientation)
        if orientation is None and not sure and not np.array_equal(mask, other) and other.shape == displayed:
            warnings.warn(
                f"the photo's EXIF turns it (orientation {photo.orientation}), and the mask fits both ways: it is "
                "taken as the photo is displayed; the mask orientation 'stored' takes it as the photo is stored",
                stacklevel=5,
            )
        return mask, False
    if orientation != "displayed" and not sure and mask.shape == lying:
        return upright(mask, photo.orientation), photo.orientation != 1
    height, width = lying if orientation == "stored" else displayed
    own = " as its own EXIF turns it" if sure else ""
    where = "" if orientation is None else f" as it is {orientation}"
    size = f"{mask.shape[1]}x{mask.shape[0]}{own}"
    raise InputError(f"the mask is {size}, the photo {width}x{height}{where}; they must be of one size")


def _hole_from_alpha(photo: Photo) -> Hole:
    if photo.alpha is None:
        raise InputError("there is no mask, and the photo has no alpha channel whose transparent part could be it")
    mask = photo.alpha < photo.scale * MIDDLE / 255
    if not mask.any():
        raise InputError("nothing to repaint: there is no mask, and nothing of the photo is transparent")
    return Hole(mask, "transparent = repaint", opaque=True)


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Widen a mask (bool [H, W]) by a number of pixels on every side."""
    grown = mask.copy()
    for axis in (0, 1):
        reached = 0
        while reached < pixels:  # steps of 1, 2, 4, ... reach far quickly
            step = min(max(reached, 1), pixels - reached)
            before, wide = np.moveaxis(grown.copy(), axis, 0), np.moveaxis(grown, axis, 0)
            wide[step:] |= before[:-step]
            wide[:-step] |= before[step:]
            reached += step
    return grown
