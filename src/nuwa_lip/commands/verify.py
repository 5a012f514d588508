"""`nuwa-lip verify`: what of a photo was changed, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.images.compare import differences, region
from nuwa_lip.images.files import read_image, read_photo
from nuwa_lip.images.hole import read_hole


def verify(
    result: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    original: Path,
    mask: Path | None = None,
    invert: bool = False,
) -> None:
    """Compare a result with its original, pixel by pixel, and say what is not the same.

    With a mask (or an original with a transparent region) nothing outside of it may differ; else the exit code is 1.

    Example: nuwa-lip verify result.png --original photo.jpg --mask mask.png

    Args:
        result: The repainted photo.
        original: The photo that it was made from.
        mask: What was to be repainted, as it was given to inpaint.
        invert: Black in the mask was to be repainted.
    """
    before, after = read_photo(original), read_photo(result)
    changed = differences(before, after)
    height, width = changed.shape
    found = f"{changed.sum()} of {changed.size} pixels differ"
    box = region(changed)
    print(f"{width}x{height} {before.mode}: {found}" + (f", all within {box}" if box else ""))
    transparent = before.alpha is not None and bool((before.alpha < before.scale / 2).any())
    if mask is None and not transparent:
        return
    hole = read_hole(None if mask is None else read_image(mask), before, invert=invert).mask
    outside = changed & ~hole
    print(f"outside the hole: {outside.sum()} of {(~hole).sum()} pixels changed")
    if outside.any():
        raise ChangedOutsideError(f"{result} differs from {original} outside the hole, at {region(outside)}")


class ChangedOutsideError(Exception):
    """Known pixels are not what they were."""
