"""Random masks: what is to be repainted in training, and by rules such as `rectangles-40-60` in benchmarks.

True = defective (to repaint), everywhere. A mask is a pure function of its recipe, its size and the random
generator. The share of the photo that it covers is drawn first and then met: shapes are added until they
cover enough, and the last one is cut short.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw

from nuwa_lip.data.objects import OBJECT_KINDS, Outline, object_mask
from nuwa_lip.errors import InputError

KINDS = ("rectangles", "block", "strokes", "border", "everything", "nothing")
RULE_KINDS = ("rectangles", "block", "strokes", "border", "centre", *OBJECT_KINDS)
TRIES = 4
NEVER = 255  # more points than any stroke has
Point = tuple[int, int]  # x, y


@dataclass(frozen=True, kw_only=True)
class MaskRecipe:
    """How often each kind of mask is drawn, and how much of the photo it covers."""

    rectangles: float = 1.0
    """Weight of unions of rectangles (weights need not sum to 1)."""
    block: float = 0.0
    """Weight of single rectangles, which hide a whole thing more often than several together do."""
    strokes: float = 0.0
    """Weight of brush strokes."""
    border: float = 0.0
    """Weight of frames for outpainting: the known part is an inner rectangle."""
    everything: float = 0.0
    """Weight of full masks."""
    nothing: float = 0.0
    """Weight of empty masks."""
    ratio: tuple[float, float] = (0.4, 0.6)
    """Least and largest share of the photo covered, drawn uniformly; not of full and empty masks."""

    def __post_init__(self) -> None:
        low, high = self.ratio
        if not 0 < low <= high <= 1:
            raise InputError(f"mask ratio {low}..{high} is not within 0..1; try 0.4 0.6")
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise InputError(f"mask weights {self.weights} must not be negative, and one of them must be positive")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights in the order of `KINDS`."""
        return tuple(float(getattr(self, kind)) for kind in KINDS)


def random_mask(height: int, width: int, recipe: MaskRecipe, rng: np.random.Generator) -> np.ndarray:
    """Draw one mask, bool [height, width], True = to repaint.

    Other masks than full and empty ones are never empty and meet the drawn ratio as nearly as whole lines or short
    pieces of stroke allow (within about 1 % from 64 pixels on). Where that leaves the recipe's range, which
    only tiny photos or a narrow range force, it is the best of a few tries.
    """
    weights = np.array(recipe.weights)
    kind = KINDS[rng.choice(len(KINDS), p=weights / weights.sum())]
    if kind in ("everything", "nothing"):
        return np.full((height, width), kind == "everything")
    low, high = recipe.ratio
    best, least_miss = np.ones((height, width), dtype=bool), 1 - high
    for _ in range(TRIES):
        area = max(round(float(rng.uniform(low, high)) * height * width), 1)
        if area < height * width:
            mask = DRAW[kind](height, width, area, rng)
            share = mask.mean()
            miss = max(low - share, share - high, 0)
            if miss == 0:
                return mask
            if miss < least_miss:
                best, least_miss = mask, miss
    return best


def random_masks(batch: int, height: int, width: int, recipe: MaskRecipe, rng: np.random.Generator) -> torch.Tensor:
    """Draw `batch` masks, bool [batch, 1, height, width]."""
    masks = [random_mask(height, width, recipe, rng) for _ in range(batch)]
    return torch.from_numpy(np.stack(masks)).unsqueeze(1)


def parse_rule(rule: str) -> tuple[str, float, float]:
    """`rectangles-40-60` → ("rectangles", 0.4, 0.6): kind, least and largest share of the photo.

    Raises:
        InputError: it is no such rule.
    """
    match = re.fullmatch(r"([a-z]+)-(\d{1,3})-(\d{1,3})", rule)
    kind, low, high = (match[1], int(match[2]) / 100, int(match[3]) / 100) if match else ("", 0.0, 0.0)
    kind = "centre" if kind == "center" else kind
    if kind not in RULE_KINDS or not 0 < low <= high <= 1:
        raise InputError(f"mask rule {rule!r} is not like rectangles-40-60; kinds: {', '.join(RULE_KINDS)}")
    return kind, low, high


