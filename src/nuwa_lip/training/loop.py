"""The loop of every training, and what comes before it: the budget, the device and its precision.

A run is a function of its recipe: all random numbers are drawn from (seed, step, process), so that a run that
is interrupted and resumed ends with the same weights, on a CPU to the bit. A run folder holds

    recipe.json      the recipe as run; `--recipe` loads it back, `--resume` follows it
    metrics.jsonl    one line every `log_every` steps; TensorBoard gets the same figures, and the sheets
    sheets/          samples drawn with the averaged weights
    checkpoints/     step-N/ with safetensors and state.json, written under a temporary name and renamed
    model/           a model folder with the averaged weights of the last checkpoint
"""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch.optim import Optimizer

from nuwa_lip.errors import InputError, Preempted
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.schedule import Schedule
from nuwa_lip.training.sharding import is_sharded
from nuwa_lip.training.signals import hold_signals
from nuwa_lip.training.stage import Stage

REHEARSAL = 4
"""Number of steps that are timed for a budget; the first of them does not count."""
MOST_ROLLBACKS = 3
"""How often a run goes back to one checkpoint."""
RESERVE = 0.06
"""Share of a budget that is kept for checkpoints, sheets and a busy machine, which the timed steps do not show."""


class Diverged(FloatingPointError):
    """A figure is NaN or infinite.

    Args:
        step: steps done.
        text: the message.
    """

    def __init__(self, step: int, text: str) -> None:
        super().__init__(text)
        self.step = step


def train(
    stage: Stage,
    schedule: Schedule,
    run: RunFolder,
    accelerator: Accelerator,
    resume: bool,
    validate: Callable[[Stage], dict[str, float]] | None = None,
    *,
    skip_damaged: bool = False,
    on_nan: Literal["stop", "rollback"] = "stop",
) -> None:
    """Train a stage to the end of its schedule; Ctrl-C and SIGTERM stop it after a last checkpoint.

    Args:
        stage: model, optimizer and data of the training.
        schedule: number of steps, learning rate, and how often to log and save.
        run: the run folder.
        accelerator: device, precision and processes.
        resume: go on from the last checkpoint.
        validate: figures of photos that are held out, which are asked for with every sheet.
        skip_damaged: go on from the newest checkpoint that is whole; several processes always do.
        on_nan: what to do if a figure is NaN or infinite: stop, or go back to the last checkpoint and leave out the
            batches since then.

    Raises:
        KeyboardInterrupt: the training was stopped, after its checkpoint was written; `Preempted` by SIGTERM.
        FloatingPointError: a figure is NaN or infinite.
        InputError: the last checkpoint does not fit.
    """
    if resume and (skip_damaged or accelerator.num_processes > 1):
        if accelerator.is_main_process:
            run.set_aside_damaged()
        accelerator.wait_for_everyone()
    first = run.restore(stage) if resume else 0
    tries: dict[int, int] = {}
    while True:
        try:
            return _train_from(first, stage, schedule, run, accelerator, validate)
        except Diverged as error:
            accelerator.wait_for_everyone()
            left_out = getattr(stage, "skipped", 0)
            first = run.restore(stage) if on_nan == "rollback" else 0
            tries[first] = tries.get(first, 0) + 1
            if not first or tries[first] > MOST_ROLLBACKS:
                raise
            stage.skipped = left_out + error.step - first
            run.say(f"{error}; back to step {first}, and past {error.step - first} batches")


def _train_from(
    first: int,
    stage: Stage,
    schedule: Schedule,
    run: RunFolder,
    accelerator: Accelerator,
    validate: Callable[[Stage], dict[str, float]] | None,
) -> None:
    """Take the steps from `first` on."""
    batches, sharded = stage.batches(first), is_sharded(stage.modules)
    with run.logging(schedule.steps, first) as log, hold_signals() as stopped:
        waited, since = 0.0, time.perf_counter()
        for step in range(first, schedule.steps):
            rate = schedule.learning_rate_at(step)
            set_learning_rate(stage.optimizers, rate)
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            figures = stage.step(step, batch)
            done = step + 1
            # asked once: a signal that comes during what follows waits for the end of the next step
            number = stopped()
            stopping = done < schedule.steps and _any_process(accelerator, bool(number))
            last = done == schedule.steps or stopping
            saving = done % schedule.checkpoint_every == 0 or last
            logging = done % schedule.log_every == 0 or last
            drawing = done % schedule.sheet_every == 0 or last
            held_out = validate(stage) if validate and drawing and not stopping else {}
            if logging or saving or held_out:
                values = {name: float(value) for name, value in figures.items()}
                _check_finite(done, values)
            if logging or held_out:
                waiting = waited / (time.perf_counter() - since)
                log(done, {"learning_rate": rate, **values, **held_out, "waiting": waiting})
                waited, since = 0.0, time.perf_counter()
            if saving and (sharded or accelerator.is_main_process):
                run.checkpoint(done, stage)
            if sharded and (saving or drawing):
                stage.average.collect()
            if accelerator.is_main_process:
                if saving:
                    stage.export(run.model)
                if drawing:
                    run.write_sheet(done, stage.sheet())
            accelerator.wait_for_everyone()
            if stopping:
                raise Preempted if _any_process(accelerator, number == signal.SIGTERM) else KeyboardInterrupt
        if first >= schedule.steps:  # it may have failed after the last checkpoint
            if sharded:
                stage.average.collect()
            if accelerator.is_main_process:
                stage.export(run.model)


