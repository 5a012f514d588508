"""A synthetic captioned set, and the exact check of a repainted hole: does it show what the caption says?

Coloured shapes stand at named places on grey or pale backgrounds: "a red circle at the top left". Sample i
is a pure function of (seed, split, i, size, difficulty). For every shape at every place one colour is held
out: the split `test` consists of these combinations, and `train` never has them.

Palette colours are saturated and backgrounds are not. So the checker finds a shape by its chroma (largest minus
smallest channel) and names its colour by its hue; blur mixes in grey, which keeps the order of both.
"""

import colorsys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from nuwa_lip.data.shards import Sample
from nuwa_lip.errors import InputError

Split = Literal["train", "test"]
Difficulty = Literal["easy", "hard"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "yellow": (235, 215, 45),
    "green": (30, 170, 60),
    "cyan": (40, 200, 215),
    "blue": (45, 80, 220),
    "purple": (150, 50, 200),
}
SHAPES = ("circle", "square", "triangle")
PLACES = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
GREYS = (50, 95, 140, 185, 230)
SATURATED = 60
"""Least chroma of a pixel that counts as coloured; backgrounds stay below half of it."""
LEAST_SHARE = 0.15
"""Least share of a shape's box that must be coloured to count as a shape."""
SUPERSAMPLING = 4


class Verdict(NamedTuple):
    """The shape and colour that a repainted hole shows."""

    colour: str | None
    """One of `COLOURS`; None if there is too little colour to be a shape."""
    shape: str | None
    """The best match of `SHAPES`; None if the colour is None."""
    share: float
    """Coloured pixels as a share of the original shape's box."""


def held_out(colour: str, shape: str, place: str) -> bool:
    """Tell whether a combination belongs to the test split, which has one colour of every shape at every place.

    Args:
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        place: one of `PLACES`.
    """
    names = list(COLOURS)
    total = names.index(colour) + 2 * SHAPES.index(shape) + PLACES.index(place)
    return total % len(names) == 0


def shape_samples(
    count: int, *, size: int = 64, seed: int = 0, split: Split = "train", difficulty: Difficulty = "easy"
) -> Iterator[Sample]:
    """Draw the first `count` samples of a set.

    Args:
        count: number of samples, 1 or more.
        size: side of the photos in pixels, 32 or more.
        seed: seed of the set.
        split: "test" has only combinations of colour, shape and place that "train" never has.
        difficulty: "easy" draws one shape on plain grey; "hard" draws one to three on plain, shaded or noisy
            grounds, some of them tinted.

    Raises:
        InputError: the size is too small to tell shapes apart, or the count is below 1.
    """
    if size < 32:
        raise InputError(f"photos of {size} pixels are too small for shapes; 32 at least")
    if count < 1:
        raise InputError(f"{count} photos make no set; 1 at least")
    return (_sample(index, size, seed, split, difficulty) for index in range(count))


def _sample(index: int, size: int, seed: int, split: Split, difficulty: Difficulty) -> Sample:
    rng = np.random.default_rng([seed, split == "test", index])
    hard = difficulty == "hard"
    image = _background(size, rng, hard)
    count = int(rng.integers(1, 4)) if hard else 1
    objects = []
    for place in rng.permutation(len(PLACES))[:count]:
        thing = _draw_combination(PLACES[place], split, rng)
        radius, reach = (rng.uniform(0.12, 0.14), 1 / 3) if hard else (rng.uniform(0.18, 0.22), 1 / 4)
        y, x = ((np.array(divmod(int(place), 3)) - 1) * reach + 0.5 + rng.uniform(-0.02, 0.02, 2)) * size
        alpha = _render(thing["shape"], x, y, radius * size, size)
        image += alpha[..., None] * (np.array(COLOURS[thing["colour"]]) - image)
        ys, xs = np.nonzero(alpha)
        box = [int(n) for n in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
        objects.append({**thing, "box": box})  # left, top, right, bottom; ends exclusive
    key = f"shapes-{split}-{seed}-{index:06d}"
    meta = {"source": "shapes", "id": key, "split": split, "objects": objects}
    picture = Image.fromarray(image.round().astype(np.uint8))
    return Sample(key=key, image=picture, captions=[_caption(objects)], meta=meta)


def _draw_combination(place: str, split: Split, rng: np.random.Generator) -> dict[str, Any]:
    shape = SHAPES[rng.integers(len(SHAPES))]
    allowed = [colour for colour in COLOURS if held_out(colour, shape, place) == (split == "test")]
    return {"shape": shape, "colour": allowed[rng.integers(len(allowed))], "position": place}


def _background(size: int, rng: np.random.Generator, hard: bool) -> np.ndarray:
    """Draw a background of little chroma, float64 [size, size, 3] in 0..255."""
    ground = np.full((size, size, 3), float(GREYS[rng.integers(len(GREYS))]))
    if hard:
        ground += rng.uniform(-10, 10, 3)  # a tint
        if rng.random() < 0.33:
            across = np.linspace(-1, 1, size)[:, None] * rng.uniform(-30, 30)
            down = np.linspace(-1, 1, size)[None, :] * rng.uniform(-30, 30)
            ground += (across + down)[..., None]
        elif rng.random() < 0.5:
            ground += rng.normal(0, 10, (size, size, 1))
    return ground.clip(0, 255)


def _render(shape: str, x: float, y: float, radius: float, size: int) -> np.ndarray:
    """Draw a shape as the share of each pixel that it covers, float64 [size, size] in 0..1."""
    n = SUPERSAMPLING
    canvas = Image.new("L", (size * n, size * n))
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = ((v * n) for v in (x - radius, y - radius, x + radius, y + radius))
    if shape == "circle":
        draw.ellipse((left, top, right - 1, bottom - 1), fill=255)
    elif shape == "square":
        draw.rectangle((left, top, right - 1, bottom - 1), fill=255)
    else:
        draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=255)
    return np.asarray(canvas.reduce(n), dtype=float) / 255