def rule_mask(
    rule: str, height: int, width: int, rng: np.random.Generator, objects: Sequence[Outline] = ()
) -> np.ndarray | None:
    """Draw the mask bool [height, width] of a rule KIND-LOW-HIGH (per cent).

    Kinds: rectangles, block (a single one), strokes, border (a frame to paint outwards), centre (a box in the
    middle), and boxes or segments of one of the `objects` (in shares of the photo). None if it takes an object and
    there is none.
    """
    kind, low, high = parse_rule(rule)
    if kind in OBJECT_KINDS:
        return object_mask(objects, kind, (height, width), (low, high), rng)
    if kind != "centre":
        chances = {name: float(name == kind) for name in KINDS}
        return random_mask(height, width, MaskRecipe(ratio=(low, high), **chances), rng)
    side = float(np.sqrt(rng.uniform(low, high)))  # of the photo's sides
    h, w = (max(1, round(side * n)) for n in (height, width))
    mask = np.zeros((height, width), dtype=bool)
    top, left = (height - h) // 2, (width - w) // 2
    mask[top : top + h, left : left + w] = True
    return mask


def _known_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """A random uncovered pixel (y, x): every shape starts on one, so that each adds to the area."""
    known = np.flatnonzero(~mask)
    y, x = divmod(int(known[rng.integers(len(known))]), mask.shape[1])
    return y, x


