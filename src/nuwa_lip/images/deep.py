"""16-bit colours, which Pillow reads with 8 bits: its decoder runs twice, for the upper and for the lower bytes."""

import sys
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile

MODES = {"RGB": ("RGB", "RGBX"), "RGBA": ("RGBA",), "CMYK": ("CMYK",)}
"""Pillow's mode → how the file's 16-bit colours may be laid out."""
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
HEAD = 2**16  # bytes of a file within which its colours are described
GREY = "LA;16B"  # grey with alpha in PNG, of which Pillow makes RGBA


def has_deep_colours(image: ImageFile.ImageFile) -> bool:
    """Whether an opened picture that is not yet decoded has 16-bit colours, or 16-bit grey with alpha."""
    return image.mode in ("RGB", "RGBA", "LA", "CMYK") and any(";16" in _layout(tile) for tile in image.tile)


def cut_depth(file: BinaryIO, image: Image.Image) -> int | None:
    """Bits of each colour of an AVIF or JPEG 2000 that has more than the 8 with which Pillow reads it; None: no more.

    Args:
        file: the open file, which is left where it is.
        image: what Pillow has made of it.
    """
    if image.format not in ("AVIF", "JPEG2000") or image.mode.startswith("I"):
        return None
    at = file.tell()
    file.seek(0)
    head = file.read(HEAD)
    file.seek(at)
    avif = image.format == "AVIF"
    box = head.partition(b"av1C" if avif else b"\xff\x51")[2]  # how the AVIF is coded; the JPEG 2000's sizes
    if len(box) < 39:
        return None
    bits = (12 if box[2] & 0x20 else 10 if box[2] & 0x40 else 8) if avif else (box[38] & 0x7F) + 1
    return bits if bits > 8 else None


def read_deep(file: BinaryIO, upper: Image.Image) -> np.ndarray | None:
    """Read 16-bit colours as uint16 [H, W, C]; None if the file has them in an order that is not known.

    Args:
        file: the open file; it is read from its start.
        upper: what Pillow has made of it, upright if that is what Pillow does.
    """
    file.seek(0)
    with Image.open(file) as image:
        layouts = {_layout(tile) for tile in image.tile}
        if len(layouts) != 1:
            return None
        layout = layouts.pop()
        kind, _, order = layout.partition(";16")
        if layout == GREY:
            other = "RGBA"  # four bytes as they are
        elif kind in MODES.get(image.mode, ()) and order in OTHER_ORDER:
            other = f"{kind};16{OTHER_ORDER[order]}"
        else:
            return None
        image.tile = [tile._replace(args=_replaced(tile.args, layout, other)) for tile in image.tile]
        image.load()
        lower = np.asarray(image)
    if layout == GREY:
        return lower[..., ::2].astype(np.uint16) << 8 | lower[..., 1::2]
    return np.asarray(upper).astype(np.uint16) << 8 | lower


def _layout(tile: Any) -> str:
    """Return how the decoder reads the pixels of a tile: its own name for a mode."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _replaced(args: Any, layout: str, other: str) -> Any:
    return (other, *args[1:]) if isinstance(args, tuple) else other
