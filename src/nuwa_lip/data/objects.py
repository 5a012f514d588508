"""Annotated objects as holes: their boxes and segments, and the phrase that describes what a hole hides.

Annotations come in pixels of the annotated photo. Once the photo is opened they are shares of it, 0 to 1: so
they stay right at whatever size it is decoded, and whatever is cut from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from nuwa_lip.disk import parse_json

OBJECT_KINDS = ("boxes", "segments")


class Outline(NamedTuple):
    """Where one object is. A tuple, for a dataset has millions."""

    box: tuple[float, ...]
    """Left, top, right, bottom."""
    polygons: tuple[tuple[float, ...], ...] = ()
    """Its parts, each x, y, x, y, ...; none if only the box is known."""
    phrase: str = ""
    """What it is, if the annotation says so."""

    def within(self, left: float, top: float, width: float, height: float) -> Outline:
        """The same outline in shares of a window, given in the outline's coordinates."""

        def moved(points: tuple[float, ...]) -> tuple[float, ...]:
            return tuple((v - top) / height if i % 2 else (v - left) / width for i, v in enumerate(points))

        return Outline(moved(self.box), tuple(map(moved, self.polygons)), self.phrase)


def read_coco_objects(file: Path) -> dict[str, tuple[Outline, ...]]:
    """The objects of `instances_*.json` by file name, in pixels; crowds, which are no one object, left out.

    Raises:
        KeyError, TypeError, ValueError: it is another kind of file.
    """
    content = parse_json(file.read_text(encoding="utf-8"))
    found: dict[int, list[Outline]] = {photo["id"]: [] for photo in content["images"]}
    for annotation in content["annotations"]:
        left, top, width, height = annotation["bbox"]
        if annotation.get("iscrowd"):
            continue
        parts = annotation["segmentation"]  # polygons, or run lengths, of which only the box is used
        polygons = tuple(map(tuple, parts)) if isinstance(parts, list) else ()
        found[annotation["image_id"]].append(Outline((left, top, left + width, top + height), polygons))
    return {photo["file_name"]: tuple(found[photo["id"]]) for photo in content["images"]}


def object_mask(
    objects: Sequence[Outline],
    kind: str,
    size: tuple[int, int],
    share: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray | None:
    """The mask of one object, bool [H, W]: any whose area is in the bucket, else the one nearest to it.

    Args:
        objects: in shares of the photo.
        kind: boxes or segments.
        size: H, W.
        share: the bucket, least and largest share of the photo.
        rng: chooses where several are as good.

    Returns:
        None if there is no object, or none that hides something and leaves something.
    """
    draw = _box_mask if kind == "boxes" else _segment_mask
    masks = [draw(outline, *size) for outline in objects]
    masks = [mask for mask in masks if 0 < np.count_nonzero(mask) < mask.size]
    if not masks:
        return None
    shares = np.array([np.count_nonzero(mask) / mask.size for mask in masks])
    miss = np.maximum(np.maximum(share[0] - shares, shares - share[1]), 0)
    return masks[int(rng.choice(np.flatnonzero(miss == miss.min())))]


def best_phrase(objects: Sequence[Outline], mask: np.ndarray) -> str | None:
    """The phrase of the object whose box fits the hole best (intersection over union); None without phrases.

    Args:
        objects: in shares of the photo.
        mask: bool [H, W], True = to repaint.
    """
    named = [outline for outline in objects if outline.phrase]
    if not named:
        return None
    sums = np.pad(mask.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))  # over all pixels above and left
    left, top, right, bottom = np.array([_pixels(outline, *mask.shape) for outline in named]).T
    shared = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    union = (right - left) * (bottom - top) + sums[-1, -1] - shared
    return named[int(np.argmax(shared / np.maximum(union, 1)))].phrase


def _pixels(outline: Outline, height: int, width: int) -> tuple[int, int, int, int]:
    """The box in whole pixels of a photo, cut off at its edges: left, top, right, bottom."""
    sides = (width, height, width, height)
    left, top, right, bottom = (min(max(round(v * side), 0), side) for v, side in zip(outline.box, sides, strict=True))
    return left, top, right, bottom


def _box_mask(outline: Outline, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    left, top, right, bottom = _pixels(outline, height, width)
    mask[top:bottom, left:right] = True
    return mask


def _segment_mask(outline: Outline, height: int, width: int) -> np.ndarray:
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    for polygon in outline.polygons:
        # Pillow's whole numbers are the middles of pixels, the annotation's their corners
        points = [(x * width - 0.5, y * height - 0.5) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
        if len(points) > 2:
            draw.polygon(points, fill=1)
    return np.asarray(picture, dtype=bool)
