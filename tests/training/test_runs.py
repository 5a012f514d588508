"""The run folder: everything is written whole or not at all, and read back to the bit."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

from nuwa_lip.disk import write_json
from nuwa_lip.errors import InputError
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training import runs
from nuwa_lip.training.runs import RunFolder, hold_signals
from nuwa_lip.training.stage import make_muon, make_optimizer
from tests.folders import contents
from tests.small_runs import schedule


class Small:
    """A stage to save: a convolution with its channels last, and an optimizer that has not begun."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        torch.manual_seed(seed)
        self.model = nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        critic = nn.Linear(2, 2)
        self.modules: dict[str, nn.Module] = {"model": self.model, "critic": critic}
        self.optimizers = {
            "model": make_optimizer(self.model, schedule()),
            "critic": make_optimizer(critic, schedule()),
        }
        self.buffers = {"idle": torch.full((5,), seed)}
        self.tokenizer: CaptionTokenizer | None = None

    def train(self, *seeds: int) -> None:
        for seed in seeds:
            x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
            self.model(x).square().sum().backward()
            self.optimizers["model"].step()
            self.optimizers["model"].zero_grad()

    def state(self) -> dict[str, Tensor]:
        return {**self.model.state_dict(), **self.buffers}


def saved(folder: Path, *steps: int) -> RunFolder:
    """A run with checkpoints after these steps."""
    run, stage = RunFolder(folder, 4), Small(seed=1)
    for step in steps:
        stage.train(step)
        run.checkpoint(step, stage)  # type: ignore[arg-type]
    return run


def restore(run: RunFolder, stage: Small) -> int:
    return run.restore(stage)  # type: ignore[arg-type]


def test_a_restored_stage_goes_on_to_the_bit(tmp_path: Path) -> None:
    run, first = RunFolder(tmp_path, 4), Small(seed=1)
    first.train(0, 1)
    run.checkpoint(2, first)  # type: ignore[arg-type]
    second = Small(seed=2)
    assert restore(run, second) == 2
    first.train(2, 3)
    second.train(2, 3)  # moments lie in memory as they did before
    assert all(torch.equal(a, b) for a, b in zip(first.state().values(), second.state().values(), strict=True))
    mine, its = (s.optimizers["model"].state_dict()["state"] for s in (first, second))
    assert mine.keys() == its.keys() and len(mine) == 2
    for index, values in mine.items():
        assert set(values) == {"step", "exp_avg", "exp_avg_sq"} and values["step"] == 4
        assert all(torch.equal(value, its[index][name]) for name, value in values.items())
    assert second.optimizers["critic"].state_dict()["state"] == {}
    assert second.optimizers["model"].param_groups[0]["lr"] == 1e-2


