"""Picture files in and out: one clear line for whatever cannot be read, and never a half-written file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from nuwa_lip.errors import InputError

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 1}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
MODES = {  # what a format holds as it is
    "PNG": ("1", "L", "LA", "RGB", "RGBA", "I;16", "I"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I"),
    "JPEG": ("L", "RGB", "CMYK"),
}
READABLE = tuple(FORMATS) + (".gif", ".bmp", ".avif", ".jp2", ".ppm", ".pgm", ".tga")


def read_image(path: Path) -> Image.Image:
    """Read a picture file; of an animated one the first frame.

    Raises:
        InputError: it is missing, unreadable, not a picture, damaged, or would fill the memory.
    """
    try:
        # up to twice Pillow's limit is a large photo; beyond, Pillow refuses
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                deep = image.mode in ("RGB", "RGBA", "LA") and any(
                    ";16" in str(tile[3]) for tile in image.tile
                )
                image.load()
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a picture") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture of a known format") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise InputError(
            f"{path} has more than {limit:.0f} megapixels, which could be an attack: {error}"
        ) from error
    except Exception as error:  # decoders of damaged files raise anything
        raise InputError(f"{path} is damaged: {error or type(error).__name__}") from error
    if frames > 1:
        warnings.warn(f"{path} has {frames} frames; only the first is used", stacklevel=2)
    if deep:
        warnings.warn(f"{path} has 16-bit colours; they are read with 8 bits", stacklevel=2)
    return image


def check_output(path: Path, overwrite: bool) -> None:
    """Find out before the work whether a picture can be written there.

    Raises:
        InputError: it cannot; nothing is left behind.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"cannot write {path}: the ending must be one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the result")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give --overwrite to replace it")
    part = _part(path)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    if path.suffix.lower() in (".jpg", ".jpeg"):
        warnings.warn(f"{path}: JPEG cannot keep known pixels exact; .png, .webp and .tif can", stacklevel=2)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a picture with its EXIF, profile and resolution (from `image.info`); lossless but for JPEG.

    It is written under another name in the same folder and then renamed.
    """
    name, options = FORMATS[path.suffix.lower()]
    kept = {key: image.info[key] for key in ("exif", "icc_profile", "dpi") if image.info.get(key)}
    if image.mode not in MODES[name]:
        image, kept = _convert(image, name, path), {key: v for key, v in kept.items() if key != "icc_profile"}
        image.info.pop("icc_profile", None)  # it was for the other mode
    part = _part(path)
    try:
        image.save(part, format=name, **options, **kept)
        os.replace(part, path)
    except ValueError as error:  # what the format cannot hold
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _convert(image: Image.Image, name: str, path: Path) -> Image.Image:
    """Bring a picture to a mode that the format holds, with a warning where something is lost."""
    if image.mode in ("I;16", "I"):
        warnings.warn(f"{path}: {name} holds 8 bits only; .png and .tif keep 16", stacklevel=3)
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "CMYK":
        warnings.warn(f"{path}: {name} cannot hold CMYK and becomes RGB; .tif keeps it", stacklevel=3)
    if image.mode in ("LA", "RGBA") and name == "JPEG":
        warnings.warn(f"{path}: JPEG has no transparency; .png, .webp and .tif keep it", stacklevel=3)
    grey = image.mode in ("1", "L", "LA") and "L" in MODES[name]
    alpha = image.mode in ("LA", "RGBA") and "RGBA" in MODES[name]
    return image.convert("L" if grey else "RGBA" if alpha else "RGB")


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
