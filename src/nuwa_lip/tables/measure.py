"""A row's figures on one benchmark: of a tokenizer, of a model's results and likelihoods, of any method's results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nuwa_lip import hub
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.evaluation import job as jobs
from nuwa_lip.evaluation import likelihood, tokenizers
from nuwa_lip.evaluation.images import Figures, means_of, summarise
from nuwa_lip.evaluation.job import Job
from nuwa_lip.evaluation.shares import load_tokenizer, measure_shared, measure_tokenizer
from nuwa_lip.evaluation.store import Store
from nuwa_lip.tables.budget import Budget
from nuwa_lip.tables.rows import Measured, RowFolder, content_hash, model_hash, parameters_of

KEPT = ("lpips_squeeze", "lpips_squeeze_hole", "lpips", "psnr", "psnr_hole", "ssim_hole", "ring", "clip_score")
"""Figures that are kept of each photo, for paired comparisons and for the page's order; all would be too many."""
DIGITS = 6
"""Of the figures of each photo and of the resamples that are kept."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How rows are measured."""

    n: int
    """The benchmark's first so many photos."""
    pictures: int
    """Results that are kept for the page."""
    workers: int = 1
    others: int = likelihood.OTHERS
    """Other captions that the true one is compared with."""
    training: Sequence[str] = ()
    budget: Sequence[Budget] = ()
    command: str = ""

    def chosen(self) -> list[int]:
        """Photos whose results are kept: the same for every row."""
        shuffled = np.random.default_rng(0).permutation(self.n)  # fewer pictures are some of the more
        return sorted(int(i) for i in shuffled[: self.pictures])


def tokenizer_row(
    row: str,
    model: str,
    folder: RowFolder,
    source: Benchmark,
    setting: Setting,
    changes: Mapping[str, Any] | None = None,
) -> Measured:
    """A tokenizer alone: reconstruction, oracle inpainting, distances (Tables 2 and 3).

    Args:
        row: its name.
        model: bundled name, local folder or hub id; stage 1 is enough.
        folder: where rows of this kind are.
        source: the benchmark.
        setting: how much is measured.
        changes: switches of the configuration that leave the weights as they are.
    """
    about = {"model": model_hash(hub.resolve(model)), "changes": dict(changes or {})}
    with _row(row, folder, source, setting, about) as (known, store, finish):
        load = partial(load_tokenizer, model, changes)
        dfvqgan = load()
        if known is None:
            measure_shared(measure_tokenizer, dfvqgan, load, source, store, setting.n, setting.workers, title=row)
            found = tokenizers.summarise_tokenizer(store, setting.n, dfvqgan.config.codebook_size)
            own = {"distance": found.distance, "relative_distance": found.relative_distance, "changed": found.changed}
            own |= {"usage": found.usage, "perplexity": found.perplexity}
            figures: dict[str, float | None] = dict(own)
            intervals: dict[str, Sequence[float] | None] = dict(found.intervals)
            per_photo = _columns(store, setting.n, {name: f"{name}/" for name in tokenizers.METHODS}, ())
            per_photo |= _arrays(store, setting.n, ("distance", "changed"))
            scale = found.scale or None
            relative = [None if d is None or scale is None else d / scale for d in per_photo["distance"]]
            per_photo["relative_distance"] = relative
            for method, values in found.photos.items():
                _add(figures, intervals, values, f"{method}/")
            told: dict[str, Any] = {"model": model, "side": dfvqgan.config.resolution}
            told |= {"parameters": parameters_of(hub.resolve(model), "dfvqgan*.safetensors")}
            known = finish(figures, intervals, per_photo, _resampled(found.photos, "/"), told)
        squares = tokenizers.Squares(source, dfvqgan.config.resolution)
        for index in _missing(folder, row, setting, "oracle"):
            for part, photo in tokenizers.probe(dfvqgan, squares[index]).photos.items():
                _save(folder, row, index, part, photo)
    return known