def _rectangles(height: int, width: int, area: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    covered = 0
    while covered < 0.985 * area:  # not to the last pixel: that would take slivers
        y, x = _known_pixel(mask, rng)
        share = rng.uniform(0.05, 0.3) * height * width
        pixels = max(min(share, 1.5 * (area - covered)), 0.01 * height * width)
        stretch = np.exp(rng.uniform(-0.7, 0.7))  # aspect ratio between 1:4 and 4:1
        half_h = np.sqrt(pixels * height / width) * stretch / 2
        half_w = np.sqrt(pixels * width / height) / stretch / 2
        top, bottom = max(y - int(half_h), 0), min(y + int(np.ceil(half_h)), height)
        left, right = max(x - int(half_w), 0), min(x + int(np.ceil(half_w)), width)
        box = mask[top:bottom, left:right]
        along_x, from_end = rng.random(2) < 0.5
        _fill(box.T if along_x else box, area - covered, bool(from_end))
        covered = int(mask.sum())
    return mask


def _block(height: int, width: int, area: int, rng: np.random.Generator) -> np.ndarray:
    stretch = np.exp(rng.uniform(-0.7, 0.7))  # aspect ratio between 1:4 and 4:1, as seen in a square
    h = min(max(round(np.sqrt(area * height / width) * stretch), -(-area // width)), height)
    w = min(max(round(area / h), 1), width)
    top, left = (int(rng.integers(n + 1)) for n in (height - h, width - w))
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + h, left : left + w] = True
    return mask


def _fill(box: np.ndarray, wanted: int, from_end: bool) -> None:
    """Cover the lines of a view into the mask, all or as many as come nearest to `wanted` new pixels."""
    lines = box[::-1] if from_end else box
    gained = np.cumsum((~lines).sum(axis=1))
    if gained[-1] <= wanted:
        lines[:] = True
    else:
        lines[: int(np.argmin(np.abs(gained - wanted))) + 1] = True


def _strokes(height: int, width: int, area: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    while np.count_nonzero(mask) < area:
        thickest = max(np.sqrt(area) / 3, 1)  # a single dab must not overshoot a small area
        brush = max(1, round(min(rng.uniform(0.06, 0.16) * min(height, width), thickest)))
        points = _stroke(*_known_pixel(mask, rng), height, width, brush, rng)
        needed = _points_needed(points, brush, height, width)
        low, high = 1, len(points)  # how many points of the stroke to draw, found by bisection
        drawn = _drawn(mask, needed, points[:high], brush)
        while low < high and np.count_nonzero(drawn) > area:
            middle = (low + high) // 2
            shorter = _drawn(mask, needed, points[:middle], brush)
            if np.count_nonzero(shorter) < area:
                low = middle + 1
            else:
                high, drawn = middle, shorter
        mask = drawn
    return mask


def _stroke(y: int, x: int, height: int, width: int, brush: int, rng: np.random.Generator) -> list[Point]:
    """A wandering line of short pieces, which stays in the picture by bouncing off its edges."""
    n = int(rng.integers(12, 60))
    turns = rng.normal(0, 0.35, n)
    angles = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
    step = max(brush / 2, 1)
    ys = _bounce(y + step * np.cumsum(np.sin(angles)), height - 1)
    xs = _bounce(x + step * np.cumsum(np.cos(angles)), width - 1)
    return [(x, y), *zip(xs.round().astype(int).tolist(), ys.round().astype(int).tolist(), strict=True)]


def _bounce(position: np.ndarray, limit: int) -> np.ndarray:
    """Fold coordinates into [0, limit]."""
    if limit == 0:
        return np.zeros_like(position)
    folded = np.mod(position, 2 * limit)
    return np.minimum(folded, 2 * limit - folded)


def _points_needed(points: list[Point], brush: int, height: int, width: int) -> np.ndarray:
    """How many of its points a stroke takes to cover each pixel, uint8 [H, W]: one drawing for all its lengths.

    A stroke has its joints rounded, and its first point; `_drawn` rounds its last.
    """
    picture = Image.new("L", (width, height), NEVER)
    draw = ImageDraw.Draw(picture)
    angles = [math.degrees(math.atan2(x1 - x0, y0 - y1)) % 360 for (x0, y0), (x1, y1) in pairwise(points)]
    for count in range(len(points), 1, -1):  # backwards: the least number that covers a pixel stays
        draw.line(points[count - 2 : count], count, brush)
        draw.point(points[count - 1], count)
        if count > 2 and brush > 4:
            _round_joint(draw, points[count - 2], angles[count - 3], angles[count - 2], brush, count)
    draw.point(points[0], 1)
    _dab(draw, points[0], brush, 1)
    return np.array(picture)


def _round_joint(draw: ImageDraw.ImageDraw, at: Point, before: float, after: float, brush: int, fill: int) -> None:
    """What `ImageDraw.line` with joint="curve" adds where two pieces of these angles meet, to the pixel and faster."""
    if before == after:
        return
    (x, y), radius = at, brush / 2 - 1
    left = (after - before) % 360 > 180
    turn = 90 if left else -90
    first, second = before + turn - 90, after + turn - 90  # added as Pillow does: the last bit can move a pixel
    start, end = (second, first) if left else (first, second)
    draw.pieslice((x - radius, y - radius, x + radius, y + radius), start, end, fill)
    if brush > 8:  # there may be a gap between the pieces and the joint
        draw.line((_towards(at, first, radius), at, _towards(at, second, radius)), fill, 3)


def _towards(point: Point, angle: float, distance: float) -> Point:
    (x, y), angle = point, math.radians(angle)
    return x + int(distance * math.cos(angle)), y + int(distance * math.sin(angle))


def _drawn(mask: np.ndarray, needed: np.ndarray, points: list[Point], brush: int) -> np.ndarray:
    """The mask with a stroke of these points, the first of those that `needed` is of."""
    picture = Image.fromarray((mask | (needed <= len(points))).view(np.uint8))  # PIL is fastest with a byte a pixel
    _dab(ImageDraw.Draw(picture), points[-1], brush, 1)
    return np.array(picture).view(bool)


def _dab(draw: ImageDraw.ImageDraw, at: Point, brush: int, fill: int) -> None:
    (x, y), r = at, (brush - 1) / 2
    draw.ellipse((x - r, y - r, x + r, y + r), fill)


def _border(height: int, width: int, area: int, rng: np.random.Generator) -> np.ndarray:
    known = height * width - area
    # the axes share the frame: all of it beside, all of it above and below, or something between
    share = float(rng.choice([0.0, 1.0, rng.uniform(0.25, 0.75)], p=[0.2, 0.2, 0.6]))
    w = min(max(round(width * (known / (height * width)) ** share), 1), width)
    h = min(max(round(known / w), 1), height)
    if (h, w) == (height, width):  # a frame thinner than a pixel
        h, w = (h - 1, w) if h >= w else (h, w - 1)
    top, left = (_offset(n, rng) for n in (height - h, width - w))
    mask = np.ones((height, width), dtype=bool)
    mask[top : top + h, left : left + w] = False
    return mask


def _offset(free: int, rng: np.random.Generator) -> int:
    """Where the known part starts: often at one of the ends, so that frames of one to four sides occur."""
    return int(rng.choice([0, free, int(rng.integers(free + 1))], p=[0.25, 0.25, 0.5]))


DRAW = {"rectangles": _rectangles, "block": _block, "strokes": _strokes, "border": _border}
