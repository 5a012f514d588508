"""Random pictures of every mode, with metadata."""

from typing import Any

import numpy as np
from PIL import ExifTags, Image

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16B", "I", "F")
H, W = 6, 9


def picture(mode: str, orientation: int = 1) -> Image.Image:
    """A random picture, 9 x 6 as it is stored."""
    rng = np.random.default_rng(len(mode))
    numbers: dict[str, Any] = {
        "1": rng.random((H, W)) > 0.5,
        "I;16": rng.integers(0, 2**16, (H, W), dtype=np.uint16),
        "I": rng.integers(-(2**31), 2**31 - 1, (H, W), dtype=np.int32),
        "F": rng.random((H, W), dtype=np.float32),
    }
    rgba = Image.fromarray(rng.integers(0, 256, (H, W, 4), dtype=np.uint8))
    if mode in numbers:
        image = Image.fromarray(numbers[mode])
    elif mode in ("P", "PA"):
        image = rgba.convert("RGB").quantize(16).convert(mode)
    elif mode in ("I;16B", "RGBX"):
        image = Image.frombytes(mode, (W, H), rng.bytes(H * W * (4 if mode == "RGBX" else 2)))
    else:
        image = rgba.convert(mode)
    assert image.mode == mode
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "ACME"
    image.info |= {"exif": exif.tobytes(), "icc_profile": b"a profile", "dpi": (300, 300)}
    return image
