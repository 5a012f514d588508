"""Picture files in: one clear line for whatever cannot be read, and what decodes of a file that breaks off."""

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from nuwa_lip.disk import regular
from nuwa_lip.errors import InputError
from nuwa_lip.images.deep import cut_depth, has_deep_colours, read_deep
from nuwa_lip.images.exif import TURNED, decode
from nuwa_lip.images.metadata import read_chunks
from nuwa_lip.images.photo import Photo, as_photo, stored
from nuwa_lip.images.salvage import MOST_SCANS, count_scans, salvage, set_in_pillow

PROGRAMS = ("EPS", "WMF")  # drawings that Pillow would have another program carry out
STUBS = ("BUFR", "GRIB", "HDF5", "MPEG")  # what Pillow knows by name only
STANDARD = Path("-")  # standard input or output
LONGEST_TEXT = 2**26  # bytes of a profile or text in a PNG; Pillow refuses the whole picture beyond 2**20


@dataclass(frozen=True)
class Content:
    """Holds a picture file that is in memory already."""

    name: str
    """What messages call it."""
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


def readable_endings() -> set[str]:
    """Return the endings of file names, in small letters, that Pillow knows a decoder for."""
    known = Image.registered_extensions()
    return {ending for ending, name in known.items() if name in Image.OPEN and name not in (*PROGRAMS, *STUBS)}


def read_image(path: Path | Content) -> Image.Image:
    """Read a picture file with Pillow; an animated one gives its first frame, 16-bit colours are read with 8 bits.

    Of a file that breaks off what decodes is used, if that is at least half of it. `-` is standard input.

    Raises:
        InputError: it is missing, unreadable, not a picture, damaged, or would fill the memory.
    """
    image, deep = _read(path)
    if deep is not None:
        warnings.warn(f"{path} has 16-bit colours; they are read with 8 bits", stacklevel=2)
    return image


def read_photo(path: Path | Content) -> Photo:
    """Read a photo as `read_image` does, 16-bit colours and transparency with all their bits.

    Raises:
        InputError: as `read_image`.
    """
    image, deep = _read(path)
    clear = image.info.get("transparency")
    if deep is None:
        photo = as_photo(image)
        if photo.mode == "I;16" and isinstance(clear, int):
            photo.mode, photo.pixels = "LA", _with_alpha(photo.pixels, clear)
        return photo
    image.info.pop("transparency", None)  # in 16 bits
    photo = as_photo(image)
    if isinstance(clear, tuple) and deep.shape[2] == 3:
        photo.mode, deep = "RGBA", _with_alpha(deep, clear)
    elif deep.shape[2] == 2:
        photo.mode = "LA"
    photo.pixels = stored(deep, photo.orientation) if TURNED in image.info else deep
    return photo


def _with_alpha(pixels: np.ndarray, clear: int | tuple[int, ...]) -> np.ndarray:
    """Add an alpha channel to uint16 [H, W, C] where one colour stands for what is transparent."""
    alpha = np.where((pixels == np.array(clear)).all(-1), 0, 65535).astype(np.uint16)
    return np.concatenate([pixels, alpha[..., None]], -1)


def _read(path: Path | Content) -> tuple[Image.Image, np.ndarray | None]:
    """Read a picture, and its 16-bit colours [H, W, C] if it has any."""
    content = b""
    try:
        with _opened(path) as file:
            try:
                image, deep = _decode(path, file)
            except (InputError, Image.DecompressionBombError):
                raise
            except Exception:
                file.seek(0)
                content = file.read()
                raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a picture") from error
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise InputError(f"{path} has over {limit:.0f} megapixels: too large, or made to attack") from error
    except Exception as error:  # decoders of damaged files raise anything
        if isinstance(error, OSError) and error.strerror:  # a decoder's have none
            raise InputError(f"{path} cannot be read: {error.strerror.lower()}") from error
        if (part := salvage(content)) is not None:
            image, share = part
            rows = f"{round(share * image.height)} of its {image.height} rows"
            warnings.warn(
                f"{path} breaks off; {rows} can be read and are used, what is missing is grey or black", stacklevel=3
            )
            return image, None
        if isinstance(error, UnidentifiedImageError):
            raise InputError(f"{path} is not a picture of a known format: give PNG, JPEG, WebP or TIFF") from error
        raise InputError(f"{path} is damaged: {error or type(error).__name__}") from error
    return image, deep


def _decode(path: Path | Content, file: BinaryIO) -> tuple[Image.Image, np.ndarray | None]:
    """Decode an open file, whatever Pillow raises."""
    with set_in_pillow(PngImagePlugin, "MAX_TEXT_CHUNK", LONGEST_TEXT), warnings.catch_warnings():
        # up to twice Pillow's limit is a large photo; beyond, Pillow refuses
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # an open file, because Pillow maps some paths into memory, and turns those pictures wrongly
        with Image.open(file) as image:
            if image.format in PROGRAMS:
                raise UnidentifiedImageError
            if image.format in ("JPEG", "MPO"):
                _check_scans(path, file)
            # a phone's MPO has previews and depth maps behind the photo
            animated = getattr(image, "is_animated", False) and image.format != "MPO"
            deep = has_deep_colours(image)
            decode(image)
        pixels = read_deep(file, image) if deep else None
        if image.format == "PNG":
            image.info["chunks"] = list(read_chunks(file))
        bits = 16 if deep and pixels is None else cut_depth(file, image)
    if animated:
        warnings.warn(f"{path} has several frames; only the first is used", stacklevel=4)
    if bits is not None:
        warnings.warn(f"{path} has {bits}-bit colours; they are read with 8 bits", stacklevel=4)
    return image, pixels


@contextmanager
def _opened(path: Path | Content) -> Iterator[BinaryIO]:
    """Open a file, or standard input; nothing that never ends, such as a pipe or a device."""
    if isinstance(path, Content):
        yield io.BytesIO(path.data)
        return
    if path == STANDARD:
        yield io.BytesIO(sys.stdin.buffer.read())
        return
    with open(regular(path), "rb") as file:
        yield file


def _check_scans(path: Path | Content, file: BinaryIO) -> None:
    """Refuse a JPEG of so many scans over all its pixels that decoding takes minutes."""
    at = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(at)
    if content.count(b"\xff\xda") > MOST_SCANS and (scans := count_scans(content)) > MOST_SCANS:
        raise InputError(f"{path} has {scans} scans, and photos about ten: too slow to read, or made to attack")
