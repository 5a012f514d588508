"""A tokenizer, or the likelihoods of a model, measured by several processes, each of which loads what it measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from nuwa_lip import hub
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.evaluation import likelihood, tokenizers
from nuwa_lip.evaluation.job import Weights, together
from nuwa_lip.evaluation.store import Store
from nuwa_lip.hub import ModelParts
from nuwa_lip.models import DFVQGAN


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


def measure_tokenizer(
    loaded: DFVQGAN,
    model: str,
    source: Benchmark,
    store: Store,
    n: int,
    workers: int,
    *,
    changes: Mapping[str, Any] | None = None,
    title: str = "measuring",
) -> None:
    """Measure the first n photos, except those that the store has already.

    Args:
        loaded: `load_tokenizer(model, changes)`, for this process.
        model, changes: for the others.
        workers: processes.
        title: of the progress that is shown.
    """

    def here(items: Sequence[int]) -> None:
        tokenizers.measure(loaded, source, Weights().networks(()), store, _shown(items, title))

    there = partial(_tokenizer_share, model, changes, source.folder, store.folder, store.run)
    together(store.missing(n), workers, here, there)


def _tokenizer_share(
    model: str,
    changes: Mapping[str, Any] | None,
    benchmark: Path,
    folder: Path,
    run: Mapping[str, Any],
    items: Sequence[int],
) -> None:
    """In another process."""
    loaded, source = load_tokenizer(model, changes), read_benchmark(benchmark)
    tokenizers.measure(loaded, source, Weights().networks(()), Store(folder, run), items)


def measure_likelihood(
    loaded: ModelParts,
    model: str,
    source: Benchmark,
    store: Store,
    n: int,
    workers: int,
    *,
    others: int,
    seed: int = 0,
    title: str = "measuring",
) -> None:
    """Measure the first n photos, except those that the store has already.

    Args:
        loaded: the complete model, for this process.
        model: its name, for the others.
        workers: processes.
        others, seed: see `likelihood.measure`.
        title: of the progress that is shown.
    """

    def here(items: Sequence[int]) -> None:
        likelihood.measure(loaded, source, store, _shown(items, title), others=others, seed=seed)

    there = partial(_likelihood_share, model, source.folder, store.folder, store.run, others, seed)
    together(store.missing(n), workers, here, there)


def _likelihood_share(
    model: str, benchmark: Path, folder: Path, run: Mapping[str, Any], others: int, seed: int, items: Sequence[int]
) -> None:
    """In another process."""
    loaded, source = hub.load_model(model), read_benchmark(benchmark)
    likelihood.measure(loaded, source, Store(folder, run), items, others=others, seed=seed)


def _shown(items: Sequence[int], title: str) -> Iterable[int]:
    return track(items, title, console=Console(stderr=True), transient=True)
