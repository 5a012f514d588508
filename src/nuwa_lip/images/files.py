"""Picture files in and out: one clear line for whatever cannot be read, and never a half-written file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from nuwa_lip.disk import check_writable, written_whole
from nuwa_lip.errors import InputError
from nuwa_lip.images import png
from nuwa_lip.images.exif import describing_tags
from nuwa_lip.images.pictures import reduce_depth

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 1}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
MODES = {  # what a format holds as it is
    "PNG": ("1", "L", "LA", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "JPEG": ("L", "RGB", "CMYK"),
}
LARGE = 2**20  # pixels from which the time to write them matters more than a few per cent of the file
LARGEST = {"WEBP": 16383, "JPEG": 65500}  # pixels on a side
EXIF_HEADER = b"Exif\0\0"
GREY = ("1", "L", "LA", "I;16", "I", "F")
READABLE = tuple(FORMATS) + (".gif", ".bmp", ".avif", ".jp2", ".ppm", ".pgm", ".tga")
PROGRAMS = ("EPS", "WMF")  # drawings that Pillow would have another program carry out


def read_image(path: Path) -> Image.Image:
    """Read a picture file; an animated one gives its first frame.

    Raises:
        InputError: it is missing, unreadable, not a picture, damaged, or would fill the memory.
    """
    try:
        # up to twice Pillow's limit is a large photo; beyond, Pillow refuses
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # an open file, because Pillow maps some paths into memory, and turns those pictures wrongly
            with open(path, "rb") as file, Image.open(file) as image:
                if image.format in PROGRAMS:
                    raise UnidentifiedImageError
                # a phone's MPO has previews and depth maps behind the photo
                animated = getattr(image, "is_animated", False) and image.format != "MPO"
                deep = image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in image.tile)
                image.load()
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a picture") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture of a known format: give PNG, JPEG, WebP or TIFF") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise InputError(f"{path} has over {limit:.0f} megapixels: too large, or made to attack") from error
    except Exception as error:  # decoders of damaged files raise anything
        if isinstance(error, OSError) and error.strerror:  # a decoder's have none
            raise InputError(f"{path} cannot be read: {error.strerror.lower()}") from error
        raise InputError(f"{path} is damaged: {error or type(error).__name__}") from error
    if animated:
        warnings.warn(f"{path} has several frames; only the first is used", stacklevel=2)
    if deep:
        warnings.warn(f"{path} has 16-bit colours; they are read with 8 bits", stacklevel=2)
    return image


def check_output(path: Path, overwrite: bool, *, exact: bool = True) -> None:
    """Find out before the work whether a picture can be written there.

    Args:
        path: where the picture will be written; its ending gives the format.
        overwrite: the file may exist.
        exact: warn if the format would change known pixels.

    Raises:
        InputError: it cannot; nothing is left behind.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"cannot write {path}: the ending must be one of {', '.join(FORMATS)}")
    check_writable(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give --overwrite to replace it")
    if not path.parent.exists():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if exact and path.suffix.lower() in (".jpg", ".jpeg"):
        warnings.warn(f"{path}: JPEG cannot keep known pixels exact; .png, .webp and .tif can", stacklevel=2)


def check_fits(path: Path, size: tuple[int, int]) -> None:
    """Find out before the work whether a format can hold a picture of (height, width).

    Raises:
        InputError: it cannot.
    """
    name = FORMATS[path.suffix.lower()][0]
    if name in LARGEST and max(size) > LARGEST[name]:
        raise InputError(f"cannot write {path}: {name} holds {LARGEST[name]} pixels a side; .png and .tif more")


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture with its EXIF, profile and resolution (from `image.info`); every format but JPEG is lossless.

    A warning says what the format cannot hold. The file is written whole or not at all.

    Raises:
        InputError: the format cannot hold the picture.
        OSError: the file cannot be written, as on a full disk.
    """
    name, options = FORMATS[path.suffix.lower()]
    kept = {key: image.info[key] for key in ("exif", "icc_profile", "dpi") if image.info.get(key)}
    if image.mode not in MODES[name]:
        converted = _convert(image, name, path)
        if image.mode == "CMYK" or (image.mode in GREY) != (converted.mode in GREY):
            for info in (kept, converted.info):
                info.pop("icc_profile", None)  # it was for other colours
        image = converted
    if name == "TIFF" and "exif" in kept:
        image, tags = _with_tiff_tags(image, kept.pop("exif"), path)
        kept |= tags
    if name == "JPEG" and "exif" in kept:
        kept["exif"] = EXIF_HEADER + kept["exif"].removeprefix(EXIF_HEADER)  # the other formats do without
    try:
        with written_whole(path) as part:
            if name == "PNG" and image.mode in png.MODES and image.width * image.height >= LARGE:
                png.write_png(image, part, **(options | kept))
            elif name == "TIFF":  # by way of memory, because its library does not report a full disk
                stream = io.BytesIO()
                image.save(stream, format=name, **(options | kept))
                part.write_bytes(stream.getbuffer())
            else:
                image.save(part, format=name, **(options | kept))
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise InputError(f"cannot write {path}: {error}") from error  # the format cannot hold the picture


def _with_tiff_tags(image: Image.Image, block: bytes, path: Path) -> tuple[Image.Image, dict[str, Any]]:
    """Turn the picture upright (many readers show a TIFF as it is stored), and give options that write EXIF as tags."""
    tags = Image.Exif()
    try:
        image = ImageOps.exif_transpose(image)
        tags.load(block)
        tags = describing_tags(tags)
        tags.pop(ExifTags.Base.Orientation, None)
        tags.tobytes()
    except Exception as error:  # values of a wrong type raise many kinds
        warnings.warn(f"{path}: the EXIF block does not fit and was left out ({error})", stacklevel=3)
        return image, {}
    # the library that compresses does not write such tags
    return image, {"exif": tags, "compression": "raw"} if len(tags) else {}


def _convert(image: Image.Image, name: str, path: Path) -> Image.Image:
    """Convert a picture to a mode that the format holds, with a warning where something is lost."""
    if image.mode == "I" and "I;16" in MODES[name]:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            warnings.warn(f"{path}: {name} holds 16 bits, what is beyond is cut; .tif keeps it", stacklevel=3)
        return Image.fromarray(values.clip(0, 65535).astype(np.uint16))
    if image.mode in ("I;16", "I", "F"):
        warnings.warn(f"{path}: {name} holds 8 bits only; .tif keeps finer shades", stacklevel=3)
        image = reduce_depth(image)
    if image.mode == "CMYK":
        warnings.warn(f"{path}: {name} cannot hold CMYK and becomes RGB; .tif keeps it", stacklevel=3)
    if image.mode in ("LA", "RGBA") and name == "JPEG":
        warnings.warn(f"{path}: JPEG has no transparency; .png, .webp and .tif keep it", stacklevel=3)
    grey = image.mode in ("1", "L", "LA") and "L" in MODES[name]
    alpha = image.mode in ("LA", "RGBA") and "RGBA" in MODES[name]
    return image.convert("L" if grey else "RGBA" if alpha else "RGB")
