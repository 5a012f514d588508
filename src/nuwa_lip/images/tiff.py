"""TIFF files of every mode that a photo may have, 16-bit colours too, compressed and with EXIF in its own tags.

Pillow's own writer either compresses or writes EXIF, knows no 16-bit colours, and reports no full disk.
"""

import zlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import TiffImagePlugin, TiffTags

from nuwa_lip.images.metadata import IPTC_TAG, XMP_TAG

PHOTOMETRIC = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "I": 1, "F": 1, "RGB": 2, "RGBA": 2, "CMYK": 5}
SAMPLE_FORMATS = {"u": 1, "b": 1, "i": 2, "f": 3}
STRIP = 2**18  # bytes of pixels that are compressed together
ICC_TAG, RESOLUTION, UNIT = 34675, (282, 283), 296


def write_tiff(pixels: np.ndarray, mode: str, path: Path | BytesIO, kept: dict[str, Any]) -> None:
    """Write a picture as a TIFF, its strips deflated.

    Args:
        pixels: [H, W] or [H, W, C] bool, uint8, uint16, int32 or float32.
        mode: Pillow's; that of 16-bit colours is the one of 8 bits.
        path: a file that exists is replaced; or where to write it in memory.
        kept: what `metadata.fitting` keeps; exif is the tags that describe the photo.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = 1 if pixels.dtype == np.bool_ else 8 * pixels.dtype.itemsize
    rows = max(1, STRIP * 8 // (width * channels * bits))
    strips = [zlib.compress(_raw(pixels[top : top + rows]), 6) for top in range(0, height, rows)]
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag in (exif := kept.get("exif", {})):
        tags[tag] = exif.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else exif[tag]
    for tag, value, kind in (
        (XMP_TAG, kept.get("xmp"), TiffTags.BYTE),
        (IPTC_TAG, kept.get("iptc"), TiffTags.UNDEFINED),
        (ICC_TAG, kept.get("icc_profile"), TiffTags.UNDEFINED),
    ):
        if value:
            tags.tagtype[tag] = kind
            tags[tag] = value
    if across_down := kept.get("dpi", kept.get("aspect")):
        tags[UNIT] = 2 if "dpi" in kept else 1
        for tag, value in zip(RESOLUTION, across_down, strict=True):
            tags[tag] = value
    tags[256], tags[257], tags[258], tags[259] = width, height, (bits,) * channels, 8
    tags[262], tags[277], tags[278], tags[284] = PHOTOMETRIC[mode], channels, rows, 1
    if mode in ("LA", "RGBA"):
        tags[338] = 2  # alpha that the colours are not multiplied with
    if pixels.dtype.kind in "if":
        tags[339] = (SAMPLE_FORMATS[pixels.dtype.kind],) * channels
    sizes = [len(strip) for strip in strips]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    for tag, numbers in ((279, sizes), (273, starts.tolist())):
        tags.tagtype[tag] = TiffTags.LONG
        tags[tag] = tuple(numbers)  # the places are counted from the end of the tags
    with open(path, "wb") if isinstance(path, Path) else nullcontext(path) as file:
        tags.save(file)
        for strip in strips:
            file.write(strip)


def _raw(pixels: np.ndarray) -> bytes:
    """Return rows as bytes, the lower ones of a number first."""
    if pixels.dtype == np.bool_:
        return np.packbits(pixels.reshape(len(pixels), -1), axis=1).tobytes()
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