def _caption(objects: list[dict[str, Any]]) -> str:
    parts = [f"a {o['colour']} {o['shape']} at the {o['position']}" for o in objects]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def recoloured_caption(sample: Sample, object_index: int, colour: str) -> str:
    """Rewrite the sample's caption with another colour for one of its shapes.

    Args:
        sample: a sample of this set.
        object_index: index of the shape.
        colour: one of `COLOURS`.

    Raises:
        InputError: there is no such colour.
    """
    if colour not in COLOURS:
        raise InputError(f"unknown colour {colour!r}; there are {', '.join(COLOURS)}")
    objects = [dict(o) for o in sample.meta["objects"]]
    objects[object_index]["colour"] = colour
    return _caption(objects)


def hole_for(sample: Sample, object_index: int, margin: int | None = None) -> np.ndarray:
    """Draw the mask that hides a whole shape and its edges.

    Args:
        sample: a sample of this set.
        object_index: index of the shape.
        margin: pixels around the shape's box; None takes a sixteenth of the photo's side.

    Returns:
        bool [H, W], True = to repaint.
    """
    width, height = sample.image.size
    margin = max(width // 16, 1) if margin is None else margin
    left, top, right, bottom = sample.meta["objects"][object_index]["box"]
    hole = np.zeros((height, width), dtype=bool)
    hole[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = True
    return hole


def check(image: Image.Image | np.ndarray, sample: Sample, object_index: int) -> Verdict:
    """Name what a repainted photo shows where one of the sample's shapes was.

    Args:
        image: the repainted photo, PIL or uint8 [H, W, 3], of the sample's size.
        sample: the original sample.
        object_index: index of the shape that was hidden.
    """
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image).astype(float)
    region = hole_for(sample, object_index)
    for other in range(len(sample.meta["objects"])):
        if other != object_index:
            region &= ~hole_for(sample, other, margin=0)
    chroma = np.where(region, pixels.max(axis=2) - pixels.min(axis=2), 0)
    coloured = chroma >= SATURATED
    left, top, right, bottom = sample.meta["objects"][object_index]["box"]
    share = float(coloured.sum()) / ((right - left) * (bottom - top))
    if share < LEAST_SHARE:
        return Verdict(colour=None, shape=None, share=share)
    colour = _vote(pixels[coloured], chroma[coloured])
    return Verdict(colour=colour, shape=_shape(chroma / np.ptp(COLOURS[colour])), share=share)


def _vote(pixels: np.ndarray, weights: np.ndarray) -> str:
    """Name the colour whose hue is nearest to most pixels [n, 3]; the purest pixels count most."""
    hues = np.array([colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in pixels])
    palette = np.array([colorsys.rgb_to_hsv(*(np.array(c) / 255))[0] for c in COLOURS.values()])
    distance = np.abs((hues[:, None] - palette + 0.5) % 1 - 0.5)
    votes = np.bincount(distance.argmin(axis=1), weights=weights, minlength=len(palette))
    return list(COLOURS)[int(votes.argmax())]


def _shape(cover: np.ndarray) -> str:
    """Name the shape that overlaps best with what is covered, float [H, W], when drawn into the same box."""
    cover = cover.clip(0, 1)
    ys, xs = np.nonzero(cover > 0.5)
    if not len(ys):  # everything is pale: take any colour
        ys, xs = np.nonzero(cover > 0)
    (top, bottom), (left, right) = ((v.min(), v.max() + 1) for v in (ys, xs))
    side = max(bottom - top, right - left)
    found = cover[top:bottom, left:right]
    scores = {}
    for shape in SHAPES:
        ideal = _render(shape, side / 2, side / 2, side / 2, int(side))
        ideal = np.asarray(Image.fromarray(ideal.astype(np.float32)).resize(found.shape[::-1]))
        scores[shape] = float(np.minimum(ideal, found).sum() / np.maximum(ideal, found).sum())
    return max(scores, key=scores.__getitem__)
