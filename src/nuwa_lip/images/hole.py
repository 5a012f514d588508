"""Holes: a mask in whatever container → the bool array that says what to repaint, checked against its photo."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import Photo, upright
from nuwa_lip.images.pictures import as_array

if TYPE_CHECKING:
    from nuwa_lip.images.pictures import Picture

OPAQUE = 128  # of 255: alpha from here on counts as opaque, grey as white


@dataclass(frozen=True)
class Hole:
    """Says what is to be repainted."""

    mask: np.ndarray
    """bool [height, width], upright, True = to repaint."""
    reading: str
    """How the mask was read, for the user."""
    opaque: bool = False
    """The hole is the photo's transparent part, which becomes opaque."""


def as_hole(mask: Picture | Hole | None, photo: Photo, *, invert: bool = False) -> Hole:
    """Read a mask for a photo, and look at the photo: white (128 to 255, True, 0.5 to 1) is to be repainted.

    Args:
        mask: a Pillow image of any mode, an array [H, W] or [H, W, C], or a tensor [C, H, W]; as large as the photo,
            either as it is stored or as a viewer shows it. None: what is transparent in the photo. A `Hole`: itself.
        photo: the photo that it belongs to.
        invert: repaint what is not white; for masks only.

    Raises:
        InputError: the mask cannot be read, has another size or leaves nothing to repaint; or `examine` refuses.
    """
    if isinstance(mask, Hole):
        return mask
    hole = read_hole(mask, photo, invert=invert)
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


def read_hole(mask: Picture | None, photo: Photo, *, invert: bool = False) -> Hole:
    """Read a mask as `as_hole` does, without looking at the photo's colours: the hole may still be widened.

    Args:
        mask: as for `as_hole`.
        photo: its size, orientation and alpha count.
        invert: repaint what is not white; for masks only.

    Raises:
        InputError: the mask cannot be read, has another size, or leaves nothing to repaint.
    """
    if mask is None:
        if invert:
            raise InputError("there is no mask to invert")
        return _hole_from_alpha(photo)
    reading, white = _read_mask(mask)
    height, width = photo.size
    if white.shape != (height, width):
        if white.shape != photo.pixels.shape[:2]:
            raise InputError(
                f"the mask is {white.shape[1]}x{white.shape[0]}, the photo {width}x{height}; they must be of one size"
            )
        white, reading = upright(white, photo.orientation), f"{reading}, turned as the photo"
    if invert:
        white, reading = ~white, f"{reading}, inverted"
    if not white.any():
        raise InputError(f"nothing to repaint: the mask is empty ({reading})")
    return Hole(white, reading)


def _hole_from_alpha(photo: Photo) -> Hole:
    if photo.alpha is None:
        raise InputError("there is no mask, and the photo has no alpha channel whose transparent part could be it")
    mask = photo.alpha < photo.scale * OPAQUE / 255
    if not mask.any():
        raise InputError("nothing to repaint: there is no mask, and nothing of the photo is transparent")
    return Hole(mask, "transparent = repaint", opaque=True)


def _read_mask(mask: Picture) -> tuple[str, np.ndarray]:
    """Turn a mask of any container into bool [H, W], True = to repaint, and say how it was read."""
    if isinstance(mask, Image.Image):
        return _read_mask_image(ImageOps.exif_transpose(mask))
    return _read_mask_array(as_array(mask, "mask_image"))


def _read_mask_image(image: Image.Image) -> tuple[str, np.ndarray]:
    if image.mode in ("LAB", "La"):
        raise InputError(
            f"the mask has the mode {image.mode}, which Pillow cannot turn into grey: save it in grey or RGB"
        )
    if image.mode in ("1", "L"):
        values = np.asarray(image.convert("L"))
        if values.max() == 1:  # as of arrays: numbers of 0 and 1 that were meant as black and white
            raise InputError("the mask has values of 0 and 1 only: multiply them by 255, for 255 = repaint")
        return "white = repaint", values >= OPAQUE
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        most = values.max()  # tells how wide the numbers are, whatever they are stored in
        if np.isnan(most):
            raise InputError(
                "the mask's floating-point numbers have NaN among them: give 0 to 1, 0.5 and more = repaint"
            )
        least = 0.5 if image.mode == "F" and most <= 1 else OPAQUE if most <= 255 else OPAQUE * 257
        return "white = repaint", np.asarray(values >= least, bool)
    if not image.has_transparency_data:
        return "white = repaint", np.asarray(image.convert("L")) >= OPAQUE
    rgba = np.asarray(image.convert("RGBA"))
    opaque = np.asarray(rgba[..., 3] >= OPAQUE)
    colours = rgba[opaque]
    if not opaque.all() and len(colours) and not np.ptp(colours[:, :3], axis=0).any():
        return "drawn on a transparent layer, opaque = repaint", opaque
    reading = "white = repaint" if opaque.all() else "white and opaque = repaint"
    return reading, (np.asarray(image.convert("RGB").convert("L")) >= OPAQUE) & opaque


def _read_mask_array(values: np.ndarray) -> tuple[str, np.ndarray]:
    if values.dtype == np.bool_:
        return "True = repaint", np.asarray(values.any(-1))
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"mask_image has floating-point numbers from {values.min():.9g} to {values.max():.9g}: "
                "they must be within 0 to 1, 0.5 and more = repaint"
            )
        return "0.5 and more = repaint", values[..., :3].mean(-1) >= 0.5
    if values.dtype != np.uint8 or values.max(initial=0) == 1:
        raise InputError(
            f"mask_image has type {values.dtype} and values up to {values.max()}: "
            "give bool, uint8 with 255 = repaint, or floating point from 0 to 1"
        )
    if values.shape[2] == 1:
        return "white = repaint", values[..., 0] >= OPAQUE
    return _read_mask_image(Image.fromarray(values))


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
