"""Masks: a picture that marks a hole, in whatever container → bool, True = to repaint, and how it was read.

There is one reader: arrays and tensors become the picture that a file of these channels holds. Of an opaque picture
white is repainted; of a layer with transparency what is drawn on it, in whatever colour. What may be meant in two ways
is taken in the likelier one with a warning, or refused: a wrong guess paints over known pixels.

Legend: H W height and width, C channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import Photo, upright
from nuwa_lip.images.pictures import as_array, load, to_bytes

if TYPE_CHECKING:
    from nuwa_lip.images.pictures import Picture

MIDDLE = 128  # of 255: grey from here on counts as white
DARK, LIGHT = 32, 223  # what is between is neither black nor white
ROUNDED = 10  # opacities this near to 0 or 255 are what a canvas has made of these
VISIBLE = 16  # opacity from which a stroke can be seen
STROKES, PHOTO = 32, 256  # more colours than strokes have; as many as only a photo has
SAMPLED = 128  # rows and columns that are looked at to tell what kind of picture it is


class Reading(NamedTuple):
    """Holds what a mask means."""

    white: np.ndarray
    """bool [H, W], as the mask is stored, True = to repaint."""
    how: str
    """How it was read."""
    note: str | None = None
    """What the user should know of that."""


def read_mask(mask: Picture, photo: Photo) -> Reading:
    """Read a mask as it is stored.

    Args:
        mask: a Pillow image of any mode, an array [H, W] or [H, W, C], or a tensor [H, W] or [C, H, W], of bool, uint8,
            uint16 (C = 1), or floating point from 0 to 1.
        photo: the photo that it belongs to, which is recognised if it is given as its own mask.

    Raises:
        InputError: it is none of these, or means nothing that can be told.
    """
    if isinstance(mask, Image.Image):
        return _read_image(load(mask, "the mask"), photo)
    values = as_array(mask, "mask_image")
    if values.dtype == np.bool_ and values.shape[2] == 1:
        return Reading(values[..., 0], "True = repaint")
    return _read_image(_as_image(values), photo)


def _as_image(values: np.ndarray) -> Image.Image:
    """Bring an array [H, W, C] to the picture that a file of these channels holds."""
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"mask_image has type {values.dtype}: give bool, uint8 with 255 = repaint, or floating point from 0 to 1"
        )
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"mask_image has floating-point numbers from {values.min():.9g} to {values.max():.9g}: "
                "they must be within 0 to 1, 0.5 and more = repaint"
            )
        values = to_bytes(values)
    elif values.max() == 1 or not (values.dtype == np.uint8 or (values.dtype == np.uint16 and values.shape[2] == 1)):
        raise InputError(
            f"mask_image has type {values.dtype} and values up to {values.max()}: "
            "give bool, uint8 with 255 = repaint, or floating point from 0 to 1"
        )
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def _read_image(image: Image.Image, photo: Photo) -> Reading:
    if image.mode in ("LAB", "La"):
        raise InputError(
            f"the mask has the mode {image.mode}, which Pillow cannot turn into grey: save it in grey or RGB"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        extrema: Any = layer.getchannel("A").getextrema()
        least, most = extrema
        if most - least > ROUNDED or most < VISIBLE:  # otherwise its opacity says nothing
            return _read_layer(layer, photo)
        image = layer.convert("RGB")
    if image.mode.startswith(("I", "F")):
        image = _reduce(image)
    return _read_opaque(image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB"))


def _reduce(image: Image.Image) -> Image.Image:
    """Bring numbers of 16 or 32 bits, or of floating point, to bytes; how wide they are, their greatest one tells."""
    values = np.asarray(image)
    least, most = values.min(), values.max()
    if np.isnan(most):
        raise InputError("the mask's floating-point numbers have NaN among them: give 0 to 1, 0.5 and more = repaint")
    if least < 0 or np.isinf(most):
        raise InputError(f"the mask has numbers from {least:.9g} to {most:.9g}: give 0 for black, 255 for white")
    if image.mode == "F" and most <= 1:
        middle, reduced = 0.5, to_bytes(values)
    elif most <= 255:
        middle, reduced = MIDDLE, values.astype(np.uint8)
    else:
        middle, reduced = MIDDLE * 257, (values.clip(0, 65535) // 257).astype(np.uint8)
    if 0 < most < middle:
        raise _nothing_white(most, f"{middle:.9g}")
    return Image.fromarray(reduced)


def _nothing_white(most: Any, middle: str = str(MIDDLE)) -> InputError:
    if most == 1:
        return InputError("the mask has values of 0 and 1 only: multiply them by 255, for 255 = repaint")
    return InputError(
        f"nothing to repaint: as grey, the mask has values up to {most:.9g} only, and {middle} and more = repaint; "
        "draw in white, or on a transparent layer"
    )


def _read_opaque(image: Image.Image) -> Reading:
    """Read a picture of mode L or RGB."""
    grey = image.convert("L")
    counts = np.array(grey.histogram())
    white = np.asarray(grey) >= MIDDLE
    most = int(np.flatnonzero(counts)[-1])
    if 0 < most < MIDDLE:
        raise _nothing_white(most)
    if image.getcolors(2) is not None:  # one of the two is the lighter one
        return Reading(white, "white = repaint")
    if image.mode == "RGB":
        red, green, blue = image.split()
        bright = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue)) >= MIDDLE
        if (bright != white).sum() > 0.01 * bright.sum():
            raise InputError(
                "the mask is opaque and has colours, some of which are darker than the middle as grey: "
                "draw in white on black, or in any colour on a transparent layer"
            )
    between = counts[DARK + 1 : LIGHT]
    share = between.sum() / counts.sum()
    spread = not counts[: DARK + 1].any() or most < LIGHT or between.max() > 0.25 * between.sum()
    if share > 0.5 and (spread or not _is_smooth(np.asarray(grey))):
        raise InputError(
            f"{100 * share:.3g} % of the mask is neither black nor white, as in a photo: "
            "give a mask that is white where to repaint, and black elsewhere"
        )
    edge = 0.01 * white.sum()
    soft = between.sum() > edge and _inside(np.asarray(grey), DARK + 1, LIGHT - 1) > edge
    note = (
        f"the mask is soft, {100 * share:.3g} % neither black nor white: it is cut at {MIDDLE} of 255" if soft else None
    )
    return Reading(white, "white = repaint", note)


def _is_smooth(grey: np.ndarray) -> bool:
    """Whether a picture is a gradient, as wide feathers are: its slope hardly changes from one sample to the next."""
    sample = grey[_few(grey.shape)].astype(int)
    bends = [np.abs(np.diff(sample, 2, axis)).ravel() for axis in (0, 1)]
    return bool((np.concatenate(bends) > 8).mean() < 0.02)


def _few(size: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns to look at instead of all."""
    rows, columns = (slice(None, None, -(-n // SAMPLED)) for n in size)
    return rows, columns


def _around(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """The least or the greatest (np.minimum, np.maximum) of every pixel and its eight neighbours."""
    for after, before in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        found = values.copy()
        pick(found[after], values[before], out=found[after])
        pick(found[before], values[after], out=found[before])
        values = found
    return values


def _inside(values: np.ndarray, least: int, most: int) -> int:
    """Count the pixels that are from `least` to `most`, as all around them: an edge of two pixels has none."""
    return int(((_around(values, np.minimum) >= least) & (_around(values, np.maximum) <= most)).sum())


def _read_layer(layer: Image.Image, photo: Photo) -> Reading:
    """Read a picture of mode RGBA with transparency: what is drawn on it is repainted, in whatever colour."""
    how = "drawn on a transparent layer, opaque = repaint"
    alpha = np.asarray(layer.getchannel("A"))
    most = int(alpha.max())
    if most == 1:
        raise _nothing_white(most)
    if 1 < most < VISIBLE:
        raise InputError(f"nothing to repaint: what is drawn on the mask has an opacity of up to {most} of 255 only")
    few = _few(alpha.shape)
    opaque = alpha[few] >= 255 - ROUNDED
    colours = np.asarray(layer)[few][opaque][:, :3]
    number = len(np.unique(colours, axis=0))
    if number > STROKES and _is_the_photo(few, opaque, colours, photo, alpha.shape):
        told = "the mask is the photo itself with a part rubbed out: what is transparent in it is repainted"
        return Reading(alpha < MIDDLE, "the photo itself, transparent = repaint", told)

    cut = min(MIDDLE, -(-_faintest(alpha) // 2))
    drawn = (alpha >= max(cut, 1)) if most else np.zeros(alpha.shape, bool)
    black, white = ((c.all(1).mean() if number else 0) for c in (colours <= DARK, colours >= LIGHT))
    both = min(black, white) > 0.05 and black + white > 0.9
    share, note = drawn.mean(), None
    if share > 0.5 and (both or number > PHOTO):
        found = "black, white" if both else "many colours, as a photo,"
        raise InputError(
            f"the mask has {found} and transparent parts, which may mean two things: give white on black without "
            "transparency, or a drawing on a transparent layer; a photo whose hole is transparent needs no mask"
        )
    if both:
        note = "what is drawn on the mask's transparent layer is black and white: all of it is repainted"
    elif share > 0.5:
        note = f"{100 * share:.3g} % of the mask's transparent layer is drawn on, and is repainted; or invert the mask"
    elif _inside(alpha, VISIBLE, cut - 1) > 0.01 * drawn.sum():
        note = f"what is drawn on the mask's transparent layer is soft: it is cut at an opacity of {cut} of 255"
    return Reading(drawn, how, note)


def _faintest(alpha: np.ndarray) -> int:
    """The opacity of the faintest stroke: strokes are where it stays the same, which soft edges do not."""
    visible = alpha >= VISIBLE
    even = visible & (_around(alpha, np.maximum) - _around(alpha, np.minimum) <= 1)
    strokes = np.flatnonzero(np.bincount(alpha[even], minlength=256) > 0.05 * visible.sum())
    return int(strokes[0] if len(strokes) else alpha.max())


def _is_the_photo(
    few: tuple[slice, slice], opaque: np.ndarray, colours: np.ndarray, photo: Photo, size: tuple[int, ...]
) -> bool:
    """Whether the opaque part of a mask is the photo's own.

    Args:
        few: the pixels that are looked at.
        opaque: bool, which of these are opaque.
        colours: uint8 [n, 3] of those that are.
        photo: upright or as it is stored, whichever has the mask's size.
        size: (H, W) of the mask.
    """
    for orientation in {1, photo.orientation}:
        pixels = upright(photo.pixels, orientation)
        if pixels.shape[:2] == size:
            part = replace(photo, pixels=pixels[few], orientation=1)
            own = part.rgb(np.s_[0 : opaque.shape[0], 0 : opaque.shape[1]], ~opaque)[opaque]
            if (np.abs(own * 255 - colours).max(1) <= VISIBLE).mean() > 0.9:
                return True
    return False
