"""Random masks, drawn by a recipe for training and by a rule such as `rectangles-40-60` for benchmarks.

A mask is bool, True = defective (to repaint). It is a pure function of its recipe, its size and the random generator.
The share of the photo that it covers is drawn first; then shapes are added until they cover that share, and the last
one is cut short.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from nuwa_lip.data.objects import OBJECT_KINDS, Outline, object_mask
from nuwa_lip.disk.fields import ANY, check_bounds
from nuwa_lip.errors import InputError

KINDS = ("rectangles", "block", "strokes", "border", "everything", "nothing")
RULE_KINDS = ("rectangles", "block", "strokes", "border", "centre", *OBJECT_KINDS)
TRIES = 4
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
    """Least and largest share of the photo that other than full and empty masks cover; drawn uniformly."""

    def __post_init__(self) -> None:
        check_bounds(self, dict.fromkeys((*KINDS, "ratio"), (ANY, 1e9)), "masks.")
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
    """Draw one mask.

    Unless the recipe asks for a full or an empty mask, it is never empty and meets the drawn ratio as nearly as whole
    lines or short pieces of stroke allow (within about 1 % from 64 pixels on). Tiny photos or a narrow range can make
    it leave the recipe's range; then the best of a few tries is taken.

    Args:
        height: height in pixels.
        width: width in pixels.
        recipe: how often each kind of mask is drawn, and how much it covers.
        rng: source of all randomness.

    Returns:
        bool [height, width], True = to repaint.
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


def random_masks(
    batch: int,
    height: int,
    width: int,
    recipe: MaskRecipe,
    rng: np.random.Generator | Sequence[np.random.Generator],
) -> torch.Tensor:
    """Draw several masks.

    Args:
        batch: number of masks, B.
        height: height in pixels, H.
        width: width in pixels, W.
        recipe: how often each kind of mask is drawn, and how much it covers.
        rng: source of all randomness, one for all masks or each mask's own.

    Returns:
        bool [B, 1, H, W], True = to repaint.
    """
    each = [rng] * batch if isinstance(rng, np.random.Generator) else rng
    masks = [random_mask(height, width, recipe, own) for own in each]
    return torch.from_numpy(np.stack(masks)).unsqueeze(1)


def parse_rule(rule: str) -> tuple[str, float, float]:
    """Read a rule: `rectangles-40-60` → ("rectangles", 0.4, 0.6), the kind, the least and the largest share.

    Raises:
        InputError: the rule does not have this form, its kind is unknown, or its shares are not within 0 to 1.
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
    """Draw the mask of a rule KIND-LOW-HIGH, shares in per cent.

    The kinds are rectangles, block (a single rectangle), strokes, border (a frame to paint outwards), centre (a box in
    the middle), and boxes and segments (one of the objects).

    Args:
        rule: for example `rectangles-40-60`.
        height: height in pixels.
        width: width in pixels.
        rng: source of all randomness.
        objects: the photo's annotated objects, in shares of it.

    Returns:
        bool [height, width], True = to repaint; None if the rule hides an object and there is none to hide.

    Raises:
        InputError: the rule is not one of these.
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
    """Choose an uncovered pixel (y, x). Every shape starts on one, so that each adds to the area."""
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
    """Cover lines of a view into the mask: all, or the number that comes nearest to `wanted` new pixels."""
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
        low, high = 1, len(points)  # how many points of the stroke to draw, found by bisection
        drawn = _drawn(mask, points, brush)
        while low < high and np.count_nonzero(drawn) > area:
            middle = (low + high) // 2
            shorter = _drawn(mask, points[:middle], brush)
            if np.count_nonzero(shorter) < area:
                low = middle + 1
            else:
                high, drawn = middle, shorter
        mask = drawn
    return mask


def _stroke(y: int, x: int, height: int, width: int, brush: int, rng: np.random.Generator) -> list[Point]:
    """Draw the points of a wandering line of short pieces, which bounces off the picture's edges."""
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


def _drawn(mask: np.ndarray, points: list[Point], brush: int) -> np.ndarray:
    """Add a stroke through these points to a copy of the mask, with round joints and round ends."""
    picture = Image.fromarray(mask.view(np.uint8))  # PIL is fastest with a byte a pixel
    draw = ImageDraw.Draw(picture)
    draw.line(points, 1, brush, joint="curve")
    draw.point(points, 1)  # pieces of a thin line leave out some of their ends
    r = (brush - 1) / 2
    for x, y in (points[0], points[-1]):
        draw.ellipse((x - r, y - r, x + r, y + r), 1)
    return np.array(picture).view(bool)


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
    """Choose where the known part starts: often at one of the ends, so that frames of one to four sides occur."""
    return int(rng.choice([0, free, int(rng.integers(free + 1))], p=[0.25, 0.25, 0.5]))


DRAW = {"rectangles": _rectangles, "block": _block, "strokes": _strokes, "border": _border}
