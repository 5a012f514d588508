"""Photos and masks as users have them → what the pipeline works on, and back without touching a known pixel.

A `Photo` keeps the pixels as they are stored, in their own mode and precision. Everything else sees it
upright, as a viewer shows it: `upright` gives views of the stored arrays, so that writing the hole into the
view writes it into the stored picture. Only hole pixels are ever converted to the photo's mode.

Legend: H W stored height and width, h w those of a window, C channels of the mode.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from nuwa_lip.errors import InputError
from nuwa_lip.images.exif import read_exif

if TYPE_CHECKING:
    from torch import Tensor

    Picture = Image.Image | np.ndarray | Tensor

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
CONVERTED = {"RGBa": "RGBA", "La": "LA", "RGBX": "RGB"}
BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SCALES = {"b": 1.0, "u1": 255.0, "u2": 65535.0, "i4": 65535.0, "f": 1.0}
STRIP = 256  # rows that are worked on at a time where a whole photo would fill the memory
OPAQUE = 128  # of 255: alpha from here on counts as opaque, grey as white


@dataclass(kw_only=True)
class Photo:
    """A photo as it is stored."""

    pixels: np.ndarray
    """[H, W, C] bool, uint8, uint16, int32 or float32 (0 to 1); shared with the caller, never written to."""
    mode: str
    """Pillow's mode of the result."""
    orientation: int = 1
    """EXIF's, 1 to 8."""
    info: dict[str, Any] = field(default_factory=dict)
    """What goes along with the pixels: exif, icc_profile, dpi."""
    bytes_only: bool = False
    """The known numbers of a photo of mode I are bytes, as `examine` finds: 255 is white, and the result has mode L."""

    @property
    def scale(self) -> float:
        """The value of white."""
        if self.bytes_only:
            return 255.0
        kind = self.pixels.dtype.kind
        return SCALES[kind if kind in "bf" else f"{kind}{self.pixels.dtype.itemsize}"]

    @property
    def colours(self) -> int:
        """Channels without alpha."""
        return self.pixels.shape[2] - (self.mode in ("LA", "RGBA"))

    @property
    def alpha(self) -> np.ndarray | None:
        """[height, width], upright; None without an alpha channel."""
        return upright(self.pixels[..., -1], self.orientation) if self.mode in ("LA", "RGBA") else None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as seen upright."""
        height, width = upright(self.pixels, self.orientation).shape[:2]
        return height, width

    def rgb(self, box: tuple[slice, slice], hidden: np.ndarray) -> np.ndarray:
        """The upright part `box` as float32 [h, w, 3] from 0 to 1, zero where `hidden` (bool [h, w])."""
        pixels = upright(self.pixels, self.orientation)[box][..., : self.colours]
        values = np.where(hidden[..., None], 0, pixels).astype(np.float32) / np.float32(self.scale)
        if self.mode == "CMYK":
            ink = 1 - values
            rgb = ink[..., :3] * ink[..., 3:]
        else:
            rgb = np.repeat(values, 3, -1) if self.colours == 1 else values
        return np.where(hidden[..., None], np.float32(0), rgb.clip(0, 1))

    def hidden(self, mask: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
        """What is not known of the upright part `box`, bool [h, w]: the hole `mask`, and what is transparent."""
        alpha = self.alpha
        return mask[box] if alpha is None else mask[box] | (alpha[box] == 0)

    def known_range(self, mask: np.ndarray) -> tuple[float, float]:
        """Least and greatest of the known colours, NaN if one is, and of all alpha, which outlasts the hole `mask`."""
        pixels = upright(self.pixels, self.orientation)
        ends = []
        for top in range(0, len(mask), STRIP):
            box = slice(top, top + STRIP), slice(None)
            colours, alpha = np.split(pixels[box], [self.colours], -1)
            for known in (colours[~self.hidden(mask, box)], alpha):
                ends += [known.min(), known.max()] if known.size else []
        return (float(np.min(ends)), float(np.max(ends))) if ends else (0.0, 0.0)

    def repainted(self, patches: list[Patch], opaque: bool = False) -> np.ndarray:
        """A copy of the stored pixels with the patches in; `opaque` makes them so."""
        out = self.pixels.copy()
        view = upright(out, self.orientation)
        for patch in patches:
            part = view[patch.box]
            for start in range(0, len(part), STRIP):
                rows = slice(start, start + STRIP)
                mask = patch.mask[rows]
                part[rows, :, : self.colours][mask] = self._from_rgb(patch.rgb[rows][mask])
                if opaque and self.alpha is not None:
                    part[rows, :, -1][mask] = self.scale
        return out

    def _from_rgb(self, rgb: np.ndarray) -> np.ndarray:
        """float32 [n, 3] from 0 to 1 → the mode's colours [n, C] in the pixels' own type."""
        values = rgb.clip(0, 1)
        if self.mode == "CMYK":
            black = 1 - values.max(-1, keepdims=True)
            values = np.concatenate([(1 - values - black) / np.maximum(1 - black, 1e-6), black], -1)
        elif self.colours == 1:
            values = (values @ LUMINANCE)[:, None]
        if self.pixels.dtype.kind == "f":
            return values
        return np.rint(values * self.scale).astype(self.pixels.dtype)

    def to_pil(self, pixels: np.ndarray) -> Image.Image:
        """Stored pixels as a Pillow image with the photo's profile, EXIF and resolution."""
        if pixels.dtype.kind == "f" and self.mode != "F":
            pixels = _to_bytes(pixels)
        if self.bytes_only:
            pixels = pixels.clip(0, 255).astype(np.uint8)  # nothing known is cut
        if self.mode == "CMYK":
            height, width = pixels.shape[:2]
            image = Image.frombytes("CMYK", (width, height), pixels.tobytes())
        else:
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.info.update(self.info)
        return image