def test_a_checkpoint_holds_the_tokenizer(tmp_path: Path) -> None:
    run, first, second = RunFolder(tmp_path, 4), Small(), Small()
    first.tokenizer = CaptionTokenizer.train(["a red boat"] * 3, 280, 16)
    second.tokenizer = CaptionTokenizer.train(["two blue birds"] * 3, 280, 16)
    run.checkpoint(1, first)  # type: ignore[arg-type]
    restore(run, second)
    assert torch.equal(first.tokenizer("a red bird"), second.tokenizer("a red bird"))
    (tmp_path / "checkpoints/step-1/tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"cannot resume from .*step-1: there is no tokenizer file"):
        restore(run, second)


def test_nothing_to_restore(tmp_path: Path) -> None:
    stage = Small()
    assert restore(RunFolder(tmp_path, 4), stage) == 0
    (tmp_path / "checkpoints/.step-7.part").mkdir(parents=True)
    (tmp_path / "checkpoints/step-best").mkdir()
    assert restore(RunFolder(tmp_path, 4), stage) == 0


def test_old_checkpoints_go(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/.step-7.part").mkdir(parents=True)  # of a process that was killed
    run = saved(tmp_path, 8, 9, 10, 100)
    assert [p.name for p in run.checkpoints()] == ["step-10", "step-100"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == runs.KEPT == 2
    assert restore(run, Small()) == 100


@pytest.mark.parametrize("good", range(5))
def test_a_full_disk_leaves_the_last_good_checkpoint(
    good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(tmp_path, 1, 2)
    before, written = contents(tmp_path), runs.save_file
    count = iter(range(99))

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        if next(count) < good:
            return written(tensors, path)
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run.checkpoint(3, Small())  # type: ignore[arg-type]
    assert contents(tmp_path) == before and len(list((tmp_path / "checkpoints").iterdir())) == 2
    monkeypatch.setattr(runs, "save_file", written)
    assert restore(run, Small()) == 2


def test_an_interruption_while_writing_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(tmp_path, 1)
    before = contents(tmp_path)

    def interrupted(path: Path, content: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.checkpoint(2, Small())  # type: ignore[arg-type]
    assert contents(tmp_path) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", Path.unlink),
        ("model.safetensors", lambda path: path.write_bytes(b"")),
        ("model.optimizer.safetensors", cut),
        ("critic.optimizer.safetensors", Path.unlink),
        ("buffers.safetensors", cut),
        ("state.json", Path.unlink),
        ("state.json", lambda path: path.write_text("{")),
        ("state.json", lambda path: path.write_text("[]")),
        ("state.json", lambda path: path.write_text("{}")),
        ("state.json", lambda path: path.write_text('{"step": null}')),
    ],
)
def test_a_damaged_checkpoint_is_one_line(file: str, damage: Any, tmp_path: Path) -> None:
    run = saved(tmp_path, 1, 2)
    damage(tmp_path / "checkpoints/step-2" / file)
    with pytest.raises(InputError) as error:
        restore(run, Small())
    text = str(error.value)
    assert text.startswith(f"cannot resume from {tmp_path}/checkpoints/step-2: ") and "\n" not in text
    assert "remove it to go on from the one before" in text and len(text) > len(str(tmp_path)) + 100


def changed(name: str, change: Callable[[Tensor], Tensor | None]) -> Callable[[Path], None]:
    """Change one tensor of a file, or leave it out."""

    def damage(path: Path) -> None:
        tensors = load_file(path)
        value = change(tensors.pop(name))
        save_file(tensors if value is None else tensors | {name: value}, path)

    return damage


def more(path: Path) -> None:
    save_file(load_file(path) | {"9.step": torch.ones(())}, path)


MOMENTS = "model.optimizer.safetensors"


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (
            MOMENTS,
            changed("0.exp_avg", lambda t: t[:1].contiguous()),
            r"0.exp_avg is torch.float32 \[1, 3, 3, 3\]",
        ),
        (MOMENTS, changed("0.exp_avg_sq", lambda t: t.flatten()), "0.exp_avg_sq is torch.float32"),
        (MOMENTS, changed("1.exp_avg", lambda t: t.half()), "1.exp_avg is torch.float16"),
        (MOMENTS, changed("1.exp_avg", lambda t: None), "1.exp_avg is missing"),
        (MOMENTS, changed("0.exp_avg", lambda t: t.fill_(math.nan)), "0.exp_avg holds NaN or infinities"),
        (MOMENTS, changed("0.exp_avg_sq", lambda t: t.fill_(-1)), "0.exp_avg_sq is negative"),
        (MOMENTS, changed("0.step", lambda t: t.fill_(1e9)), "0.step is 1000000000.0; it must be 1 to 2"),
        (MOMENTS, changed("0.step", lambda t: t.fill_(-1)), "0.step is -1.0"),
        (MOMENTS, changed("0.step", lambda t: t.repeat(3)), r"0.step is torch.float32 \[3\]"),
        (MOMENTS, more, "9.step has no place"),
        ("model.safetensors", changed("weight", lambda t: t.fill_(math.inf)), "weight holds NaN or infinities"),
        ("model.safetensors", changed("weight", lambda t: t.int()), "weight is torch.int32"),
        ("buffers.safetensors", changed("idle", lambda t: t[:1].contiguous()), r"idle is torch.int64 \[1\]"),
        ("buffers.safetensors", changed("idle", lambda t: None), "idle is missing"),
        ("state.json", lambda path: path.write_text('{"step": 3}'), "state.json says step 3"),
        ("state.json", lambda path: path.write_text('{"step": 2.0}'), "state.json says step 2.0"),
    ],
)
def test_a_checkpoint_of_other_sizes_or_numbers_is_refused(file: str, damage: Any, says: str, tmp_path: Path) -> None:
    run = saved(tmp_path, 1, 2)
    damage(tmp_path / "checkpoints/step-2" / file)
    with pytest.raises(InputError, match=f"cannot resume from .*step-2: {says}"):
        restore(run, Small())


def test_muons_moments_are_checked(tmp_path: Path) -> None:
    def small(muon: bool = True) -> Small:
        stage = Small()
        weight = nn.Parameter(torch.ones(3, 2))
        stage.optimizers["critic"] = make_muon([weight], schedule()) if muon else AdamW([weight])
        weight.sum().backward()
        return stage

    run, first, second = RunFolder(tmp_path, 4), small(), small()
    first.optimizers["critic"].step()
    run.checkpoint(1, first)  # type: ignore[arg-type]
    assert restore(run, second) == 1
    (mine,), (its,) = (one.optimizers["critic"].state_dict()["state"].values() for one in (first, second))
    assert set(mine) == {"momentum_buffer"} and torch.equal(mine["momentum_buffer"], its["momentum_buffer"])
    with pytest.raises(InputError, match=r"cannot resume from .*step-1: 0\.exp_avg is missing"):
        restore(run, small(muon=False))
    changed("0.momentum_buffer", lambda t: t.T.contiguous())(
        tmp_path / "checkpoints/step-1/critic.optimizer.safetensors"
    )
    with pytest.raises(InputError, match=r"cannot resume from .*step-1: 0\.momentum_buffer is torch\.float32 \[2, 3\]"):
        restore(run, small())


def test_a_checkpoint_of_another_model_is_one_line(tmp_path: Path) -> None:
    run = saved(tmp_path, 1)
    with pytest.raises(InputError, match=r"cannot resume from .*step-1: .*") as error:
        restore(run, Small(width=5))
    assert "\n" not in str(error.value)


def test_a_new_run_replaces_an_old_one_only_if_asked(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1)
    for name in ("sheets", "model", "tensorboard"):
        (run.path / name).mkdir()
    (run.path / "metrics.jsonl").write_text("{}\n")
    (run.path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"run/checkpoints exists and is of no run: name another folder"):
        run.check(overwrite=True)  # there is no recipe.json: somebody else's
    write_json(run.path / "recipe.json", {"old": 1})
    with pytest.raises(InputError, match="holds a run: give --resume to go on with it, or --overwrite"):
        run.check(overwrite=False)
    run.check(overwrite=True)
    run.begin({"new": 2})
    assert contents(run.path) == {"mine.txt": b"mine", "recipe.json": b'{\n  "new": 2\n}\n'}
    assert sorted(p.name for p in run.path.iterdir()) == ["mine.txt", "recipe.json"]


def test_where_no_run_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(InputError, match=f"cannot write to {path}: "):
            RunFolder(path, 4).check(overwrite=True)
    RunFolder(tmp_path / "a/b", 4).check(overwrite=False)
    assert (tmp_path / "a/b").is_dir()


def test_metrics_go_to_a_file_and_to_tensorboard(tmp_path: Path) -> None:
    with RunFolder(tmp_path, photos=4).logging(steps=4, first=0) as log:
        log(1, {"loss": 0.123456789, "usage": 1.0})
        log(2, {"loss": 1e-9, "usage": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"], line["usage"]) for line in lines] == [(1, 0.123457, 1), (2, 1e-9, 0.5)]
    assert all(line["images_per_second"] > 0 for line in lines)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents") and b"loss" in events.read_bytes()


def test_resumed_metrics_hold_no_step_twice(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, photos=4)
    with run.logging(steps=9, first=0) as log:
        for step in (1, 2, 3, 4):
            log(step, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 5, "lo')  # the process was killed
    with run.logging(steps=9, first=2) as log:
        log(3, {"loss": 2.0})
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in found] == [(1, 1), (2, 1), (3, 2)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with RunFolder(tmp_path, photos=4).logging(steps=1, first=0) as log:
        log(1, {"loss": 1.0})
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, photos=4, main=False)
    run.begin({})
    with run.logging(steps=1, first=0) as log:
        log(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_beside_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(tmp_path, photos=4).logging(steps=2, first=0) as log:
        log(2, {"loss": 1.5, "learning_rate": 0.1})
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err and "loss 1.5" in err and "images/second" in err and "learning" not in err


def test_a_sheet_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image, path: Path, format: str) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        RunFolder(tmp_path, 4).write_sheet(12, Image.new("RGB", (3, 2)))
    assert contents(tmp_path) == {}
    monkeypatch.undo()
    RunFolder(tmp_path, 4).write_sheet(12, Image.new("RGB", (3, 2)))
    with Image.open(tmp_path / "sheets/step-0000012.png") as sheet:
        assert sheet.size == (3, 2) and sheet.format == "PNG"


def test_a_second_signal_stops_at_once() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), hold_signals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGTERM)
        assert stopped()
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_thread_has_no_signals() -> None:
    seen = []

    def work() -> None:
        with hold_signals() as stopped:
            seen.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_infinite_figures_do_not_break_the_file(tmp_path: Path) -> None:
    with RunFolder(tmp_path, photos=4).logging(steps=1, first=0) as log:
        log(1, {"gradient": math.inf})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["gradient"] == math.inf


def test_sheets_go_to_tensorboard_and_hours_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, hours = RunFolder(tmp_path, photos=4), iter(range(9))
    monkeypatch.setattr(runs, "time", SimpleNamespace(perf_counter=lambda: 3600.0 * next(hours)))
    with run.logging(steps=9, first=0) as log:
        log(1, {"loss": 1.0})
        run.write_sheet(1, Image.new("RGB", (3, 2)))
        log(2, {"loss": 1.0})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"sheet" in events.read_bytes()
    with run.logging(steps=9, first=1) as log:
        log(2, {"loss": 1.0})
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["hours"]) for line in found] == [(1, 1.0), (2, 2.0)]


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path, photos=4).logging(steps=2, first=0):
        with pytest.raises(InputError, match="another process is writing to"):
            with RunFolder(tmp_path, photos=4).logging(steps=2, first=0):
                raise AssertionError("it is being written")
    with RunFolder(tmp_path, photos=4).logging(steps=2, first=0) as log:
        log(1, {"loss": 1.0})


