"""The loop: its order of events, interruption, budgets, processes and precision."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn

from nuwa_lip.errors import InputError, Preempted
from nuwa_lip.training import loop
from nuwa_lip.training.loop import bf16_is_fast, make_accelerator, steps_within, train
from nuwa_lip.training.recipes import Schedule
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.stage import make_optimizer
from tests.small_runs import make_cpu_accelerator, schedule


class Recorder:
    """A stage that notes what the loop asks of it."""

    def __init__(self, on_step: Callable[[int], Any] = lambda step: None) -> None:
        self.events: list[str] = []
        self.rates: list[float] = []
        self.on_step = on_step
        model = nn.Linear(2, 1)
        self.modules: dict[str, nn.Module] = {"model": model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"model": make_optimizer(model, schedule())}
        self.buffers: dict[str, Tensor] = {}
        self.tokenizer = None

    def batches(self, first_step: int) -> Iterator[int]:
        step = first_step
        while True:
            yield step
            step += 1

    def step(self, step: int, batch: int) -> dict[str, Tensor]:
        assert step == batch
        self.events.append(f"step {step}")
        self.rates.append(self.optimizers["model"].param_groups[0]["lr"])
        value = self.on_step(step)
        return {"loss": torch.tensor(float(step) if value is None else value)}

    def sheet(self) -> Image.Image:
        self.events.append("sheet")
        return Image.new("RGB", (2, 2))

    def export(self, folder: Path) -> None:
        run = RunFolder(folder.parent, 1)
        self.events.append(f"export after {', '.join(p.name for p in run.checkpoints()[-1:])}")


def go(stage: Recorder, plan: Schedule, folder: Path, resume: bool = False) -> list[dict[str, float]]:
    """Train → the lines of metrics.jsonl."""
    try:
        train(stage, plan, RunFolder(folder, plan.batch_size), make_cpu_accelerator(), resume)
    finally:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_order_of_events(tmp_path: Path) -> None:
    stage, plan = Recorder(), schedule(steps=7, log_every=3, sheet_every=4, checkpoint_every=3)
    metrics = go(stage, plan, tmp_path)
    assert stage.events == [
        *("step 0", "step 1", "step 2", "export after step-3"),
        *("step 3", "sheet", "step 4", "step 5", "export after step-6"),
        *("step 6", "export after step-7", "sheet"),
    ]
    assert [line["step"] for line in metrics] == [3, 6, 7]
    assert [line["loss"] for line in metrics] == [2, 5, 6]
    assert stage.rates == [plan.learning_rate_at(step) for step in range(7)]
    assert [line["learning_rate"] for line in metrics] == pytest.approx([stage.rates[i] for i in (2, 5, 6)], rel=1e-5)
    assert all(line["images_per_second"] > 0 for line in metrics)
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["step-0000004.png", "step-0000007.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_step_and_a_checkpoint(number: int, tmp_path: Path) -> None:
    plan = schedule(steps=6, log_every=4)
    stage = Recorder(lambda step: signal.raise_signal(number) if step == 1 else None)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        go(stage, plan, tmp_path)
    assert stage.events == ["step 0", "step 1", "export after step-2", "sheet"]
    assert signal.getsignal(number) is before
    later = Recorder()
    metrics = go(later, plan, tmp_path, resume=True)
    assert later.events[0] == "step 2" and later.events.count("sheet") == 1
    assert [line["step"] for line in metrics] == [2, 4, 6]


def test_a_signal_while_saving_waits_for_the_next_checkpoint(tmp_path: Path) -> None:
    stage = Recorder()

    def sheet() -> Image.Image:
        signal.raise_signal(signal.SIGINT)
        return Image.new("RGB", (2, 2))

    stage.sheet = sheet  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        go(stage, schedule(steps=9, sheet_every=3), tmp_path)
    assert [p.name for p in RunFolder(tmp_path, 1).checkpoints()] == ["step-4"]


def test_a_signal_in_the_last_step_changes_nothing(tmp_path: Path) -> None:
    stage = Recorder(lambda step: signal.raise_signal(signal.SIGINT) if step == 2 else None)
    go(stage, schedule(steps=3), tmp_path)
    assert stage.events[-2:] == ["export after step-3", "sheet"]


def test_a_finished_run_that_is_resumed_only_exports(tmp_path: Path) -> None:
    plan = schedule(steps=2)
    go(Recorder(), plan, tmp_path)
    again = Recorder()
    assert len(go(again, plan, tmp_path, resume=True)) == 2
    assert again.events == ["export after step-2"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_has_gone_wrong_keeps_its_good_checkpoints(value: float, tmp_path: Path) -> None:
    stage = Recorder(lambda step: value if step >= 4 else None)
    with pytest.raises(FloatingPointError, match=f"loss is {value} after step 6; .* a lower --schedule.learning-rate"):
        go(stage, schedule(steps=9, log_every=100, checkpoint_every=2), tmp_path)
    assert [p.name for p in RunFolder(tmp_path, 1).checkpoints()] == ["step-2", "step-4"]


def test_sigterm_is_told_from_ctrl_c(tmp_path: Path) -> None:
    for number, kind in ((signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)):
        stage = Recorder(lambda step, number=number: signal.raise_signal(number) if step == 1 else None)  # type: ignore[misc]
        (tmp_path / kind.__name__).mkdir()
        with pytest.raises(KeyboardInterrupt) as stopped:
            go(stage, schedule(steps=6), tmp_path / kind.__name__)
        assert type(stopped.value) is kind


class Skipping(Recorder):
    """A stage whose batch 4 makes it diverge."""

    skipped = 0

    def batches(self, first_step: int) -> Iterator[int]:
        return super().batches(first_step + self.skipped)

    def step(self, step: int, batch: int) -> dict[str, Tensor]:
        self.events.append(f"{step}:{batch}")
        return {"loss": torch.tensor(math.nan if batch == 4 else 1.0)}


def test_a_rollback_leaves_out_the_batches_since_the_checkpoint(tmp_path: Path) -> None:
    stage, plan = Skipping(), schedule(steps=7, checkpoint_every=3)
    (tmp_path / "run").mkdir()
    with pytest.warns(UserWarning, match="loss is nan after step 5; .*back to step 3, and past 2 batches"):
        train(stage, plan, RunFolder(tmp_path / "run", 4), make_cpu_accelerator(), False, on_nan="rollback")  # type: ignore[arg-type]
    steps = [event for event in stage.events if ":" in event]
    assert steps == ["0:0", "1:1", "2:2", "3:3", "4:4", "3:5", "4:6", "5:7", "6:8"]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert json.loads((tmp_path / "run/checkpoints/step-7/state.json").read_text())["skipped"] == 2


def test_a_run_that_diverges_again_and_again_stops(tmp_path: Path) -> None:
    stage = Recorder(lambda step: math.nan if step >= 4 else None)
    stage.batches = lambda first: iter(range(first, 99))  # type: ignore[method-assign]
    with pytest.warns(UserWarning), pytest.raises(FloatingPointError, match="loss is nan"):
        train(
            stage,
            schedule(steps=9, checkpoint_every=2),
            RunFolder(tmp_path, 4),
            make_cpu_accelerator(),
            False,
            on_nan="rollback",
        )  # type: ignore[arg-type]  # noqa: E501
    assert stage.events.count("step 4") == 1 + loop.MOST_ROLLBACKS


class Clock:
    """Time that passes when something is said to take time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def stage(self, built: list[int], plan: Schedule) -> Any:
        """Its first step takes 30 s; the others 2 s, or, of a plan of one step, 5 s."""
        built.append(plan.steps)
        times = iter([30] + [5 if plan.steps == 1 else 2] * 9)

        def step(at: int, batch: int) -> dict[str, Tensor]:
            assert at == (1 if plan.steps == 1 else 0)
            self.now += next(times)
            return {"loss": torch.zeros(())}

        return SimpleNamespace(batches=lambda first: iter(range(100)), step=step)


