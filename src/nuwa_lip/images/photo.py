"""Photos: kept as they are stored, seen upright, repainted without touching a known pixel.

A `Photo` keeps the pixels in their own mode and precision. Everything else sees it upright, as a viewer shows it:
`upright` gives views of the stored arrays, so that writing the hole into the view writes it into the stored picture.
Only the hole's pixels are ever converted to the photo's mode.

Legend: H W stored height and width, h w those of a window, C channels of the mode.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.exif import TURNED, read_exif, without_orientation
from nuwa_lip.images.metadata import read_metadata
from nuwa_lip.images.pictures import BY_CHANNELS, DEEP, as_array, load, to_bytes

if TYPE_CHECKING:
    from nuwa_lip.images.pictures import Picture

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
CONVERTED = {"RGBa": "RGBA", "La": "LA", "RGBX": "RGB"}
SCALES = {"b": 1.0, "u1": 255.0, "u2": 65535.0, "i4": 65535.0, "f": 1.0}
STRIP = 256  # rows that are worked on at a time where a whole photo would fill the memory


@dataclass(kw_only=True)
class Photo:
    """Holds a photo as it is stored: its pixels, their mode, how to turn them, and what goes along with them."""

    pixels: np.ndarray
    """[H, W, C] bool, uint8, uint16, int32 or float32 (0 to 1); shared with the caller, never written to."""
    mode: str
    """Pillow's mode of the result."""
    orientation: int = 1
    """EXIF's, 1 to 8."""
    info: dict[str, Any] = field(default_factory=dict)
    """What rides beside the pixels: exif, icc_profile, dpi and more (`images.metadata`)."""
    bytes_only: bool = False
    """The known numbers of a photo of mode I are bytes (`hole.examine` finds out): 255 is white, the result is grey."""

    @property
    def scale(self) -> float:
        """Return the value of white: 1, 255 or 65535."""
        if self.bytes_only:
            return 255.0
        kind = self.pixels.dtype.kind
        return SCALES[kind if kind in "bf" else f"{kind}{self.pixels.dtype.itemsize}"]

    @property
    def colours(self) -> int:
        """Return the number of channels without alpha."""
        return self.pixels.shape[2] - (self.mode in ("LA", "RGBA"))

    @property
    def alpha(self) -> np.ndarray | None:
        """Return a view of the alpha channel, upright [height, width]; None where there is none."""
        return upright(self.pixels[..., -1], self.orientation) if self.mode in ("LA", "RGBA") else None

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) as seen upright."""
        height, width = upright(self.pixels, self.orientation).shape[:2]
        return height, width

    def rgb(self, box: tuple[slice, slice], hidden: np.ndarray) -> np.ndarray:
        """Return the upright part `box` as float32 [h, w, 3] from 0 to 1, zero where `hidden` (bool [h, w])."""
        pixels = upright(self.pixels, self.orientation)[box][..., : self.colours]
        values = np.where(hidden[..., None], 0, pixels).astype(np.float32) / np.float32(self.scale)
        if self.mode == "CMYK":
            ink = 1 - values
            rgb = ink[..., :3] * ink[..., 3:]
        else:
            rgb = np.repeat(values, 3, -1) if self.colours == 1 else values
        return np.where(hidden[..., None], np.float32(0), rgb.clip(0, 1))

    def hidden(self, mask: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
        """Return what is unknown of the upright part `box`, bool [h, w]: the hole `mask`, and full transparency."""
        alpha = self.alpha
        return mask[box] if alpha is None else mask[box] | (alpha[box] == 0)

    def known_range(self, mask: np.ndarray) -> tuple[float, float]:
        """Find the least and the greatest of the known colours and of all alpha; NaN if one of them is.

        Alpha counts inside the hole `mask` (bool, upright) too, because repainting keeps it.
        """
        pixels = upright(self.pixels, self.orientation)
        ends = []
        for top in range(0, len(mask), STRIP):
            box = slice(top, top + STRIP), slice(None)
            colours, alpha = np.split(pixels[box], [self.colours], -1)
            for known in (colours[~self.hidden(mask, box)], alpha):
                ends += [known.min(), known.max()] if known.size else []
        return (float(np.min(ends)), float(np.max(ends))) if ends else (0.0, 0.0)

    def repainted(self, patches: list[Patch], opaque: bool = False) -> np.ndarray:
        """Copy the stored pixels and put the patches in; `opaque` sets their alpha to white."""
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
        """Convert float32 [n, 3] from 0 to 1 to the mode's colours [n, C] in the pixels' own type."""
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
        """Turn stored pixels into a Pillow image as it is stored, with what rides beside the photo's."""
        deep = pixels if pixels.dtype == np.uint16 and self.mode != "I;16" else None
        if deep is not None:
            pixels = (deep >> 8).astype(np.uint8)
        if pixels.dtype.kind == "f" and self.mode != "F":
            pixels = to_bytes(pixels)
        if self.bytes_only:
            pixels = pixels.clip(0, 255).astype(np.uint8)  # nothing known is cut
        if self.mode == "CMYK":
            height, width = pixels.shape[:2]
            image = Image.frombytes("CMYK", (width, height), pixels.tobytes())
        else:
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.info.update(self.info)
        if deep is not None:
            image.info[DEEP] = deep  # for `files.save_image`; Pillow knows no such mode
        return image

    def shown(self, pixels: np.ndarray) -> Image.Image:
        """Turn stored pixels into an upright Pillow image, whose EXIF no longer says to turn it."""
        if self.orientation == 1:
            return self.to_pil(pixels)
        info = dict(self.info)
        if "exif" in info and (block := without_orientation(info.pop("exif"))):
            info["exif"] = block
        for name in ("dpi", "aspect"):
            if name in info and self.orientation >= 5:
                info[name] = info[name][::-1]
        turned = np.ascontiguousarray(upright(pixels, self.orientation))
        return replace(self, orientation=1, info=info).to_pil(turned)


