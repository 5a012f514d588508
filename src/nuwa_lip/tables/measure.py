"""A row's figures on one benchmark: of a tokenizer, of a model's results and likelihoods, of any method's results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nuwa_lip import hub
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.disk import written_whole
from nuwa_lip.evaluation import job as jobs
from nuwa_lip.evaluation import likelihood, tokenizers
from nuwa_lip.evaluation.fingerprints import content_hash, model_hash, parameters_of
from nuwa_lip.evaluation.images import Figures, means_of, summarise
from nuwa_lip.evaluation.job import Job, Weights
from nuwa_lip.evaluation.store import Store
from nuwa_lip.tables.budget import Budget
from nuwa_lip.tables.rows import Measured, RowFolder

KEPT = ("lpips_squeeze", "lpips_squeeze_hole", "lpips", "psnr", "psnr_hole", "ssim_hole", "ring", "clip_score")
"""Figures that are kept of each photo, for paired comparisons and for the page's order; all would be too many."""
DIGITS = 6
"""Digits that are kept of the figures of each photo and of the resamples."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What rows are measured on, and how."""

    source: Benchmark
    folder: RowFolder
    """Where rows of this kind are."""
    n: int
    """Number of photos, the benchmark's first ones."""
    pictures: int
    """Number of results that are kept for the page."""
    workers: int = 1
    others: int = likelihood.OTHERS
    """Number of other captions that the true one is compared with."""
    training: Sequence[str] = ()
    budget: Sequence[Budget] = ()
    command: str = ""

    def chosen(self) -> list[int]:
        """Choose the photos whose results are kept, the same for every row."""
        shuffled = np.random.default_rng(0).permutation(self.n)  # fewer pictures are a subset of more
        return sorted(int(i) for i in shuffled[: self.pictures])


