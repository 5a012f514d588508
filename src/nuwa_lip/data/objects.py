"""Annotated objects as holes: their boxes and segments, and the phrase that describes what a hole hides.

Annotations come in pixels of the annotated photo. Once the photo is opened they become shares of it, 0 to 1, which
stay right at any size that the photo is decoded or cut to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from nuwa_lip.disk import parse_json, read_text

OBJECT_KINDS = ("boxes", "segments")


class Outline(NamedTuple):
    """Where one object is: a tuple, because a dataset has millions of them."""

    box: tuple[float, ...]
    """Left, top, right, bottom, in pixels of the annotated photo or in shares of it."""
    polygons: tuple[tuple[float, ...], ...] = ()
    """The object's parts, each x, y, x, y, ...; empty if only the box is known."""
    phrase: str = ""
    """What the object is; empty if the annotation does not say."""

    def within(self, left: float, top: float, width: float, height: float) -> Outline:
        """Express the outline in shares of a window.

        Args:
            left: left edge of the window, in the outline's coordinates, as are the other three.
            top: top edge of the window.
            width: width of the window.
            height: height of the window.
        """

        def moved(points: tuple[float, ...]) -> tuple[float, ...]:
            return tuple((v - top) / height if i % 2 else (v - left) / width for i, v in enumerate(points))

        return Outline(moved(self.box), tuple(map(moved, self.polygons)), self.phrase)


def read_coco_objects(file: Path) -> dict[str, tuple[Outline, ...]]:
    """Read the objects of `instances_*.json` by file name, in pixels. Crowds are left out: they are not one object.

    Raises:
        KeyError, TypeError, ValueError: the file has another layout.
    """
    content = parse_json(read_text(file))
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
    """Draw the mask of one object: a random one whose area is within the range, else the one nearest to it.

    Args:
        objects: the photo's objects, in shares of it.
        kind: boxes or segments.
        size: height and width of the photo in pixels, H, W.
        share: least and largest share of the photo to cover.
        rng: chooses where several objects fit equally.

    Returns:
        bool [H, W], True = to repaint; None if no object's mask is neither empty nor full.
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
    """Give the phrase of the object whose box fits the hole best (intersection over union); None without phrases.

    Args:
        objects: the photo's objects, in shares of it.
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
    """Give the box in whole pixels of a photo, cut off at its edges: left, top, right, bottom."""
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
