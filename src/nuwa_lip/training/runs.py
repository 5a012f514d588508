"""The run folder: recipe, metrics, sheets and checkpoints; a file is written completely or not at all."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from nuwa_lip.disk import (
    held,
    make_folder,
    naming,
    parse_json,
    read_text,
    regular,
    write_json,
    write_text,
    written_folder,
    written_whole,
)
from nuwa_lip.disk.tensors import check_like
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training.stage import Stage

KEPT = 2
"""Checkpoints that are kept; older ones are removed."""
WRITTEN = ("checkpoints", "sheets", "model", "tensorboard", "metrics.jsonl")
"""What a run writes beside its recipe.json."""


class RunFolder:
    """The folder that a run writes to.

    Args:
        path: the folder.
        photos: photos of one step, for the figure of photos a second.
        main: True in the process that writes; the others only read.
    """

    def __init__(self, path: Path, photos: int, main: bool = True) -> None:
        self.path, self.photos, self.main = path, photos, main
        self._made = False
        self._board: Any = None

    @property
    def model(self) -> Path:
        """The model folder."""
        return self.path / "model"

    def check(self, overwrite: bool) -> None:
        """Check before the work that a new run can be written.

        Args:
            overwrite: allow to replace a run that is there.

        Raises:
            InputError: there is a run and `overwrite` is False, the folder holds something else, or it cannot be
                written.
        """
        if (self.path / "recipe.json").exists():
            if not overwrite:
                raise InputError(
                    f"{self.path} holds a run: give --resume to go on with it, or --overwrite to replace it"
                )
        elif others := [name for name in WRITTEN if (self.path / name).exists()]:
            raise InputError(f"{self.path / others[0]} exists and is of no run: name another folder")
        self._made = not self.path.exists()
        make_folder(self.path)

    def abandon(self) -> None:
        """Remove the folder that `check` has made, if nothing was written into it."""
        if self._made and self.main:
            with suppress(OSError):  # it is not empty
                self.path.rmdir()

    def begin(self, recipe: dict[str, Any]) -> None:
        """Start a new run in place of what is there."""
        if not self.main:
            return
        for name in WRITTEN:
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)
            else:
                (self.path / name).unlink(missing_ok=True)
        write_json(self.path / "recipe.json", recipe)

    def lengthen(self, recipe: dict[str, Any]) -> None:
        """Write the recipe of a run that goes on for longer than it was to."""
        if self.main:
            write_json(self.path / "recipe.json", recipe)

    def checkpoints(self) -> list[Path]:
        """List the checkpoints' folders, oldest first."""
        found = [p for p in (self.path / "checkpoints").glob("step-*") if p.name[5:].isdigit()]
        return sorted(found, key=lambda p: int(p.name[5:]))

    def checkpoint(self, step: int, stage: Stage) -> None:
        """Write the state after `step` steps. The folder appears when it is complete; then old ones are removed."""
        folder = self.path / "checkpoints" / f"step-{step}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".step-*.part"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with written_folder(folder) as part:
            for name, module in stage.modules.items():
                _save(module.state_dict(), part / f"{name}.safetensors")
            for name, optimizer in stage.optimizers.items():
                _save(_flatten(optimizer), part / f"{name}.optimizer.safetensors")
            _save(stage.buffers, part / "buffers.safetensors")
            if stage.tokenizer is not None:
                stage.tokenizer.save(part / "tokenizer.json")
            write_json(part / "state.json", {"step": step})
        for old in self.checkpoints()[:-KEPT]:
            shutil.rmtree(old)

    def restore(self, stage: Stage) -> int:
        """Load the last checkpoint into a stage.

        Returns:
            The number of steps done; 0 if there is no checkpoint.

        Raises:
            InputError: the checkpoint is damaged or does not fit the stage.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            return 0
        folder = checkpoints[-1]
        try:
            step = _step_done(folder)
            for name, module in stage.modules.items():
                state = load_file(regular(folder / f"{name}.safetensors"))
                check_like(state, module.state_dict())
                module.load_state_dict(state)
            for name, optimizer in stage.optimizers.items():
                _unflatten(optimizer, load_file(regular(folder / f"{name}.optimizer.safetensors")), step)
            buffers = load_file(regular(folder / "buffers.safetensors"))
            check_like(buffers, stage.buffers)
            for name, value in buffers.items():
                stage.buffers[name].copy_(value)
            if stage.tokenizer is not None:
                stage.tokenizer = CaptionTokenizer.from_file(folder / "tokenizer.json")
            return step
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
            mend = "if it is damaged, remove it to go on from the one before"
            raise InputError(f"cannot resume from {folder}: {first_line(error)}; {mend}") from error

    def write_sheet(self, step: int, sheet: Image.Image) -> None:
        """Write the sheet of samples of a step."""
        path = self.path / "sheets" / f"step-{step:07}.png"
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as part:
            sheet.save(part, format="PNG")
        if self._board:
            self._board.add_image("sheet", np.asarray(sheet.convert("RGB")), step, dataformats="HWC")

    @contextmanager
    def logging(self, steps: int, first: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """Open progress bar, metrics.jsonl and TensorBoard; give a function log(steps done, figures) for all three."""
        if not self.main:
            yield lambda step, figures: None
            return
        with held(self.path):
            yield from self._logging(steps, first)

    def _logging(self, steps: int, first: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
        board = self._board = _tensorboard(self.path / "tensorboard", first)
        before = self._forget_after(first)
        began = last_time = time.perf_counter()
        last_step, file = first, self.path / "metrics.jsonl"
        with file.open("a", encoding="utf-8") as lines, _progress() as bar:
            task = bar.add_task("training", total=steps, completed=first, figures="")

            def log(step: int, figures: dict[str, float]) -> None:
                nonlocal last_time, last_step
                now = time.perf_counter()
                figures["images_per_second"] = (step - last_step) * self.photos / (now - last_time)
                last_time, last_step = now, step
                figures["hours"] = before + (now - began) // 36 / 100
                rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
                with naming(file):
                    lines.write(json.dumps({"step": step, **rounded}) + "\n")
                    lines.flush()
                for name, value in figures.items() if board else ():
                    board.add_scalar(name, value, step)
                shown = [n for n in figures if n not in ("learning_rate", "hours")]
                text = "  ".join(f"{name.replace('_per_', '/')} {figures[name]:.3g}" for name in shown)
                bar.update(task, completed=step, figures=text)

            try:
                yield log
            finally:
                self._board = None
                if board:
                    board.close()

    def _forget_after(self, step: int) -> float:
        """Drop the metrics of steps that will run again → the hours that the others took."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return 0.0
        lines = read_text(path, errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        write_text(path, "".join(line + "\n" for line in kept))
        hours = parse_json(kept[-1]).get("hours", 0.0) if kept else 0.0
        return float(hours) if isinstance(hours, int | float) else 0.0


@contextmanager
def hold_signals() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM wait for the end of a step; give a function that tells whether one came.

    A second signal stops at once; the last checkpoint is complete in any case.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
    )


