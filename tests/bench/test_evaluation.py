"""Building and evaluating benchmarks, and their bars."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.bench import evaluation
from nuwa_lip.bench.limits import Limits
from nuwa_lip.bench.measure import Child, Timing
from nuwa_lip.bench.sizes import SMALL, Bench
from nuwa_lip.data.benchmark import read_benchmark


def test_evaluation_is_held_to_its_bars_at_the_official_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measured(code: str, *args: str, workers: bool) -> Child:
        benchmark, results = read_benchmark(Path(args[2])), Path(args[4])
        for item in benchmark:
            finished = np.asarray(Image.open(results / f"{item.name}.png"))
            changed = (finished != item.image).any(-1)
            assert finished.shape == (32, 32, 3) and changed.any() and not changed[~item.mask].any()
        calls.append((len(benchmark), len(list(results.iterdir())), args[5:], workers))
        return Child(200.0 + 100 * len(calls), 1000.0 * len(calls), "")

    monkeypatch.setattr(evaluation, "child", measured)
    monkeypatch.setattr(evaluation, "timings", lambda cases, rounds, clock: dict.fromkeys(cases, Timing(0.1, 0.2)))
    limits = Limits(products={}, size=1, read=1.0)
    rows = evaluation.measure_evaluation(Bench(sizes=dataclasses.replace(SMALL, small=False), limits=limits, rounds=5))
    assert calls == [(4, 4, ("--workers", "2"), True)] * 2
    *built, time, memory = rows
    rules = ("rectangles", "block", "strokes", "border", "centre")
    assert [row.what for row in built] == [f"building a benchmark, {rule}-40-60, in a CPU second" for rule in rules]
    assert all((row.value, row.bar, row.at_least, row.missed, row.noise) == (40, 60, True, True, 0.2) for row in built)
    assert (time.value, time.bar, time.missed) == (350, 240, True)
    assert (memory.value, memory.bar, memory.missed) == (2000, 2000, False)
    small = evaluation.measure_evaluation(Bench(sizes=SMALL, limits=limits, rounds=1))
    assert not any(row.bar or row.at_least for row in small)