def test_a_budget_is_fitted_to_what_steps_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, built = Clock(monkeypatch), list[int]()
    plan = schedule(steps=7)

    def fit(minutes: float, later: float | None, began: float | None = None) -> int:
        return steps_within(minutes, plan, lambda plan: clock.stage(built, plan), later, began)

    # 94 % of 600 s, less 30 + 3 * 2 s of rehearsal, 2 s a step
    assert fit(10, None) == int((564 - 36) / 2) and built == [10**9]
    # less a second rehearsal of 30 + 3 * 5 s; 40 % of the steps take 2 s, the others 5 s
    assert fit(10, 0.4) == int((564 - 81) / (0.4 * 2 + 0.6 * 5)) and built == [10**9, 10**9, 1]
    # 100 s were spent before, on reading photos
    assert fit(10, None, began=clock.now - 100) == int((564 - 136) / 2)
    assert fit(0.1, None) == 1, "at least one"


@pytest.mark.parametrize(
    ("cuda", "supported", "amx", "avx512", "fast"),
    [
        (True, True, False, False, True),
        (True, False, True, True, False),  # the card counts, not the CPU
        (False, False, True, False, True),
        (False, False, False, True, True),
        (False, True, False, False, False),
    ],
)
def test_bf16_is_fast(
    cuda: bool, supported: bool, amx: bool, avx512: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert bf16_is_fast() is fast


@pytest.mark.parametrize(
    ("precision", "fast", "mixed"),
    [("auto", True, "bf16"), ("auto", False, "no"), ("fp32", True, "no"), ("bf16", False, "bf16")],
)
def test_precision(precision: Any, fast: bool, mixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(loop, "bf16_is_fast", lambda: fast)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = make_accelerator(schedule(precision=precision))
    assert accelerator.mixed_precision == mixed and accelerator.device.type == "cpu"


def test_apples_gpu_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("is_available", "is_built"):
        monkeypatch.setattr(torch.backends.mps, check, lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert make_accelerator(schedule(precision="fp32")).device.type == "cpu"


def test_a_batch_must_split_evenly_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Accelerator", lambda **_: SimpleNamespace(num_processes=3))
    plan = schedule(batch_size=12, accumulate=2, precision="fp32")
    assert make_accelerator(plan).num_processes == 3
    with pytest.raises(InputError, match="batch_size 12 cannot be split evenly into 6 parts on each of 3 processes"):
        make_accelerator(dataclasses.replace(plan, accumulate=6))


def test_any_process_that_was_stopped_stops_all() -> None:
    def process(gathered: list[bool]) -> Any:
        return SimpleNamespace(num_processes=2, device="cpu", gather=lambda mine: torch.tensor(gathered))

    assert loop._any_process(process([False, True]), False) is True
    assert loop._any_process(process([False, False]), False) is False
