"""Measure repainted photos against the originals of a benchmark: one pass, one photo in memory at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import metrics
from nuwa_lip.evaluation.distances import Interval, SetFigure, frechet_estimate, kernel_estimate, mean_and_interval
from nuwa_lip.evaluation.features import Networks
from nuwa_lip.evaluation.store import Store
from nuwa_lip.sampling.clip import clip_scores

REGIONS = ("", "_hole", "_ring")
MEANS = (*(f"{name}{ending}" for name in ("lpips_squeeze", "psnr", "ssim") for ending in REGIONS), "ring")
"""Figures that are means over photos."""
EXTRA_MEANS = {
    "lpips": tuple(f"lpips{ending}" for ending in REGIONS),
    "clip": ("clip_score",),
    "clip-hole": ("clip_score_hole",),
    "known": ("mse_known", "lpips_squeeze_known"),
    "detail": ("sharpness", "seam"),
}
"""Further means, by the names of --metrics."""
MEDIANS = ("sharpness", "seam")
"""Those that are medians instead: ratios to the true photo's figure, which may be next to nothing."""
SETS: dict[str, tuple[str, SetFigure]] = {
    "fsd": ("squeezenet", frechet_estimate),
    "fsd_hole": ("squeezenet_hole", frechet_estimate),
    "krd": ("random", kernel_estimate),
    "krd_hole": ("random_hole", kernel_estimate),
}
"""Distances between the set of repainted and the set of original photos: name → features, distance."""
EXTRA_SETS: dict[str, tuple[str, SetFigure]] = {
    "fid": ("inception", lambda a, b: frechet_estimate(a, b, resamples=10)),
    "kid": ("inception", kernel_estimate),
    "fed": ("efficientnet", frechet_estimate),
    "fed_hole": ("efficientnet_hole", frechet_estimate),
}
EXTRAS = ("fid", "kid", "lpips", "clip", "clip-hole", "fed", "known", "detail")
"""What --metrics adds; the networks of all but the last two have weights that are not bundled."""
CLIP = ("clip", "clip-hole")
FID_PHOTOS = 2048
"""The number of Inception's features; with fewer photos their covariance, which FID needs, has no full rank."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one method on one benchmark."""

    n: int
    """Photos measured: figures with another n or another benchmark are not comparable."""
    sets: dict[str, float]
    """`SETS` and those of `EXTRA_SETS` that were asked for."""
    means: dict[str, float | None]
    """`MEANS` and what was asked for; None where no photo has a value (a ring without anything known)."""
    intervals: dict[str, Interval | None]
    """95 % interval of each figure, by bootstrap over the photos."""
    resampled: dict[str, np.ndarray]
    """`sets` on resamples of the photos, to compare methods in pairs; see `Estimate`."""
    known_max_change: int
    """Largest change of a known pixel over all photos, in 8-bit steps."""

    def as_json(self) -> dict[str, object]:
        """Give the figures as the report has them, flat."""
        return {
            "n": self.n,
            **self.sets,
            **self.means,
            "known_max_change": self.known_max_change,
            "intervals_95": self.intervals,
        }


def parse_extras(metrics: str) -> tuple[str, ...]:
    """Read the names of --metrics, with commas between."""
    return tuple(dict.fromkeys(name.strip() for name in metrics.split(",") if name.strip()))


def check_extras(extras: Sequence[str], n: int) -> None:
    """Check the names of further figures.

    Raises:
        InputError: a figure does not exist, or not with n photos.
    """
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise InputError(f"--metrics {unknown[0]!r} is unknown; there are: {', '.join(EXTRAS)}")
    if n < 2:
        raise InputError(f"{n} photos are too few to compare distributions; at least 2 are needed")
    if "fid" in extras and n < FID_PHOTOS:
        raise InputError(
            f"--metrics fid needs {FID_PHOTOS} photos, as many as Inception has features; here are {n}: "
            "read KID (--metrics kid), which has no bias at any number"
        )


def means_of(extras: Sequence[str]) -> tuple[str, ...]:
    """List the figures that are means over photos."""
    return MEANS + tuple(name for extra in extras for name in EXTRA_MEANS.get(extra, ()))


def sets_of(extras: Sequence[str]) -> dict[str, tuple[str, SetFigure]]:
    """List the distances of sets by name, with their features and functions."""
    return SETS | {name: found for name, found in EXTRA_SETS.items() if name.removesuffix("_hole") in extras}


ORIGINAL = "/"
"""Stands in the store where a method's name does; no method can have it."""

Watch = Callable[[BenchmarkItem, dict[str, np.ndarray]], None]
"""Is called with every item and each method's result."""