def test_the_newest_whole_checkpoint_is_found_when_later_ones_are_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT", 3)
    run = saved(tmp_path, 1, 2, 3)
    run.set_aside_damaged()
    assert [p.name for p in run.checkpoints()] == ["step-1", "step-2", "step-3"], "all are whole"
    cut(tmp_path / "checkpoints/step-3/model.safetensors")
    (tmp_path / "checkpoints/step-2/critic.optimizer.safetensors").unlink()
    with pytest.warns(UserWarning) as said:
        run.set_aside_damaged()
    lines = [str(one.message) for one in said]
    assert "step-3 is damaged (model.safetensors has changed)" in lines[0]
    assert "step-2 is damaged (critic.optimizer.safetensors is missing)" in lines[1]
    assert restore(run, Small()) == 1 and (tmp_path / "checkpoints/damaged-step-3").is_dir()
    cut(tmp_path / "checkpoints/step-1/state.json")
    with pytest.raises(InputError, match=r"no checkpoint in .* is whole \(step-1: state\.json: .*start anew"):
        run.set_aside_damaged()
    assert [p.name for p in run.checkpoints()] == ["step-1"], "nothing is lost"


def test_a_checkpoint_without_hashes_counts_as_whole(tmp_path: Path) -> None:
    """Earlier versions wrote none."""
    run = saved(tmp_path, 1)
    write_json(tmp_path / "checkpoints/step-1/state.json", {"step": 1})
    run.set_aside_damaged()
    assert restore(run, Small()) == 1


def test_batches_that_were_left_out_stay_so(tmp_path: Path) -> None:
    run, first, second = RunFolder(tmp_path, 4), Small(), Small()
    first.skipped = 7  # type: ignore[attr-defined]
    run.checkpoint(1, first)  # type: ignore[arg-type]
    restore(run, second)
    assert second.skipped == 7  # type: ignore[attr-defined]