def images_row(
    row: str, job: Job, folder: RowFolder, source: Benchmark, setting: Setting, *, with_likelihood: bool = False
) -> Measured:
    """Results of any method (Table 1), with the likelihoods of a model of ours (Table 4).

    Args:
        row: its name.
        job: the one method to measure.
        folder, source, setting: as for `tokenizer_row`.
        with_likelihood: measure the bits of the truth as well; the job has a model.
    """
    (name,) = job.names()
    about = {key: value for key, value in job.describe(source).items() if key not in ("benchmark_sha256", "methods")}
    if job.model is not None:
        about |= {"model": model_hash(hub.resolve(job.model)), "unpasted": job.unpasted}
    if job.baseline is not None:
        about["method"] = job.baseline
    weights = job.baseline_options.model
    if "baseline" in about and weights is not None and Path(weights).is_dir():
        about["baseline"] = [content_hash(Path(weights), ("**/*",)), *about["baseline"][1:]]
    if job.results is not None:
        about["results"] = content_hash(job.results, ("*.png",))
    about["likelihood"] = setting.others if with_likelihood else None
    if with_likelihood:
        about["tokenizer"] = content_hash(hub.resolve(str(job.model)), ("dfvqgan*.safetensors",))
    with _row(row, folder, source, setting, about) as (known, store, finish):
        chosen = set(setting.chosen())

        def keep(item: BenchmarkItem, photos: dict[str, np.ndarray]) -> None:
            if item.index in chosen:
                _save(folder, row, item.index, "result", photos[name])

        if known is None:
            todo = jobs.pending(job, source, store, range(setting.n))
            jobs.measure_together(job, source, store, todo, setting.workers, watch=keep)
            found = summarise(store, setting.n, [name], job.extras)[name]
            figures: dict[str, float | None] = {}
            intervals: dict[str, Sequence[float] | None] = {}
            _add(figures, intervals, found, "")
            per_photo = _columns(store, setting.n, {name: ""}, job.extras)
            if with_likelihood:
                _add_likelihood(str(job.model), row, folder, source, setting, figures, intervals, per_photo)
            told: dict[str, Any] = {"method": name, "model": job.model or weights, "seed": job.seed}
            told |= {"best_of": job.best_of, "rank": job.rank if job.best_of > 1 else None}
            told |= {"unpasted": job.unpasted, "whole": job.whole, "blend": job.blend}
            told |= {"resize": job.resize()}
            if job.model is not None or weights is not None:
                told |= {"parameters": parameters_of(hub.resolve(job.model) if job.model else Path(str(weights)))}
            known = finish(figures, intervals, per_photo, _resampled({"": found}, ""), told)
        left = _missing(folder, row, setting, "result")
        repaint = job.repaints(source)[name] if left else None
        for index in left:
            assert repaint is not None
            _save(folder, row, index, "result", repaint(source[index]))
    return known


def _add_likelihood(
    model: str,
    row: str,
    folder: RowFolder,
    source: Benchmark,
    setting: Setting,
    figures: dict[str, float | None],
    intervals: dict[str, Sequence[float] | None],
    per_photo: dict[str, list[float | None]],
) -> None:
    """Bits of the truth and the caption rank beside a model's results."""
    load = partial(hub.load_model, model)
    parts = load()
    run = {"definitions": jobs.DEFINITIONS, "model": model_hash(hub.resolve(model))}
    run |= {"benchmark_sha256": source.sha256, "others": setting.others}
    store = Store(folder.work / f"{row}.likelihood", run, fresh=True)
    measure = partial(likelihood.measure, others=setting.others)
    measure_shared(measure, parts, load, source, store, setting.n, setting.workers, title=row)
    found = likelihood.summarise_likelihood(store, setting.n, parts.sampling.order)
    figures |= found.figures
    intervals |= found.intervals
    per_photo |= {key: list(values) for key, values in found.per_photo.items()}
    store.clear()


Finish = Callable[
    [
        Mapping[str, float | None],
        Mapping[str, Sequence[float] | None],
        Mapping[str, Sequence[float | None]],
        Mapping[str, Sequence[float | None]],
        Mapping[str, Any],
    ],
    Measured,
]
"""Figures, intervals, figures of each photo and of the resamples, setting → the row, written."""


