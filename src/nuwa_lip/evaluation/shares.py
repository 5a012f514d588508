"""A tokenizer, or the likelihoods of a model, measured by several processes, each of which loads what it measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from nuwa_lip import hub
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.evaluation import tokenizers
from nuwa_lip.evaluation.job import Weights, together
from nuwa_lip.evaluation.store import Store
from nuwa_lip.models import DFVQGAN

Loaded = TypeVar("Loaded")


def load_tokenizer(model: str, changes: Mapping[str, Any] | None = None) -> DFVQGAN:
    """Stage 1 of a model.

    Args:
        model: bundled name, local folder or hub id.
        changes: switches of the configuration that leave the weights as they are.
    """
    loaded = hub.load_model(model, need_mps2s=False).dfvqgan
    if not changes:
        return loaded
    other = DFVQGAN(dataclasses.replace(loaded.config, **changes)).eval()
    other.load_state_dict(loaded.state_dict())
    return other


def measure_tokenizer(dfvqgan: DFVQGAN, source: Benchmark, store: Store, items: Iterable[int]) -> None:
    """`tokenizers.measure` with the usual networks, for `measure_shared`."""
    tokenizers.measure(dfvqgan, source, Weights().networks(()), store, items)


def measure_shared(
    measure: Callable[[Loaded, Benchmark, Store, Iterable[int]], None],
    loaded: Loaded,
    load: Callable[[], Loaded],
    source: Benchmark,
    store: Store,
    n: int,
    workers: int,
    *,
    title: str = "measuring",
) -> None:
    """Measure the first n photos, except those that the store has already.

    Args:
        measure: `measure_tokenizer`, or `likelihood.measure` with its options.
        loaded: what it measures, for this process.
        load: loads the same for the others, which it is sent to as `measure` is.
        workers: processes.
        title: of the progress that is shown.
    """

    def here(items: Sequence[int]) -> None:
        measure(loaded, source, store, _shown(items, title))

    there = partial(_share, measure, load, source.folder, store.folder, store.run)
    together(store.missing(n), workers, here, there)


def _share(
    measure: Callable[[Loaded, Benchmark, Store, Iterable[int]], None],
    load: Callable[[], Loaded],
    benchmark: Path,
    folder: Path,
    run: Mapping[str, Any],
    items: Sequence[int],
) -> None:
    """In another process."""
    measure(load(), read_benchmark(benchmark), Store(folder, run), items)


def _shown(items: Sequence[int], title: str) -> Iterable[int]:
    return track(items, title, console=Console(stderr=True), transient=True)
