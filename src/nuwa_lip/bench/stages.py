"""The stages of `nuwa-lip bench`, each a function from one run's sizes and limits to rows."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nuwa_lip.bench import decoding, encoders, evaluation, limits, loading, memory, quality, training, whole
from nuwa_lip.bench.measure import CPU, Row
from nuwa_lip.bench.sizes import OFFICIAL, SMALL, Bench, Sizes
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
CPU_STAGES = ("data", "evaluation")
GPU_BATCH = 16
"""Photos of a training step; a few would leave a GPU waiting."""


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


def sizes_of(small: bool, device: torch.device) -> Sizes:
    """What is measured."""
    if small:
        return SMALL
    return OFFICIAL if device.type == "cpu" else dataclasses.replace(OFFICIAL, training_batch=GPU_BATCH)


def settings(small: bool, device: torch.device = CPU) -> dict[str, Any]:
    """What figures of one run depend on beside the machine, for the report."""
    sizes = dataclasses.asdict(sizes_of(small, device))
    if device.type == "cpu":
        del sizes["wide_mps2s"]  # which is for a GPU
    return {"small": small, "precisions": limits.precisions(device), "sizes": sizes}


def run(
    names: Sequence[str], rounds: int, *, small: bool, device: torch.device = CPU
) -> tuple[dict[str, list[Row]], list[str]]:
    """Measure the machine, then the stages → rows by stage, and lines about what was skipped."""
    limits.settle(device)
    sizes = sizes_of(small, device)
    limit = limits.measure(sizes.matrix, sizes.read_bytes, max(3, rounds), device)
    bench = Bench(sizes=sizes, limits=limit, rounds=rounds, device=device)
    found: dict[str, list[Row]] = {}
    for name in names:
        if bench.gpu and name in CPU_STAGES:
            bench.skipped.append(f"{name}: it is the CPU's work; measure it without --device")
            continue
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        try:
            found[name] = STAGES[name](bench)
            bench.release()
        except RuntimeError as error:
            if not bench.gpu:
                raise
            # it may be too small for a stage, and time on it too dear to lose the others
            traceback.print_exc()
            reason = (str(error).splitlines() or [""])[0]
            bench.skipped.append(f"{name} failed and is left out: {type(error).__name__}: {reason}")
    return found, list(dict.fromkeys(bench.skipped))