@contextmanager
def _row(
    row: str, folder: RowFolder, source: Benchmark, setting: Setting, about: Mapping[str, Any]
) -> Iterator[tuple[Measured | None, Store, Finish]]:
    """The row as it is known already, or else where to keep what is measured and how to finish it."""
    identity = {"definitions": jobs.DEFINITIONS, "benchmark_sha256": source.sha256, "n": setting.n, **about}
    identity = json.loads(json.dumps(identity))  # as it is read back
    known = folder.read(row)
    if known is not None and known.identity != identity:
        known = None
    if known is None:
        folder.remove(row)
    store = Store(folder.work / row, identity, fresh=True)

    def finish(
        figures: Mapping[str, float | None],
        intervals: Mapping[str, Sequence[float] | None],
        per_photo: Mapping[str, Sequence[float | None]],
        resampled: Mapping[str, Sequence[float | None]],
        told: Mapping[str, Any],
    ) -> Measured:
        measured = Measured(
            row=row,
            kind=folder.kind,
            benchmark=folder.benchmark,
            benchmark_sha256=source.sha256,
            n=setting.n,
            identity=identity,
            setting=told,
            figures=figures,
            intervals_95=intervals,
            per_photo=per_photo,
            resampled=resampled,
            training=list(setting.training),
            budget=list(setting.budget),
            command=setting.command,
        )
        folder.write(measured)
        store.clear()
        with suppress(OSError):  # another row is being measured there
            folder.work.rmdir()
            folder.work.parent.rmdir()
            folder.work.parent.parent.rmdir()
        return measured

    yield known, store, finish


def _add(
    figures: dict[str, float | None],
    intervals: dict[str, Sequence[float] | None],
    found: Figures,
    beginning: str,
) -> None:
    own = {**found.sets, **found.means, "known_max_change": float(found.known_max_change)}
    figures |= {beginning + key: value for key, value in own.items()}
    intervals |= {beginning + key: value for key, value in found.intervals.items()}


def _resampled(found: Mapping[str, Figures], between: str) -> dict[str, list[float | None]]:
    """Distances on the resamples, by method and name."""
    return {
        f"{method}{between}{name}": _plain(values)
        for method, figures in found.items()
        for name, values in figures.resampled.items()
    }


def _columns(store: Store, n: int, methods: Mapping[str, str], extras: Sequence[str]) -> dict[str, list[float | None]]:
    """Figures of each photo, by method and with the beginning that it gives their names."""
    names = [f"{i:05d}" for i in range(n)]
    loaded = store.load(names, [f"{method}/figures" for method in methods])
    found = {}
    for method, beginning in methods.items():
        for i, column in enumerate(means_of(extras)):
            if column in KEPT:
                found[beginning + column] = _plain(loaded[f"{method}/figures"][:, i])
    return found


def _arrays(store: Store, n: int, keys: Sequence[str]) -> dict[str, list[float | None]]:
    loaded = store.load([f"{i:05d}" for i in range(n)], keys)
    return {key: _plain(loaded[key][:, 0]) for key in keys}


def _plain(values: np.ndarray) -> list[float | None]:
    """As JSON has numbers."""
    return [None if np.isnan(value) else float(f"{value:.{DIGITS}g}") for value in values]


def _missing(folder: RowFolder, row: str, setting: Setting, part: str) -> list[int]:
    """Chosen photos whose result is not kept yet."""
    return [index for index in setting.chosen() if not picture_file(folder, row, index, part).is_file()]


def picture_file(folder: RowFolder, row: str, index: int, part: str) -> Path:
    """Where a result is kept."""
    return folder.pictures / row / f"{index:05d}.{part}.png"


def _save(folder: RowFolder, row: str, index: int, part: str, photo: np.ndarray) -> None:
    path = picture_file(folder, row, index, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    Image.fromarray(photo).save(unfinished, "PNG")
    unfinished.replace(path)