class Patch(NamedTuple):
    """A repainted part of the upright photo."""

    box: tuple[slice, slice]
    mask: np.ndarray
    """bool [h, w], the pixels to replace."""
    rgb: np.ndarray
    """float32 [h, w, 3] from 0 to 1."""


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """A view of stored [H, W, ...] turned as EXIF says."""
    if orientation in (3, 4, 7):
        array = array[::-1]
    if orientation in (2, 3, 7):
        array = array[:, ::-1]
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation == 6:
        array = array[:, ::-1]
    return array[::-1] if orientation == 8 else array


def as_photo(image: Picture | Photo) -> Photo:
    """Take a Pillow image, an array [H, W] or [H, W, C], or a tensor [C, H, W].

    Args:
        image: arrays and tensors are bool, uint8, uint16 (grey only), or floating point from 0 to 1.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, Image.Image):
        return _from_pil(image)
    pixels = _as_array(image, "image")
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    if pixels.dtype not in (np.bool_, np.uint8, np.uint16, np.float32):
        raise InputError(f"image has type {pixels.dtype}: give uint8, or floating point from 0 to 1")
    mode = BY_CHANNELS[pixels.shape[2]]
    if pixels.dtype in (np.bool_, np.uint16):
        if mode != "L":
            raise InputError(f"image has type {pixels.dtype} and {pixels.shape[2]} channels: give uint8 for colour")
        mode = "1" if pixels.dtype == np.bool_ else "I;16"
    return Photo(pixels=pixels, mode=mode)


def _from_pil(image: Image.Image) -> Photo:
    orientation, exif = read_exif(image)
    kept = {"exif": exif, "icc_profile": image.info.get("icc_profile"), "dpi": _resolution(image)}
    if image.mode in ("P", "PA"):
        colours = "RGBA" if image.has_transparency_data else "RGB"
        warnings.warn(f"the photo has a palette, too small for more: it becomes {colours}", stacklevel=2)
        image = image.convert(colours)
    elif "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode in CONVERTED:
        image = image.convert(CONVERTED[image.mode])
    # Pillow stretches a PGM of more than 8 bits to 16, and calls that I
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    mode = "I;16" if deep else image.mode
    if mode not in PLAIN_MODES:
        raise InputError(f"the photo has the mode {mode}, which cannot be repainted: convert it to RGB")
    pixels = _pixels(image)
    if mode == "I;16":  # in whatever order of bytes; Pillow's own conversion cuts to 8 bits
        pixels = pixels.astype(np.uint16, copy=False)
    return Photo(
        pixels=pixels[..., None] if pixels.ndim == 2 else pixels,
        mode=mode,
        orientation=orientation,
        info={key: value for key, value in kept.items() if value},
    )


def _pixels(image: Image.Image) -> np.ndarray:
    """The picture as an array, strip by strip, for at once a large one would be held three times."""

    def strip(top: int) -> np.ndarray:
        return np.asarray(image.crop((0, top, image.width, min(top + STRIP, image.height))))

    pixels = np.empty((image.height, *strip(0).shape[1:]), strip(0).dtype)
    for top in range(0, image.height, STRIP):
        pixels[top : top + STRIP] = strip(top)
    return pixels


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, if a file can say them."""
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < math.inf and 0 < down < math.inf else None