class Observer:
    """Measures one item at a time and keeps its figures in a store.

    Args:
        methods: what repaints the photos, by name.
        networks: compute the features.
        extras: figures beside the usual ones.
    """

    def __init__(self, methods: Mapping[str, Repaint], networks: Networks, extras: Sequence[str]) -> None:
        self.methods = methods
        self.networks = networks
        self.columns = means_of(extras) + ("known_max_change",)

    def measure(
        self,
        items: Iterable[int],
        benchmark: Benchmark,
        store: Store,
        sources: Mapping[str, Path],
        watch: Watch | None = None,
    ) -> None:
        """Repaint these photos by every method and measure them.

        Args:
            sources: see `stamps`.

        Raises:
            InputError: a picture cannot be used; the photos before it stay in the store.
        """
        for index in items:
            store.save(index, self.row(benchmark[index], sources, watch))

    def row(
        self, item: BenchmarkItem, sources: Mapping[str, Path], watch: Watch | None = None
    ) -> dict[str, np.ndarray]:
        """Repaint one photo by every method and return what is kept of it.

        Args:
            item: the photo.
            sources: see `stamps`.
            watch: is called with it and the results.

        Raises:
            InputError: a picture cannot be used.
        """
        marks = stamps(self.methods, sources, item.name)
        photos = {method: repaint(item) for method, repaint in self.methods.items()}
        found = {**marks, **self.observe(item, photos)}
        if watch is not None:
            watch(item, photos)
        return found

    def observe(self, item: BenchmarkItem, photos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute all that is kept of one item, from one pass of each network over all its photos.

        Raises:
            InputError: a result has another shape than its photo, or features are not finite.
        """
        for photo in photos.values():
            if photo.shape != item.image.shape:
                raise InputError(f"the result for photo {item.name} has shape {photo.shape}, not {item.image.shape}")
        stack = [item.image, *photos.values()]
        found: dict[str, np.ndarray] = {}
        for name, vectors in self.networks.vectors(stack, item.mask).items():
            if not np.isfinite(vectors).all():
                raise InputError(f"the {name} features of photo {item.name} are not finite: the weights are damaged")
            found.update({f"{who}/{name}": vector for who, vector in zip((ORIGINAL, *photos), vectors, strict=True)})
        rows = self.networks.distances(stack, metrics.regions_of(item.mask))
        if self.networks.clip is not None:
            ys, xs = np.nonzero(item.mask)
            box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
            crops = {"clip_score": stack[1:], "clip_score_hole": [photo[box] for photo in stack[1:]]}
            for column in crops.keys() & set(self.columns):
                pictures = [Image.fromarray(photo) for photo in crops[column]]
                scores = clip_scores(pictures, item.caption, self.networks.clip)
                for row, score in zip(rows, scores, strict=True):
                    row[column] = 100 * max(0.0, score)
        if "mse_known" in self.columns:
            for row, of_known in zip(rows, self._of_known(stack, item.mask), strict=True):
                row |= of_known
        for (who, photo), row in zip(photos.items(), rows, strict=True):
            row |= metrics.compare(photo, item.image, item.mask)
            if "sharpness" in self.columns:
                row |= metrics.detail(photo, item.image, item.mask)
            for column, value in row.items():
                if value is not None and not np.isfinite(value):
                    raise InputError(f"{column} of photo {item.name} is not finite: the weights are damaged")
            values = [np.nan if (value := row[column]) is None else value for column in self.columns]
            found[f"{who}/figures"] = np.array(values, dtype=np.float64)
        return found

    def _of_known(self, stack: Sequence[np.ndarray], mask: np.ndarray) -> list[dict[str, float | None]]:
        """Compare the known parts of the first photo and the others, whose holes are blanked, as BrushNet does."""
        if mask.all():
            return [{"mse_known": None, "lpips_squeeze_known": None} for _ in stack[1:]]
        blanked = [np.where(mask[..., None], np.uint8(0), photo) for photo in stack]
        rows = self.networks.distances(blanked, {"": None})
        truth = stack[0][~mask] / 255
        return [
            {
                "mse_known": float(np.square(photo[~mask] / 255 - truth).mean()),
                "lpips_squeeze_known": row["lpips_squeeze"],
            }
            for photo, row in zip(stack[1:], rows, strict=True)
        ]


def stamps(methods: Iterable[str], sources: Mapping[str, Path], name: str) -> dict[str, np.ndarray]:
    """Identify the version of a photo's results by size and time of each method's file.

    Args:
        methods: what is measured.
        sources: folders of those whose pictures were made elsewhere and may change; the others have no file.
        name: of the photo.
    """
    found = {}
    for method in methods:
        path = sources[method] / f"{name}.png" if method in sources else None
        stat = path.stat() if path is not None and path.exists() else None
        values = (0, 0) if stat is None else (stat.st_size, stat.st_mtime_ns)
        found[f"{method}/stamp"] = np.array(values, dtype=np.int64)
    return found


def unmeasured(
    items: Iterable[int], benchmark: Benchmark, store: Store, methods: Iterable[str], sources: Mapping[str, Path]
) -> list[int]:
    """List those of the photos that a store does not have with the results as they are now.

    Args:
        items: numbers of photos.
        benchmark: has them.
        store: may have what was measured of them.
        methods: as for `stamps`.
        sources: as for `stamps`.
    """
    names = list(methods)
    return [i for i in items if not store.has(i, stamps(names, sources, benchmark.files[i].name))]


def summarise(store: Store, n: int, methods: Sequence[str], extras: Sequence[str]) -> dict[str, Figures]:
    """Compute means, distances and intervals of the first photos, by method.

    Args:
        store: has all of these photos.
        n: number of photos.
        methods: their names.
        extras: figures beside the usual ones.
    """
    return {method: _summarise(store, n, method, extras) for method in methods}


def _summarise(store: Store, n: int, method: str, extras: Sequence[str]) -> Figures:
    rows = store.load(n, [f"{method}/figures"])[f"{method}/figures"]
    means: dict[str, float | None] = {}
    intervals: dict[str, Interval | None] = {}
    for i, column in enumerate(means_of(extras)):
        means[column], intervals[column] = mean_and_interval(rows[:, i], median=column in MEDIANS)
    sets: dict[str, float] = {}
    resampled: dict[str, np.ndarray] = {}
    for name, (features, distance) in sets_of(extras).items():
        # features of one figure at a time: those of Inception are large
        both = store.load(n, [f"{method}/{features}", f"{ORIGINAL}/{features}"])
        found = distance(both[f"{method}/{features}"], both[f"{ORIGINAL}/{features}"])
        sets[name], resampled[name], intervals[name] = found.value, found.resampled, found.interval
    change = int(rows[:, -1].max())
    return Figures(n=n, sets=sets, means=means, intervals=intervals, resampled=resampled, known_max_change=change)
