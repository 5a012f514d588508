"""`nuwa-lip evaluate images BENCH --cluster`: the photos by many processes on Ray Data, one for each device.

Each photo is a row, which is its number on the way there and what was measured of it on the way back. This process
alone writes to the store, so that machines need to share only what is read: the benchmark, the model and finished
results.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from safetensors.numpy import load, save

from nuwa_lip.commands.on_ray import on_ray, through_actors
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.images import Observer, unmeasured
from nuwa_lip.evaluation.job import Job
from nuwa_lip.evaluation.store import Store


class Observers:
    """Measures photos in a process of its own.

    Args:
        job: what to measure.
        folder: in which the command was given.
    """

    def __init__(self, job: Job, folder: str) -> None:
        with suppress(OSError):  # another machine may have no such folder
            os.chdir(folder)  # for names that are relative to it
        self.job = job
        self.observer: Observer | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Measure the photo of a batch of one → its arrays as safetensors, or why there are none."""
        index, row, error = int(batch["index"][0]), b"", ""
        try:
            row = save({name: np.ascontiguousarray(value) for name, value in self.measure(index).items()})
        except InputError as problem:
            error = str(problem)
        # as objects, for NumPy's own bytes lose zeros at their ends
        return {"index": [index], "row": np.array([row], dtype=object), "error": [error]}

    def measure(self, index: int) -> dict[str, np.ndarray]:
        """Measure one photo; the first one loads the model."""
        if self.observer is None:
            self.source = read_benchmark(self.job.benchmark)
            networks = self.job.weights.networks(self.job.extras)
            self.observer = Observer(self.job.repaints(self.source), networks, self.job.extras)
        return self.observer.row(self.source[index], self.job.sources())


def measure_on_cluster(job: Job, source: Benchmark, store: Store, items: Iterable[int]) -> None:
    """Measure photos by the processes of a Ray cluster; the figures are those of one process.

    Args:
        job: what to measure.
        source: the benchmark.
        store: where what is measured of each photo is kept; those that it has already are left out.
        items: numbers of photos.

    Raises:
        InputError: Ray cannot be used, or a photo cannot be measured; those before it stay in the store.
    """
    rows = [{"index": index} for index in unmeasured(items, source, store, job.names(), job.sources())]
    if not rows:
        return
    with on_ray() as ray:
        done = through_actors(ray, rows, Observers, (job, os.getcwd()), "cpu")  # where evaluation runs
        for row in track(done, "measuring", len(rows), console=Console(stderr=True), transient=True):
            if row["error"]:
                raise InputError(row["error"])
            store.save(row["index"], load(row["row"]))
