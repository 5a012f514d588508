"""What a folder holds, to compare before with after."""

from pathlib import Path

import numpy as np
from PIL import Image


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its path within."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make_photos(count: int) -> None:
    """Make photos/ with pictures of random pixels, and mask.png for all of them, in the folder that is current."""
    Path("photos").mkdir()
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{seed:03}.png")
    mask = Image.new("L", (60, 40))
    mask.paste(255, (20, 15, 40, 25))
    mask.save("mask.png")
