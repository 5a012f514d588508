"""Whether what is painted is what the caption asks for: colours, and classes of scenes.

Colours: the hole of each photo is repainted six times from the same seed, with the photo's own caption in which another
colour is named each time. A colour is right if, of the six results, the one that was asked for it has the largest share
of it in its hole. Chance: 1 in 6.

Classes: the hole of each photo is repainted with a caption drawn from those of the benchmark, each of which stands for
a class. A class is right if a classifier names it from the hole alone. The classifier is a ridge regression on
features of a network, fitted to photos of the same classes.

Legend: N photos, C colours or classes, H W photo, F features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.evaluation.distances import bootstrap_interval
from nuwa_lip.evaluation.store import Store

COLOURS = ("red", "yellow", "white", "purple", "pink", "blue")
OTHER_COLOURS = ("black", "gray", "grey", "orange", "green", "teal", "brown", "beige", "olive", "patterned")
COLOUR_WORD = re.compile(rf"\b({'|'.join(COLOURS + OTHER_COLOURS)})\b")
RIDGE = 10.0
"""Penalty on the weights of features of unit variance."""

Paint = Callable[[BenchmarkItem, str], np.ndarray]
"""Repaints the hole of a photo as a caption says → uint8 [H, W, 3]."""


@dataclass(frozen=True, kw_only=True)
class Obeyed:
    """How often what was painted is what was asked for."""

    n: int
    """Photos."""
    share: float
    """Of what was asked for, the share that is right."""
    interval: tuple[float, float]
    """95 %, by bootstrap over the photos."""
    each: dict[str, float]
    """The share by colour or class."""

    def as_json(self) -> dict[str, Any]:
        """As written to a report."""
        return {"n": self.n, "right": self.share, "interval_95": self.interval, "each": self.each}


def recoloured(caption: str, colour: str) -> str | None:
    """The caption with another colour; None unless it names exactly one."""
    if len(COLOUR_WORD.findall(caption)) != 1:
        return None
    return COLOUR_WORD.sub(colour, caption)


def colour_shares(pixels: np.ndarray) -> np.ndarray:
    """What share of pixels, uint8 [N, 3], a viewer would call by each of `COLOURS`, float64 [C]."""
    rgb = pixels.astype(np.float64) / 255
    high, low = rgb.max(1), rgb.min(1)
    chroma = high - low
    saturation = chroma / np.maximum(high, 1e-9)
    between_red, between_green, between_blue = (np.roll(rgb, -1, 1) - np.roll(rgb, -2, 1)).T / np.maximum(chroma, 1e-9)
    r, g, _ = rgb.T
    # in degrees, from the channel that is the highest
    hue = 60 * np.select(
        [chroma == 0, high == r, high == g], [0.0, between_red % 6, between_green + 2], between_blue + 4
    )
    vivid = (saturation > 0.3) & (high > 0.2)
    reddish = (hue < 18) | (hue >= 335)
    pale = (high > 0.65) & (saturation < 0.6)
    found = {
        "red": vivid & reddish & ~pale,
        "yellow": vivid & (hue >= 40) & (hue < 70) & (high > 0.45),
        "white": (saturation < 0.2) & (high > 0.7),
        "purple": vivid & (hue >= 255) & (hue < 312),
        "pink": (saturation > 0.15) & np.where(reddish, pale, (high > 0.5) & (hue >= 312)),
        "blue": vivid & (hue >= 190) & (hue < 255),
    }
    return np.array([found[name].mean() for name in COLOURS])


def ask_for_colours(paint: Paint, benchmark: Benchmark, items: Iterable[int], store: Store) -> None:
    """Paint the six colours into each photo whose caption names one colour, and keep their shares, [C asked, C].

    Args:
        paint: repaints a photo as a caption.
        benchmark: the photos.
        items: their numbers.
        store: gets the shares; photos that it has are not painted again.
    """

    def of_photo(index: int) -> dict[str, np.ndarray]:
        captions = [recoloured(benchmark.captions[index], colour) for colour in COLOURS]
        if None in captions:
            return {"shares": np.full((len(COLOURS),) * 2, np.nan)}
        item = benchmark[index]
        painted = [paint(item, caption) for caption in captions if caption is not None]
        return {"shares": np.stack([colour_shares(picture[item.mask]) for picture in painted])}

    store.fill(items, of_photo)


def summarise_colours(store: Store, n: int) -> Obeyed:
    """How often the colour asked for decides, over the first n photos."""
    shares = store.load(n, ["shares"])["shares"]  # [N, C asked, C]
    shares = shares[~np.isnan(shares).any((1, 2))]
    most = shares == shares.max(1, keepdims=True)
    right = np.einsum("ncc->nc", most) / most.sum(1)  # who is equal shares the place
    return _obeyed(right, COLOURS)


def asked_classes(benchmark: Benchmark, n: int, seed: int) -> list[str]:
    """Draw the caption that the hole of each of the first n photos is repainted with.

    Args:
        benchmark: has the captions.
        n: number of photos.
        seed: of the draw.
    """
    classes = sorted(set(benchmark.captions))
    return [classes[i] for i in np.random.default_rng(seed).integers(len(classes), size=n)]


def summarise_classes(named: Sequence[str], asked: Sequence[str]) -> Obeyed:
    """How often the class that the classifier names is the one that was asked for."""
    classes = tuple(sorted(set(asked)))
    pairs = zip(named, asked, strict=True)
    return _obeyed(np.array([[float(a == b) if b == c else np.nan for c in classes] for a, b in pairs]), classes)


class RidgeClassifier:
    """One-against-all ridge regression on standardised features.

    Args:
        features: float [N, F].
        labels: of each photo.
    """

    def __init__(self, features: np.ndarray, labels: Sequence[str]) -> None:
        self.classes = sorted(set(labels))
        self.mean, self.scale = features.mean(0), features.std(0) + 1e-6
        x = self._standardised(features)
        wanted = np.array([[1.0 if label == name else -1.0 for name in self.classes] for label in labels])
        self.weights = np.linalg.solve(x.T @ x + RIDGE * len(x) / 100 * np.eye(x.shape[1]), x.T @ wanted)

    def __call__(self, features: np.ndarray) -> list[str]:
        """The class of each photo, from features [N, F]."""
        return [self.classes[i] for i in (self._standardised(features) @ self.weights).argmax(1)]

    def _standardised(self, features: np.ndarray) -> np.ndarray:
        x = (features - self.mean) / self.scale
        return np.concatenate([x, np.ones((len(x), 1))], 1)


def _obeyed(right: np.ndarray, names: Sequence[str]) -> Obeyed:
    """From what is right, float [N, C], NaN where it was not asked."""
    per_photo = np.nanmean(right, 1)
    return Obeyed(
        n=len(right),
        share=float(per_photo.mean()),
        interval=bootstrap_interval(per_photo),
        each=dict(zip(names, np.nanmean(right, 0).tolist(), strict=True)),
    )