def _any_process(accelerator: Accelerator, mine: bool) -> bool:
    """Tell whether it holds for any process, so that all of them do the same."""
    if accelerator.num_processes == 1:
        return mine
    return bool(accelerator.gather(torch.tensor([mine], device=accelerator.device)).any())


def _check_finite(step: int, figures: Mapping[str, float]) -> None:
    """Stop a diverged run before it replaces its good checkpoints.

    Raises:
        FloatingPointError: a figure is NaN or infinite.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise Diverged(
                step,
                f"{name} is {value} after step {step}; the checkpoints are from before: "
                "start again with a lower --schedule.learning-rate",
            )


def steps_within(
    minutes: float,
    schedule: Schedule,
    build: Callable[[Schedule], Stage],
    later: float | None,
    began: float | None = None,
) -> int:
    """Find how many steps fit a budget, by timing a few steps of a stage that is then discarded.

    Args:
        minutes: the whole budget in minutes, these timed steps included.
        schedule: the schedule to fit to the budget.
        build: makes the stage from a schedule.
        later: share of the steps after which a step takes longer (the adversary's start); None: never.
        began: `time.perf_counter()` at the start of the budget; None: now.

    Returns:
        The number of steps, 1 or more.
    """
    began = time.perf_counter() if began is None else began
    cheap = _seconds_per_step(build(dataclasses.replace(schedule, steps=10**9)))
    dear = cheap if later is None else _seconds_per_step(build(dataclasses.replace(schedule, steps=1)), at=1)
    share = 1.0 if later is None else later
    left = minutes * 60 * (1 - RESERVE) - (time.perf_counter() - began)
    return max(1, int(left / (share * cheap + (1 - share) * dear)))


def _seconds_per_step(stage: Stage, at: int = 0) -> float:
    batches, times = stage.batches(0), []
    for _ in range(REHEARSAL):
        start = time.perf_counter()
        figures = stage.step(at, next(batches))
        for value in figures.values():
            float(value)  # waits for the device
        times.append(time.perf_counter() - start)
    return sum(times[1:]) / len(times[1:])


def set_learning_rate(optimizers: Mapping[str, Optimizer], rate: float) -> None:
    """Set every parameter group's learning rate: the rate of this step times the group's `scale`."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)


def make_accelerator(schedule: Schedule, patience: float = 30) -> Accelerator:
    """Choose device, precision and processes.

    Args:
        schedule: precision and size of a batch.
        patience: minutes that processes wait for one another.

    Raises:
        InputError: the batch cannot be split evenly among processes and parts.
    """
    no_float64 = torch.backends.mps.is_available()  # on Apple's GPU, which accelerate would choose; orders are in it
    # without an accelerator it must be told, or each of several processes would think itself alone
    cpu = no_float64 or not torch.accelerator.is_available()
    waiting = InitProcessGroupKwargs(timeout=timedelta(minutes=patience))
    accelerator = Accelerator(cpu=cpu, mixed_precision=_mixed_precision(schedule), kwargs_handlers=[waiting])
    parts = schedule.accumulate * accelerator.num_processes
    if schedule.batch_size % parts:
        raise InputError(
            f"batch_size {schedule.batch_size} cannot be split evenly into {schedule.accumulate} parts on each "
            f"of {accelerator.num_processes} processes: take a multiple of {parts}"
        )
    return accelerator


def _mixed_precision(schedule: Schedule) -> str:
    """Name the schedule's precision as accelerate does."""
    precision = schedule.precision if schedule.precision != "auto" else ("bf16" if bf16_is_fast() else "no")
    return "no" if precision == "fp32" else precision


def bf16_is_fast() -> bool:
    """Tell whether this machine computes faster in bf16 than in fp32.

    A CPU needs instructions for bf16, AMX's tiles or AVX-512's. With them a convolution's forward and backward
    pass run 2 to 5 times as fast as in fp32; without them bf16 is emulated.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
