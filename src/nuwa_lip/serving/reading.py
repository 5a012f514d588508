"""Pictures of a request: bytes → photo and hole, checked against the limits before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from nuwa_lip.errors import InputError
from nuwa_lip.serving.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from nuwa_lip.images.photo import Photo

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM")
"""What is decoded for strangers: no drawings that another program would carry out."""


class TooLarge(InputError):
    """A picture is larger than this server takes."""


def from_base64(text: str, what: str) -> bytes:
    """Decode base64, with or without the head of a data URL.

    Raises:
        InputError: it is not base64.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{what} is not base64 ({error})") from error


def open_picture(content: bytes, what: str, limits: Limits) -> Image.Image:
    """Decode a picture.

    Args:
        content: the file.
        what: its name in messages, such as "image".
        limits: of these the pixels count.

    Raises:
        TooLarge: it has too many pixels.
        InputError: it is no picture, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.init()  # the formats by name, before one of them is met
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > limits.megapixels * 1e6:
                found = image.width * image.height / 1e6
                raise TooLarge(f"{what} has {found:.1f} megapixels; this server takes {limits.megapixels}")
            image.load()
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{what} is not a picture of a known format: give PNG, JPEG, WebP or TIFF") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{what} has too many pixels") from error
    except Exception as error:  # decoders of damaged files raise anything
        raise InputError(f"{what} is damaged: {error or type(error).__name__}") from error
    return image


def as_png(image: Image.Image) -> bytes:
    """Encode a result, with what goes along with its pixels."""
    stream = io.BytesIO()
    kept = {key: image.info[key] for key in ("exif", "icc_profile", "dpi") if image.info.get(key)}
    image = image.convert("RGB") if image.mode in ("CMYK", "F") else image
    image.save(stream, format="PNG", compress_level=1, **kept)
    return stream.getvalue()


def changed_outside(before: Photo, after: Photo, hole: np.ndarray) -> int:
    """Count the pixels outside a hole in which two photos differ.

    Args:
        before: a photo.
        after: another of its size and mode.
        hole: bool [H, W], upright.
    """
    from nuwa_lip.images.photo import upright

    differs = (upright(before.pixels, before.orientation) != upright(after.pixels, after.orientation)).any(-1)
    return int((differs & ~hole).sum())