class RowWork:
    """A row that is being measured: its figures so far, and the pictures that are kept of it.

    Args:
        row: its name.
        setting: what it is measured on, and how.
        about: what the figures depend on beside the benchmark.
    """

    def __init__(self, row: str, setting: Setting, about: Mapping[str, Any]) -> None:
        self.row, self.setting = row, setting
        self.folder, self.source = folder, source = setting.folder, setting.source
        identity = {"definitions": jobs.DEFINITIONS, "benchmark_sha256": source.sha256, "n": setting.n, **about}
        self.identity = json.loads(json.dumps(identity))  # as it is read back
        self.known = folder.read(row)
        """The row, if it was measured with this identity."""
        if self.known is not None and self.known.identity != self.identity:
            self.known = None
        if self.known is None:
            folder.remove(row)
        self.store = Store(folder.work / row, self.identity, fresh=True)
        self.figures: dict[str, float | None] = {}
        self.intervals: dict[str, Sequence[float] | None] = {}
        self.per_photo: dict[str, list[float | None]] = {}
        self.resampled: dict[str, list[float | None]] = {}

    def add(self, method: str, found: Figures, extras: Sequence[str] = (), prefix: str = "") -> None:
        """Add the figures of a method.

        Args:
            method: its name in the store.
            found: its figures.
            extras: figures beside the usual ones, of `images.EXTRAS`.
            prefix: begins the figures' names.
        """
        own = {**found.sets, **found.means, "known_max_change": float(found.known_max_change)}
        self.figures |= {prefix + key: value for key, value in own.items()}
        self.intervals |= {prefix + key: value for key, value in found.intervals.items()}
        self.resampled |= {prefix + key: _rounded(values) for key, values in found.resampled.items()}
        rows = self.load(f"{method}/figures")
        columns = {name: rows[:, i] for i, name in enumerate(means_of(extras)) if name in KEPT}
        self.per_photo |= {prefix + name: _rounded(values) for name, values in columns.items()}

    def load(self, key: str) -> np.ndarray:
        """Load an array of every photo from the store: [N, ...]."""
        return self.store.load(self.setting.n, [key])[key]

    def finish(self, setting: Mapping[str, Any]) -> Measured:
        """Write the row with what the reader wants to know of its setting, and remove the store."""
        self.known = Measured(
            row=self.row,
            kind=self.folder.kind,
            benchmark=self.folder.benchmark,
            benchmark_sha256=self.source.sha256,
            n=self.setting.n,
            identity=self.identity,
            setting=setting,
            figures=self.figures,
            intervals_95=self.intervals,
            per_photo=self.per_photo,
            resampled=self.resampled,
            training=list(self.setting.training),
            budget=list(self.setting.budget),
            command=self.setting.command,
        )
        self.folder.write(self.known)
        self.store.clear()
        with suppress(OSError):  # another row is being measured there
            for folder in (self.folder.work, *list(self.folder.work.parents)[:2]):
                folder.rmdir()
        return self.known

    def missing(self, part: str) -> list[int]:
        """List the chosen photos whose result is not kept yet; `part` names one of several pictures."""
        return [i for i in self.setting.chosen() if not self.folder.picture(self.row, i, part).is_file()]

    def keep(self, index: int, part: str, photo: np.ndarray) -> None:
        """Keep a picture.

        Args:
            index: number of the photo.
            part: what it shows, such as result.
            photo: uint8 [H, W, 3].
        """
        path = self.folder.picture(self.row, index, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as unfinished:
            Image.fromarray(photo).save(unfinished, "PNG")


def tokenizer_row(
    row: str,
    model: str,
    setting: Setting,
    changes: Mapping[str, Any] | None = None,
    *,
    extras: Sequence[str] = (),
    weights: Weights | None = None,
) -> Measured:
    """Measure a tokenizer alone: reconstruction, oracle inpainting, distances (Tables 2 and 3).

    Args:
        row: its name.
        model: bundled name, local folder or hub id; stage 1 is enough.
        setting: what it is measured on, and how.
        changes: switches of the configuration that leave the weights as they are.
        extras: figures beside the usual ones, of `images.EXTRAS`.
        weights: where those of their networks are.
    """
    path, weights = hub.resolve(model), weights or Weights()
    about: dict[str, Any] = {"model": model_hash(path), "changes": dict(changes or {})}
    about |= {"metrics": sorted(extras), **weights.describe(extras)} if extras else {}
    work, source = RowWork(row, setting, about), setting.source
    load = partial(tokenizers.load_tokenizer, model, changes)
    dfvqgan = load()
    known, store, side = work.known, work.store, dfvqgan.config.resolution
    if known is None:
        todo = store.missing(setting.n)
        measure = partial(tokenizers.measure, extras=extras, weights=weights)
        jobs.measure_shared(measure, dfvqgan, load, source, store, todo, setting.workers, title=row)
        found = tokenizers.summarise_tokenizer(store, setting.n, dfvqgan.config.codebook_size, extras)
        work.figures |= {name: getattr(found, name) for name in tokenizers.FIGURES}
        work.intervals |= found.intervals
        for method, figures in found.photos.items():
            work.add(method, figures, extras, prefix=f"{method}/")
        work.per_photo |= {name: _rounded(work.load(name)[:, 0]) for name in ("distance", "changed")}
        work.per_photo["relative_distance"] = [
            None if distance is None or not found.scale else distance / found.scale
            for distance in work.per_photo["distance"]
        ]
        parameters = parameters_of(path, "dfvqgan*.safetensors")
        known = work.finish({"model": model, "side": side, "parameters": parameters})
    squares = tokenizers.Squares(source, side)
    for index in work.missing("oracle"):
        for part, photo in tokenizers.probe(dfvqgan, squares[index]).photos.items():
            work.keep(index, part, photo)
    return known


def images_row(row: str, job: Job, setting: Setting, *, with_likelihood: bool = False) -> Measured:
    """Measure the results of any method (Table 1), with the likelihoods of a model of ours (Table 4).

    Args:
        row: its name.
        job: the one method to measure.
        setting: what it is measured on, and how.
        with_likelihood: measure the bits of the truth as well; the job has a model.
    """
    (name,) = job.names()
    weights, source = job.baseline_options.model, setting.source
    work = RowWork(row, setting, _identity(job, source, setting.others if with_likelihood else None))
    known, chosen = work.known, set(setting.chosen())

    def watch(item: BenchmarkItem, photos: dict[str, np.ndarray]) -> None:
        if item.index in chosen:
            work.keep(item.index, "result", photos[name])

    if known is None:
        jobs.measure(job, source, work.store, range(setting.n), workers=setting.workers, watch=watch)
        work.add(name, summarise(work.store, setting.n, [name], job.extras)[name], job.extras)
        if with_likelihood:
            _add_likelihood(work, str(job.model))
        about: dict[str, Any] = {"method": name, "model": job.model or weights, "seed": job.seed}
        about |= {"best_of": job.best_of, "rank": job.rank if job.best_of > 1 else None}
        about |= {"unpasted": job.unpasted, "whole": job.whole, "blend": job.blend, "resize": job.resize()}
        if job.model is not None or weights is not None:
            about |= {"parameters": parameters_of(hub.resolve(job.model) if job.model else Path(str(weights)))}
        known = work.finish(about)
    missing = work.missing("result")
    for repaint in job.repaints(source).values() if missing else ():
        for index in missing:
            work.keep(index, "result", repaint(source[index]))
    return known


def _identity(job: Job, source: Benchmark, others: int | None) -> dict[str, Any]:
    """What the figures of a row depend on: the contents of whatever repaints it, and how.

    Args:
        job: the one method to measure.
        source: the benchmark.
        others: number of other captions; None: no likelihoods are measured.
    """
    about = {key: value for key, value in job.describe(source).items() if key not in ("benchmark_sha256", "methods")}
    weights = job.baseline_options.model
    if job.model is not None:
        about |= {"model": model_hash(hub.resolve(job.model)), "unpasted": job.unpasted}
    if job.baseline is not None:
        about["method"] = job.baseline
    if "baseline" in about and weights is not None and Path(weights).is_dir():
        about["baseline"] = [content_hash(Path(weights), ("**/*",)), *about["baseline"][1:]]
    if job.results is not None:
        about["results"] = content_hash(job.results, ("*.png",))
    about["likelihood"] = others
    if others is not None:
        about["tokenizer"] = content_hash(hub.resolve(str(job.model)), ("dfvqgan*.safetensors",))
    return about


def _add_likelihood(work: RowWork, model: str) -> None:
    """Add the bits of the truth and the caption rank to a model's results."""
    setting, source = work.setting, work.source
    load = partial(hub.load_model, model)
    parts = load()
    run = {"definitions": jobs.DEFINITIONS, "model": model_hash(hub.resolve(model))}
    run |= {"benchmark_sha256": source.sha256, "others": setting.others}
    store = Store(work.folder.work / f"{work.row}.likelihood", run, fresh=True)
    measure = partial(likelihood.measure_likelihood, others=setting.others)
    todo = store.missing(setting.n)
    jobs.measure_shared(measure, parts, load, source, store, todo, setting.workers, title=work.row)
    found = likelihood.summarise_likelihood(store, setting.n, parts.sampling.order)
    work.figures |= found.figures
    work.intervals |= found.intervals
    work.per_photo |= {key: list(values) for key, values in found.per_photo.items()}
    store.clear()


def _rounded(values: np.ndarray) -> list[float | None]:
    """Round to `DIGITS` digits, as JSON has numbers."""
    return [None if np.isnan(value) else float(f"{value:.{DIGITS}g}") for value in values]
