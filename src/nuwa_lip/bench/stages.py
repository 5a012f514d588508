"""The stages of `nuwa-lip bench`, each a function from one run's sizes and limits to rows."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

from nuwa_lip.bench import decoding, encoders, evaluation, limits, loading, memory, quality, training, whole
from nuwa_lip.bench.measure import Row
from nuwa_lip.bench.sizes import OFFICIAL, SMALL, Bench
from nuwa_lip.errors import InputError

STAGES: dict[str, Callable[[Bench], list[Row]]] = {
    "limits": lambda bench: bench.limits.rows(),
    "tokenizer": encoders.tokenizer,
    "encoders": encoders.encoders,
    "step": decoding.run,
    "image": whole.run,
    "memory": memory.run,
    "quality": quality.run,
    "training": training.run,
    "data": loading.run,
    "evaluation": evaluation.run,
}


def choose(names: str) -> list[str]:
    """Stages by their names with commas between, in the order in which they run.

    Raises:
        InputError: there is no such stage.
    """
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in STAGES]
    if unknown:
        raise InputError(f"--stages names {unknown[0]!r}; there are: {', '.join(STAGES)}")
    return [name for name in STAGES if name in wanted]


def settings(small: bool) -> dict[str, Any]:
    """What figures of one run depend on beside the machine, for the report."""
    sizes = dataclasses.asdict(SMALL if small else OFFICIAL)
    return {"small": small, "precisions": limits.precisions(), "sizes": sizes}


def run(names: Sequence[str], rounds: int, *, small: bool) -> tuple[dict[str, list[Row]], list[str]]:
    """Measure the machine, then the stages → rows by stage, and lines about what was skipped."""
    sizes = SMALL if small else OFFICIAL
    bench = Bench(sizes=sizes, limits=limits.measure(sizes.matrix, sizes.read_bytes, max(3, rounds)), rounds=rounds)
    found: dict[str, list[Row]] = {}
    for name in names:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        found[name] = STAGES[name](bench)
        gc.collect()  # models of gigabytes that refer to themselves
    return found, list(dict.fromkeys(bench.skipped))
