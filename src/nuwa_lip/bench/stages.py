"""The stages of `nuwa-lip bench`, each a function from one run's sizes and limits to rows."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nuwa_lip.bench import (
    decoding,
    encoders,
    evaluation,
    inpaint,
    limits,
    loading,
    memory,
    painters,
    quality,
    training,
    whole,
)
from nuwa_lip.bench.measure import CPU, Row
from nuwa_lip.bench.sizes import MODEL, Bench, sizes_of
from nuwa_lip.errors import InputError, first_line

STAGES: dict[str, Callable[[Bench], list[Row]]] = {
    "limits": lambda bench: bench.limits.rows(),
    "tokenizer": encoders.measure_tokenizer,
    "encoders": encoders.measure_encoders,
    "step": decoding.measure_steps,
    "image": whole.measure_images,
    "inpaint": inpaint.measure_commands,
    "memory": memory.measure_memory,
    "painters": painters.measure_painters,
    "quality": quality.measure_quality,
    "training": training.measure_training,
    "data": loading.measure_loading,
    "evaluation": evaluation.measure_evaluation,
}
CPU_STAGES = ("inpaint", "painters", "data", "evaluation")


def choose(names: str) -> list[str]:
    """Read the names of stages with commas between, and give them in the order in which they run.

    Raises:
        InputError: there is no such stage.
    """
    wanted = list(STAGES) if names == "all" else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in STAGES]
    if unknown:
        raise InputError(f"--stages names {unknown[0]!r}; there are: {', '.join(STAGES)}")
    return [name for name in STAGES if name in wanted]


def settings(small: bool, device: torch.device = CPU) -> dict[str, Any]:
    """Say for the report what a run's figures depend on beside the machine."""
    sizes = dataclasses.asdict(sizes_of(small, device))
    if device.type == "cpu":
        del sizes["wide_mps2s"]  # which is for a GPU
    return {"small": small, "precisions": limits.precisions(device), "sizes": sizes}


def measure_stages(
    names: Sequence[str], rounds: int, *, small: bool, device: torch.device = CPU, model: str = MODEL
) -> tuple[dict[str, list[Row]], list[str]]:
    """Measure the machine, then the stages.

    Args:
        names: of the stages.
        rounds: interleaved repeats.
        small: measure tiny sizes, to see that everything runs.
        device: the CPU, or a GPU.
        model: what the stage inpaint repaints with: a model folder, a hub id or a bundled name.

    Returns:
        rows by stage, and lines about what was skipped.
    """
    limits.settle(device)
    sizes = sizes_of(small, device)
    limit = limits.measure_limits(sizes.matrix, sizes.read_bytes, max(3, rounds), device)
    bench = Bench(sizes=sizes, limits=limit, rounds=rounds, device=device, model=model)
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
            bench.skipped.append(f"{name} failed and is left out: {type(error).__name__}: {first_line(error)}")
    return found, list(dict.fromkeys(bench.skipped))
