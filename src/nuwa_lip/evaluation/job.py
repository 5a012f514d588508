"""One measurement from beginning to end: what is measured on what, by one process or by several.

A `Job` holds all settings, so that another process can do its share.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from rich.console import Console
from rich.progress import track

from nuwa_lip import hub
from nuwa_lip.baselines import methods, registry
from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.disk import check_writable
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.features import RESIZE
from nuwa_lip.evaluation.fingerprints import model_hash, stamp
from nuwa_lip.evaluation.images import CLIP, Observer, Watch, check_extras, unmeasured
from nuwa_lip.evaluation.store import Store
from nuwa_lip.evaluation.weights import Weights

DEFINITIONS = 2
"""Raised whenever the meaning of a figure changes: what was kept before is then measured again."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A measurement: of a model or a folder of results, of a baseline, or of one of the first two beside the last."""

    benchmark: Path
    model: str | None = None
    results: Path | None = None
    baseline: str | None = None
    baseline_options: BaselineOptions = field(default_factory=BaselineOptions)
    unpasted: bool = False
    """Measure the model's whole picture, with the known pixels as it gives them."""
    whole: bool = False
    """Let the model see the photo as one window; otherwise one around each hole, with known pixels pasted."""
    blend: bool | None = None
    """Fit the model's colours at the hole's edge, which is not of the paper; None: as the model says."""
    seed: int = 0
    best_of: int = 1
    rank: Literal["likelihood", "clip"] = "likelihood"
    save_images: Path | None = None
    """Where the model's pictures are kept."""
    save_baseline: Path | None = None
    """Where the baseline's are."""
    extras: tuple[str, ...] = ()
    """Figures beside the usual ones: `images.EXTRAS`."""
    weights: Weights = field(default_factory=Weights)

    def names(self) -> list[str]:
        """Name what is measured, the main method first.

        Raises:
            InputError: nothing is measured, or two methods have one name.
        """
        named = [Path(self.model).name + "-unpasted" * self.unpasted] if self.model is not None else []
        named += [self.results.name] if self.results is not None else []
        if self.baseline is not None:
            named.append(f"opencv-{self.baseline}" if self.baseline in methods.BASELINES else self.baseline)
        if not named:
            raise InputError("nothing to measure: give --model NAME, --results DIR or --baseline telea")
        if len(set(named)) < len(named):
            raise InputError(f"two methods are called {named[0]}: rename the folder of the one that has one")
        return named

    def sources(self) -> dict[str, Path]:
        """Give the folders of pictures made elsewhere, by the method's name."""
        return {} if self.results is None else {self.results.name: self.results}

    def repaints(self, source: Benchmark) -> dict[str, Repaint]:
        """Load the methods, by their names.

        Raises:
            InputError: a method, a library or weights are missing.
        """
        found: list[Repaint] = []
        if self.model is not None:
            sampling = self.seed, self.best_of, self.rank
            repaint = methods.model(self.model, *sampling, self.unpasted, self.blend, self.whole)
            if self.save_images is not None:
                repaint = methods.kept(repaint, self.save_images, self._run(self.model, source))
            found.append(repaint)
        if self.results is not None:
            found.append(methods.results(self.results))
        if self.baseline is not None:
            plain = self.baseline in methods.BASELINES
            repaint = methods.baseline(self.baseline) if plain else registry.load(self.baseline, self.baseline_options)
            if self.save_baseline is not None:
                options = {} if plain else {"options": str(self.baseline_options)}
                run: dict[str, object] = {"baseline": self.baseline, **options, "benchmark_sha256": source.sha256}
                repaint = methods.kept(repaint, self.save_baseline, run)
            found.append(repaint)
        return dict(zip(self.names(), found, strict=True))

    def _run(self, model: str, source: Benchmark) -> dict[str, object]:
        """Describe what the model's pictures depend on; a model that is trained again under its name is another one."""
        run: dict[str, object] = {"model": model, "weights": model_hash(hub.resolve(model))}
        run |= {"seed": self.seed, "benchmark_sha256": source.sha256}
        if self.best_of > 1:
            run |= {"best_of": self.best_of, "rank": self.rank}
        run |= {name: True for name in ("unpasted", "whole") if getattr(self, name)}
        if self.blend is not None:
            run |= {"blend": self.blend}
        return run

    def describe(self, source: Benchmark) -> dict[str, Any]:
        """Describe what the figures depend on, to be kept beside them."""
        described: dict[str, Any] = {
            "definitions": DEFINITIONS,
            "benchmark_sha256": source.sha256,
            "methods": self.names(),
            "model": None if self.model is None else fingerprint(self.model),
            "sampling": [self.seed, self.best_of, self.rank],
            "results": None if self.results is None else str(self.results.absolute()),
            "metrics": sorted(self.extras),
            "weights": [str(self.weights.inception), str(self.weights.vgg), self.weights.clip],
            **self.weights.describe(self.extras),
        }
        if self.blend is not None:
            described["blend"] = self.blend
        if self.whole:
            described["whole"] = True
        if self.baseline is not None and self.baseline not in methods.BASELINES:
            chosen = self.baseline_options
            weights = chosen.model if chosen.model is None or not Path(chosen.model).exists() else stamp(chosen.model)
            described["baseline"] = [weights, chosen.steps, chosen.guidance, chosen.seed]
        return described

    def resize(self) -> dict[str, str]:
        """Say how photos are brought to the input sizes of the networks that are used."""
        used = {"squeezenet", "random"}
        used |= {"inception"} if {"fid", "kid"} & set(self.extras) else set()
        used |= {"efficientnet"} if "fed" in self.extras else set()
        used |= {"clip"} if {*CLIP} & set(self.extras) else set()
        return {name: text for name, text in RESIZE.items() if name in used}