@dataclass(frozen=True)
class Hole:
    """What is to be repainted."""

    mask: np.ndarray
    """bool [height, width], upright, True = to repaint."""
    understood: str
    """How the mask was read, for the user."""
    opaque: bool = False
    """It was the transparent part of the photo, which becomes opaque."""


def as_hole(mask: Picture | Hole | None, photo: Photo, *, invert: bool = False) -> Hole:
    """Read a mask for a photo: white (128 and more of 255, True, 0.5 and more) is to be repainted.

    Args:
        mask: a Pillow image of any mode, or an array or tensor [H, W], [H, W, C] or [C, H, W]; as large as
            the photo, either as it is stored or as a viewer shows it. None: what is transparent in the photo.
        photo: what it is for.
        invert: repaint what is not white; for masks only.

    Raises:
        InputError: another size, nothing to repaint, or what `examine` raises.
    """
    if isinstance(mask, Hole):
        return mask
    hole = read_hole(mask, photo, invert=invert)
    examine(photo, hole)
    return hole


def examine(photo: Photo, hole: Hole) -> None:
    """Look once over a whole photo but what is hidden: what its numbers mean must not depend on that.

    Raises:
        InputError: floating-point numbers that are not within 0 to 1.
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
    """`as_hole` without a look at the photo's pixels, where the hole is yet to grow."""
    if mask is None:
        if invert:
            raise InputError("there is no mask to invert")
        return _hole_from_alpha(photo)
    if isinstance(mask, Image.Image):
        understood, white = _read_mask_image(ImageOps.exif_transpose(mask))
    else:
        understood, white = _read_mask_array(_as_array(mask, "mask_image"))
    height, width = photo.size
    if white.shape != (height, width):
        if white.shape != photo.pixels.shape[:2]:
            raise InputError(
                f"the mask is {white.shape[1]}x{white.shape[0]}, the photo {width}x{height}; they must be of one size"
            )
        white, understood = upright(white, photo.orientation), f"{understood}, turned as the photo"
    if invert:
        white, understood = ~white, f"{understood}, inverted"
    if not white.any():
        raise InputError(f"nothing to repaint: the mask is empty ({understood})")
    return Hole(white, understood)


def _hole_from_alpha(photo: Photo) -> Hole:
    if photo.alpha is None:
        raise InputError("there is no mask, and the photo has no alpha channel whose transparent part could be it")
    mask = photo.alpha < photo.scale * OPAQUE / 255
    if not mask.any():
        raise InputError("nothing to repaint: there is no mask, and nothing of the photo is transparent")
    return Hole(mask, "transparent = repaint", opaque=True)


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
    understood = "white = repaint" if opaque.all() else "white and opaque = repaint"
    return understood, (np.asarray(image.convert("RGB").convert("L")) >= OPAQUE) & opaque


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


def _as_array(values: Any, name: str) -> np.ndarray:
    """Array or tensor → [H, W, C], without a copy where none is needed."""
    if isinstance(values, np.ndarray):
        array = values
    elif hasattr(values, "detach"):
        tensor = values.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        if array.ndim > 2:
            array = np.moveaxis(array, -3, -1)
    else:
        raise InputError(f"{name} is {type(values).__name__}: give a Pillow image, a numpy array or a torch tensor")
    shape = list(values.shape)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in BY_CHANNELS and array.shape[0] == 1:
        array = array[0]  # an array [1, H, W]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in BY_CHANNELS or not array.size:
        raise InputError(f"{name} has shape {shape}: give [H, W], [H, W, C] or, as a tensor, [C, H, W]")
    return array


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Widen a mask by so many pixels on every side."""
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


def viewable(image: Image.Image) -> Image.Image:
    """Any picture as a viewer shows it: upright, RGB, on white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which Pillow would cut rather than scale
        image = reduce_depth(image)
    return image.convert("RGB")


def reduce_depth(image: Image.Image) -> Image.Image:
    """A picture of 16 bits, or of numbers from 0 to 1, with 8 bits."""
    values = np.asarray(image)
    return Image.fromarray(_to_bytes(values) if image.mode == "F" else (values >> 8).clip(0, 255).astype(np.uint8))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Floating-point numbers from 0 to 1 → uint8; what is hidden may be anything, even NaN."""
    return np.rint(np.nan_to_num(values).clip(0, 1) * 255).astype(np.uint8)