def _tensorboard(path: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an extra: metrics.jsonl holds the same figures
        return None
    return SummaryWriter(str(path), purge_step=first + 1 if first else None)


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut short by a crash
        return float("inf")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:  # as of a full disk
        raise OSError(f"cannot write {path.name}: {first_line(error)}") from error


def _flatten(optimizer: Optimizer) -> dict[str, Tensor]:
    """Turn an optimizer's state into tensors by "parameter.name"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def _step_done(folder: Path) -> int:
    """The number of steps in a checkpoint's state.json, which its folder's name has, too."""
    step = parse_json(read_text(folder / "state.json"))["step"]
    if type(step) is not int or folder.name != f"step-{step}":
        raise ValueError(f"state.json says step {step!r:.40}")
    return step


def _check_moments(optimizer: Optimizer, tensors: dict[str, Tensor], most: int) -> None:
    """Check an optimizer's state before it has it: the fused one writes past moments of another size.

    A parameter has all of its moments, or none as long as it has learned nothing.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    begun = {key.split(".", 1)[0] for key in tensors}
    expected: dict[str, Tensor] = {}
    for index, parameter in enumerate(parameters):
        if str(index) in begun:
            expected |= {f"{index}.{name}": parameter.detach() for name in ("exp_avg", "exp_avg_sq")}
            expected[f"{index}.step"] = torch.empty(())
    check_like(tensors, expected)
    for name, value in tensors.items():
        if name.endswith(".step") and not 1 <= value.item() <= most:
            raise ValueError(f"{name} is {value.item()}; it must be 1 to {most}")
        if name.endswith("_sq") and value.numel() and value.min() < 0:
            raise ValueError(f"{name} is negative")


def _unflatten(optimizer: Optimizer, tensors: dict[str, Tensor], step: int) -> None:
    _check_moments(optimizer, tensors, step)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # the fused optimizer runs through memory in order, so moments must have their parameter's memory layout
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if value.shape == parameter.shape:
                    like = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    optimizer.state[parameter][name] = like.copy_(value)
