"""Measure repainted photos against the originals of a benchmark: one pass, one photo in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nuwa_lip.data.benchmark import BenchmarkItem
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import metrics
from nuwa_lip.evaluation.methods import Repaint
from nuwa_lip.models.perceptual import SqueezeNetFeatures

MEANS = ("lpips_squeeze", "lpips_squeeze_hole", "psnr", "psnr_hole", "ssim", "ring")
"""Figures that are means over photos."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one method reaches on one benchmark."""

    n: int
    """Photos measured: figures with another n or another benchmark are not comparable."""
    means: dict[str, float | None]
    """`MEANS`; None where no photo has a value (a ring without anything known)."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % interval of each mean, by bootstrap over the photos."""
    fsd: float
    """Fréchet distance of SqueezeNet features between repainted and original photos."""
    known_max_change: int
    """Largest change of a known pixel over all photos, in 8-bit steps."""

    def as_json(self) -> dict[str, object]:
        """Flat, as written to the report."""
        return {
            "n": self.n,
            "fsd": self.fsd,
            **self.means,
            "known_max_change": self.known_max_change,
            "intervals_95": self.intervals,
        }


class Tally:
    """Collects one method's per-photo figures."""

    def __init__(self, features: SqueezeNetFeatures) -> None:
        self.features = features
        self.values: dict[str, list[float]] = {name: [] for name in MEANS}
        self.embeddings: list[np.ndarray] = []
        self.known_max_change = 0

    def add(self, item: BenchmarkItem, photo: np.ndarray) -> None:
        """Measure one repainted photo, uint8 [H, W, 3]."""
        if photo.shape != item.image.shape:
            raise InputError(f"the result for photo {item.name} has shape {photo.shape}, not {item.image.shape}")
        whole, hole = metrics.perceptual(self.features, photo, item.image, item.mask)
        row = {
            "lpips_squeeze": whole,
            "lpips_squeeze_hole": hole,
            "psnr": metrics.psnr(photo, item.image),
            "psnr_hole": metrics.psnr(photo, item.image, item.mask),
            "ssim": metrics.ssim(photo, item.image),
            "ring": metrics.ring_error(photo, item.image, item.mask),
        }
        for name, value in row.items():
            if value is not None:
                self.values[name].append(value)
        self.embeddings.append(metrics.embed(self.features, photo))
        change = metrics.known_change(photo, item.image, item.mask)
        self.known_max_change = max(self.known_max_change, change)

    def figures(self, originals: np.ndarray) -> Figures:
        """Sum up; `originals` are the original photos' embeddings [N, 512]."""
        columns = {name: np.array(values) for name, values in self.values.items()}
        return Figures(
            n=len(self.embeddings),
            means={name: float(v.mean()) if len(v) else None for name, v in columns.items()},
            intervals={name: metrics.bootstrap_interval(v) if len(v) else None for name, v in columns.items()},
            fsd=metrics.frechet_distance(np.stack(self.embeddings), originals),
            known_max_change=self.known_max_change,
        )


Watch = Callable[[BenchmarkItem, dict[str, np.ndarray]], None]
"""Told every item with what each method made of it."""


def measure(
    items: Iterable[BenchmarkItem],
    methods: Mapping[str, Repaint],
    features: SqueezeNetFeatures,
    watch: Watch | None = None,
) -> dict[str, Figures]:
    """Repaint every item by every method and measure; the methods see the same photos in the same order."""
    tallies = {name: Tally(features) for name in methods}
    originals = []
    for item in items:
        photos = {name: repaint(item) for name, repaint in methods.items()}
        for name, photo in photos.items():
            tallies[name].add(item, photo)
        originals.append(metrics.embed(features, item.image))
        if watch is not None:
            watch(item, photos)
    if len(originals) < 2:
        raise InputError(f"{len(originals)} photos are too few to compare distributions; at least 2 are needed")
    return {name: tally.figures(np.stack(originals)) for name, tally in tallies.items()}