def count_photos(source: Benchmark, limit: int | None, extras: Sequence[str] = ()) -> int:
    """Count the photos to measure, the first `limit` of a benchmark.

    Args:
        source: the benchmark.
        limit: None: all.
        extras: figures that are asked for.

    Raises:
        InputError: a figure of `extras` does not exist, or not for so few photos.
    """
    n = len(source) if limit is None else min(limit, len(source))
    check_extras(extras, n)
    return n


def measure(
    job: Job, source: Benchmark, store: Store, items: Iterable[int], *, workers: int = 1, watch: Watch | None = None
) -> None:
    """Measure photos by `workers` processes.

    Args:
        job: what to measure.
        source: the benchmark.
        store: where what is measured of each photo is kept.
        items: numbers of photos; those that are not `unmeasured` any more are left out.
        workers: processes.
        watch: is called with every photo that this process measures.
    """
    if todo := unmeasured(items, source, store, job.names(), job.sources()):
        # nobody watches in the other processes
        measure_shared(_observe, _Watched(job, watch), partial(_Watched, job), source, store, todo, workers)


class _Watched(NamedTuple):
    job: Job
    watch: Watch | None = None


def _observe(watched: _Watched, source: Benchmark, store: Store, items: Iterable[int]) -> None:
    job, watch = watched
    observer = Observer(job.repaints(source), job.weights.networks(job.extras), job.extras)
    observer.measure(items, source, store, job.sources(), watch)


Loaded = TypeVar("Loaded")
Measure = Callable[[Loaded, Benchmark, Store, Iterable[int]], None]
"""Measures photos with something that was loaded, into a store."""


def measure_shared(
    measure: Measure[Loaded],
    loaded: Loaded,
    load: Callable[[], Loaded],
    source: Benchmark,
    store: Store,
    items: Sequence[int],
    workers: int,
    *,
    title: str = "measuring",
) -> None:
    """Share photos among processes, this one among them; the figures are those of one process.

    Args:
        measure: does the work; it is sent to the other processes.
        loaded: what it measures with, for this process.
        load: loads the same in the others, to which it is sent.
        source: the benchmark.
        store: where what is measured of each photo is kept.
        items: numbers of photos.
        workers: processes.
        title: of the progress that is shown.
    """
    workers = max(1, min(workers, len(items)))
    here = track(items[::workers], title, console=Console(stderr=True), transient=True)
    if workers == 1:
        return measure(loaded, source, store, here)
    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    with ProcessPoolExecutor(workers - 1, mp_context=get_context("spawn")) as pool:
        there = partial(_measure_there, measure, load, source.folder, store.folder, store.run, share)
        others = [pool.submit(there, items[i::workers]) for i in range(1, workers)]
        torch.set_num_threads(share)
        try:
            measure(loaded, source, store, here)
        finally:
            torch.set_num_threads(threads)
        for other in others:
            other.result()


def _measure_there(
    measure: Measure[Loaded],
    load: Callable[[], Loaded],
    benchmark: Path,
    folder: Path,
    run: Mapping[str, Any],
    threads: int,
    items: Sequence[int],
) -> None:
    """Measure in another process."""
    torch.set_num_threads(threads)
    measure(load(), read_benchmark(benchmark), Store(folder, run), items)


@contextmanager
def open_store(run: Mapping[str, Any], work: Path | None, json: Path | None) -> Iterator[Store]:
    """Open the folder of a measurement, which is kept for the next try if this one fails.

    `work` stays afterwards; without it a folder beside the report (or a temporary one) is removed once all is done. The
    place of a temporary one, and how to go on from it, is printed when the measurement fails.

    Args:
        run: what the figures depend on.
        work: the folder.
        json: the report.

    Raises:
        InputError: the folder is another run's, or the report cannot be written there.
    """
    if json is not None:
        check_writable(json)
    if work is not None:
        yield Store(work, run)
        return
    folder = Path(tempfile.mkdtemp(prefix="nuwa-lip-")) if json is None else json.with_name(json.name + ".work")
    store = Store(folder, run, fresh=True)
    try:
        yield store
    except BaseException:
        if json is None and any(folder.glob("*.safetensors")):
            print(f"nuwa-lip: what was measured is kept; to go on, add --work {folder}", file=sys.stderr)
        elif json is None:
            store.clear()
        raise
    store.clear()


def parse_shard(text: str | None, work: Path | None) -> tuple[int, int]:
    """Read a part of the photos: "2/3" → (1, 3), the second third; None → (0, 1), all.

    Raises:
        InputError: it is none, or there is no folder `work` that all parts share.
    """
    if text is None:
        return 0, 1
    if work is None:
        raise InputError("--shard needs --work DIR, the folder that all parts share")
    part, _, whole = text.partition("/")
    if not (part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole)):
        raise InputError(f"--shard {text!r} is not like 1/4, 2/4, 3/4 or 4/4")
    return int(part) - 1, int(whole)


def run_of(model: str, source: Benchmark, **more: Any) -> dict[str, Any]:
    """Describe what the figures of a model on a benchmark depend on, as its store notes it."""
    return {"definitions": DEFINITIONS, "weights": fingerprint(model), "benchmark_sha256": source.sha256, **more}


def fingerprint(model: str) -> str:
    """Give a text that changes when a model's files do; by size and time, because weights may be large."""
    return stamp(hub.resolve(model))
