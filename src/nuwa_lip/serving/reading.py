"""Pictures of a request: what a form or JSON holds → the file's bytes, refused before they are decoded if too large."""

import base64
import binascii
import io
import warnings

from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.serving.limits import Limits


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


def check_pixels(content: bytes, what: str, limits: Limits) -> None:
    """Read a picture's size from its head.

    Args:
        content: the file; what is no picture passes, for whoever decodes it says so better.
        what: its name in messages, such as "image".
        limits: of these the pixels count.

    Raises:
        TooLarge: it has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                found = image.width * image.height / 1e6
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{what} has too many pixels; this server takes {limits.megapixels} megapixels") from error
    except Exception:  # decoders of damaged files raise anything
        return
    if found > limits.megapixels:
        raise TooLarge(f"{what} has {found:.1f} megapixels; this server takes {limits.megapixels}")