class Patch(NamedTuple):
    """Holds a repainted part of the upright photo."""

    box: tuple[slice, slice]
    mask: np.ndarray
    """bool [h, w], True = the pixels to replace."""
    rgb: np.ndarray
    """float32 [h, w, 3] from 0 to 1."""


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of stored [H, W, ...] turned as EXIF's orientation (1 to 8) says."""
    if orientation in (3, 4, 7):
        array = array[::-1]
    if orientation in (2, 3, 7):
        array = array[:, ::-1]
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation == 6:
        array = array[:, ::-1]
    return array[::-1] if orientation == 8 else array


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of upright [H, W, ...] as it is stored with an orientation (1 to 8)."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))  # the others undo themselves


def as_photo(image: Picture | Photo) -> Photo:
    """Read a Pillow image, an array [H, W] or [H, W, C], or a tensor [C, H, W]; a `Photo` stays as it is.

    Args:
        image: arrays and tensors hold bool, uint8, uint16 (grey only), or floating point from 0 to 1.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(image, Photo):
        return image
    if isinstance(image, Image.Image):
        return _from_pil(load(image, "the photo"))
    pixels = as_array(image, "image")
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
    kept = {"exif": exif, **read_metadata(image)}
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
    if TURNED in image.info:
        orientation = image.info[TURNED]
        pixels = stored(pixels, orientation)
    return Photo(
        pixels=pixels[..., None] if pixels.ndim == 2 else pixels,
        mode=mode,
        orientation=orientation,
        info={key: value for key, value in kept.items() if value},
    )


def _pixels(image: Image.Image) -> np.ndarray:
    """Copy the picture into an array strip by strip: all at once, a large one would be held three times."""

    def strip(top: int) -> np.ndarray:
        return np.asarray(image.crop((0, top, image.width, min(top + STRIP, image.height))))

    pixels = np.empty((image.height, *strip(0).shape[1:]), strip(0).dtype)
    for top in range(0, image.height, STRIP):
        pixels[top : top + STRIP] = strip(top)
    return pixels
