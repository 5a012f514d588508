"""Picture files in (`images.reading`) and out: checked before the work, and never half-written."""

import io
import math
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from nuwa_lip.disk import check_writable, written_whole
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images import png
from nuwa_lip.images.exif import describing_tags
from nuwa_lip.images.metadata import NAMES, XMP_ROOM, fitting, jpeg_options, png_options, state_aspect
from nuwa_lip.images.photo import Photo, upright
from nuwa_lip.images.pictures import DEEP, reduce_depth
from nuwa_lip.images.reading import STANDARD
from nuwa_lip.images.reading import read_image as read_image
from nuwa_lip.images.reading import read_photo as read_photo
from nuwa_lip.images.reading import readable_endings as readable_endings
from nuwa_lip.images.tiff import write_tiff

JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 95, "subsampling": 0})
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 1}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".jpg": JPEG,
    ".jpeg": JPEG,
}
MODES = {  # what a format holds as it is
    "PNG": ("1", "L", "LA", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "JPEG": ("L", "RGB", "CMYK"),
}
DEEP_MODES = {"PNG": ("LA", "RGB", "RGBA"), "TIFF": ("RGB", "RGBA", "CMYK")}  # with 16 bits
LARGE = 2**20  # pixels from which the time to write them matters more than a few per cent of the file
LARGEST = {"WEBP": 16383, "JPEG": 65500}  # pixels on a side
EXIF_HEADER = b"Exif\0\0"
GREY = ("1", "L", "LA", "I;16", "I", "F")


def check_output(
    path: Path, overwrite: bool, *, exact: bool = True, force: bool = False, new_folder: bool = False
) -> None:
    """Find out before the work whether a picture can be written there.

    Args:
        path: where the picture will be written; its ending gives the format. `-` is standard output.
        overwrite: the file may exist.
        exact: warn if the format would change known pixels.
        force: a file without write permission may be replaced too.
        new_folder: the folder will be made.

    Raises:
        InputError: it cannot; nothing is left behind.
    """
    if path == STANDARD:
        return
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"cannot write {path}: the ending must be one of {', '.join(FORMATS)}")
    check_writable(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give --overwrite to replace it")
    if path.exists() and not force and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise InputError(f"{path} is write-protected; give --force to replace it all the same")
    if not path.parent.exists() and not new_folder:
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_file() and not path.is_symlink() and (names := path.stat().st_nlink) > 1:
        warnings.warn(f"{path} has {names} names (hard links); the others keep the old picture", stacklevel=2)
    if exact and _format(path) == "JPEG":
        warnings.warn(f"{path}: JPEG cannot keep known pixels exact; .png, .webp and .tif can", stacklevel=2)


def check_fits(path: Path, size: tuple[int, int]) -> None:
    """Find out before the work whether a format can hold a picture of (height, width).

    Raises:
        InputError: it cannot.
    """
    name = _format(path)
    if name in LARGEST and max(size) > LARGEST[name]:
        raise InputError(f"cannot write {path}: {name} holds {LARGEST[name]} pixels a side; .png and .tif more")


def check_kept(photo: Photo, path: Path) -> None:
    """Say before the work, in warnings, what of a photo the file will not keep."""
    _prepared(photo.shown(photo.pixels[:1, :1]), path)


def xmp_room(path: Path) -> float:
    """Return how many bytes of XMP a file holds."""
    return XMP_ROOM if _format(path) == "JPEG" else math.inf


def save_image(
    image: Image.Image, path: Path, *, replace: bool = True, finish: Callable[[Path], None] | None = None
) -> None:
    """Write a picture with what rides beside its pixels (in `image.info`); every format but JPEG is lossless.

    A warning says what the format cannot hold. The file is written whole or not at all; one that is replaced keeps its
    mode bits.

    Args:
        image: the picture; 16-bit colours stand in its `info`, as `Photo.to_pil` puts them there.
        path: the file; its ending gives the format. `-` writes a PNG to standard output.
        replace: False refuses a file that has appeared there since it was checked.
        finish: is given the whole file before it gets its name, such as to sign it.

    Raises:
        InputError: the format cannot hold the picture, or the file exists.
        OSError: the file cannot be written, as on a full disk.
    """
    if path == STANDARD:
        sys.stdout.buffer.write(as_png(image))
        sys.stdout.buffer.flush()
        return
    image, deep, kept = _prepared(image, path)
    try:
        with written_whole(path, replace=replace) as part:
            _write(image, deep, _format(path), kept, part)
            if finish is not None:
                finish(part)
            if path.is_file() and not path.is_symlink():
                os.chmod(part, stat.S_IMODE(path.stat().st_mode))
    except InputError:
        raise
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise InputError(f"cannot write {path}: {error}") from error  # the format cannot hold the picture


def as_png(image: Image.Image) -> bytes:
    """Give the PNG file of a picture, as `save_image` would write it."""
    with tempfile.TemporaryDirectory() as folder:
        image, deep, kept = _prepared(image, STANDARD)
        part = Path(folder, "x.png")
        _write(image, deep, "PNG", kept, part)
        return part.read_bytes()


def keep_private(path: Path, original: Path) -> None:
    """Let nobody read a file who may not read the original."""
    if path.is_file() and original.is_file():
        path.chmod(stat.S_IMODE(path.stat().st_mode) & (original.stat().st_mode | 0o600))


def _format(path: Path) -> str:
    """Return Pillow's name of the format that a file's ending stands for."""
    return "PNG" if path == STANDARD else FORMATS[path.suffix.lower()][0]


def _prepared(image: Image.Image, path: Path) -> tuple[Image.Image, np.ndarray | None, dict[str, Any]]:
    """Bring a picture, its 16-bit colours and what rides beside them to what the format holds; warn of what is lost."""
    name, info = _format(path), {str(key): value for key, value in image.info.items()}
    deep = info.pop(DEEP, None)
    grey = image.mode in GREY
    if deep is not None and image.mode == "LA" and name == "TIFF":  # which few programs read
        image, deep = image.convert("RGBA"), deep[..., [0, 0, 0, 1]]
    if deep is not None and image.mode not in DEEP_MODES.get(name, ()):
        better = ".tif keeps" if image.mode == "CMYK" else ".png and .tif keep"
        warnings.warn(f"{path}: {name} holds 8 bits only; {better} finer shades", stacklevel=3)
        deep = None
    if image.mode not in MODES[name]:
        ink = image.mode == "CMYK"
        image = _convert(image, name, path)
        if ink:
            info.pop("icc_profile", None)
    if (image.mode in GREY) != grey and info.pop("icc_profile", None):
        warnings.warn(
            f"{path}: {name} cannot hold grey as the photo has it, and its profile was left out", stacklevel=3
        )
    kept = fitting(info, name, path)
    if _failure(image, name, kept) is not None:
        for key in list(kept):
            if (error := _failure(image, name, {key: kept[key]})) is not None:
                del kept[key]
                warnings.warn(f"{path}: {NAMES[key]} does not fit and was left out ({first_line(error)})", stacklevel=3)
    return image, deep, kept


def _failure(image: Image.Image, name: str, kept: dict[str, Any]) -> Exception | None:
    """Try on one pixel whether what rides beside the pixels can be written."""
    if not kept:
        return None
    try:
        _write(Image.new(image.mode, (1, 1)), None, name, kept, io.BytesIO())
    except Exception as error:  # values of a wrong type raise many kinds
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise  # the machine's, which would stop the picture itself too
        return error
    return None


def _write(
    image: Image.Image, deep: np.ndarray | None, name: str, kept: dict[str, Any], part: Path | io.BytesIO
) -> None:
    """Write a picture that the format holds."""
    options = next(options for other, options in FORMATS.values() if other == name)
    profile = {"icc_profile": kept.get("icc_profile")}  # Pillow must not take it from the picture
    if name == "PNG":
        more, chunks = png_options(kept)
        large = image.mode in png.MODES and image.width * image.height >= LARGE
        if isinstance(part, Path) and (deep is not None or chunks or large):
            pixels = image if deep is None else deep
            png.write_png(pixels, part, **({"chunks": chunks} if chunks else {}), **(options | profile | more))
        else:
            image.save(part, format=name, **(options | profile | more))
    elif name == "TIFF":
        orientation, tags = _tiff_tags(kept.get("exif"))
        pixels = upright(np.asarray(image) if deep is None else deep, orientation)
        kept = kept | {"exif": tags}
        for key in ("dpi", "aspect") if orientation >= 5 else ():
            if key in kept:
                kept[key] = kept[key][::-1]
        write_tiff(pixels, image.mode, part, kept)
    elif name == "JPEG":
        if "exif" in kept:
            # the other formats do without
            kept = kept | {"exif": EXIF_HEADER + kept["exif"].removeprefix(EXIF_HEADER)}
        image.save(part, format=name, **(options | profile | jpeg_options(kept)))
        if "aspect" in kept and isinstance(part, Path):
            state_aspect(part, kept["aspect"])
    else:
        more = {key: kept[key] for key in ("exif", "xmp") if key in kept}
        image.save(part, format=name, **(options | profile | more))


def _tiff_tags(block: bytes | None) -> tuple[int, Image.Exif]:
    """Turn an EXIF block into tags, and the orientation out of them: many readers show a TIFF as it is stored."""
    tags = Image.Exif()
    if block is None:
        return 1, tags
    tags.load(block)
    orientation = tags.get(ExifTags.Base.Orientation, 1)
    tags = describing_tags(tags)
    tags.pop(ExifTags.Base.Orientation, None)
    tags.tobytes()
    return orientation if orientation in range(1, 9) else 1, tags


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
