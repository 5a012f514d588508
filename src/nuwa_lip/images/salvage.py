"""Pictures that break off: what of them decodes, and how much that is; and pictures made to decode for minutes."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from PIL import Image, ImageFile

END_OF_JPEG = b"\xff\xd9"
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # all others belong to a scan
MOST_SCANS = 100  # of a JPEG; encoders make about ten
LEAST = 0.5  # share of a picture that has to be there
PADDING = 2**16
LOCK = threading.Lock()


def salvage(content: bytes) -> tuple[Image.Image, float] | None:
    """Decode what there is of a picture that breaks off.

    Returns the picture, whose missing part is of one colour, and the share of its rows that are there, from `LEAST` to
    1; None if there is less, or nothing can be decoded.
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _salvage_webp(content)
    if content[:4] == b"\x89PNG" and b"IEND" in content[-12:]:
        return None  # it is whole, but its checksums say that it is not right
    noise = np.random.default_rng(0).integers(0, 255, PADDING, dtype=np.uint8).tobytes()  # without a marker's 255
    end = END_OF_JPEG if content[:2] == b"\xff\xd8" else b""
    first, other = _decoded(content + end, 128), _decoded(content + noise + end, 255)
    if first is None or other is None or first.size != other.size or first.mode != other.mode:
        return None
    if "progressive" in first.info:  # the first scan is of the whole, the others refine it
        return (first, 1.0) if count_scans(content) > 1 else None
    # what does not depend on how it goes on is there
    one, two = (np.asarray(image).reshape(image.height, -1) for image in (first, other))
    share = float((one == two).all(1).mean())
    return (first, share) if share >= LEAST else None


def _salvage_webp(content: bytes) -> tuple[Image.Image, float] | None:
    """A WebP says how long it should be."""
    missing = int.from_bytes(content[4:8], "little") + 8 - len(content)
    share = len(content) / (len(content) + missing)
    if missing <= 0 or share < LEAST:
        return None
    image = _decoded(content + bytes(missing), 0)
    return None if image is None else (image, share)


def _decoded(content: bytes, fill: int) -> Image.Image | None:
    """Decode as far as it goes; what is missing is `fill`, black with a palette."""
    with set_in_pillow(ImageFile, "LOAD_TRUNCATED_IMAGES", True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content))
            bands = len(image.getbands())
            if image.mode == "P":
                fill &= 127  # black, in most palettes
            image.im = Image.core.fill(image.mode, image.size, fill if bands == 1 else (fill,) * bands)
        except Exception:  # decoders of damaged files raise anything
            return None
        try:
            image.load()
        except Exception:
            if image.format != "TIFF":
                return None
            image.tile = []  # its library has put the rows before the damage in place
        return image


@contextmanager
def set_in_pillow(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Set what Pillow has for the whole process, for a moment, and for one thread at a time.

    Args:
        module: of Pillow.
        name: of its variable.
        value: for the moment.
    """
    with LOCK:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            yield
        finally:
            setattr(module, name, before)


def count_scans(content: bytes) -> int:
    """Count the scans of a JPEG file up to its end marker; each goes over all pixels, even if it holds nothing."""
    at, scans = 2, 0
    while (found := NEXT_MARKER.search(content, at)) is not None:
        at = found.end()
        marker = content[at - 1]
        if marker == END_OF_JPEG[1]:
            break
        scans += marker == 0xDA
        if marker != 0x01:
            at += int.from_bytes(content[at : at + 2], "big")  # what a segment holds may look like markers
    return scans
