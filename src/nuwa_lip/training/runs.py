"""The run folder: recipe, metrics, sheets and checkpoints; a file is written completely or not at all."""

import hashlib
import json
import shutil
import time
import warnings
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
from nuwa_lip.training import sharding
from nuwa_lip.training.moments import flatten, unflatten
from nuwa_lip.training.sharding import is_sharded
from nuwa_lip.training.signals import hold_signals  # noqa: F401  # for those who look for it here
from nuwa_lip.training.stage import Stage
from nuwa_lip.training.watching import machine_figures, open_wandb

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
        wandb: project of Weights & Biases that gets the figures too; None: none.
        flops: of a sample, forward and backward, for the share of the peak that is reached; 0: not known.
        peak: FLOP/s of all devices together; 0: not known.
    """

    def __init__(
        self,
        path: Path,
        photos: int,
        main: bool = True,
        *,
        wandb: str | None = None,
        flops: float = 0,
        peak: float = 0,
    ) -> None:
        self.path, self.photos, self.main = path, photos, main
        self.wandb, self.flops, self.peak = wandb, flops, peak
        self.last: dict[str, float] = {}
        """The figures that were logged last."""
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

    def say(self, line: str) -> None:
        """Warn of what has happened, once for all processes."""
        if self.main:
            warnings.warn(line, stacklevel=2)

    def checkpoints(self) -> list[Path]:
        """List the checkpoints' folders, oldest first."""
        found = [p for p in (self.path / "checkpoints").glob("step-*") if p.name[5:].isdigit()]
        return sorted(found, key=lambda p: int(p.name[5:]))

    def checkpoint(self, step: int, stage: Stage) -> None:
        """Write the state after `step` steps. The folder appears when it is complete; then old ones are removed."""
        folder = self.path / "checkpoints" / f"step-{step}"
        if self.main:
            folder.parent.mkdir(parents=True, exist_ok=True)
            for left in folder.parent.glob(".step-*.part"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        if is_sharded(stage.modules):
            self._checkpoint_together(folder, step, stage)
        else:
            with written_folder(folder) as part:
                for name, module in stage.modules.items():
                    _save(module.state_dict(), part / f"{name}.safetensors")
                for name, optimizer in stage.optimizers.items():
                    _save(flatten(optimizer), part / f"{name}.optimizer.safetensors")
                _finish(part, step, stage)
        for old in self.checkpoints()[:-KEPT] if self.main else ():
            shutil.rmtree(old)

    def _checkpoint_together(self, folder: Path, step: int, stage: Stage) -> None:
        """Write a checkpoint of which each process has a part, under a name that all of them know."""
        part = folder.with_name(f".{folder.name}.part")
        if self.main:
            part.mkdir()
        torch.distributed.barrier()
        sharding.save(part / sharding.FOLDER, sharding.state_of(stage.raw, stage.average, stage.optimizer))
        if self.main:
            with naming(folder):
                _finish(part, step, stage)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        torch.distributed.barrier()

    def set_aside_damaged(self) -> None:
        """Give checkpoints another name that are newer than the newest whole one, each with a warning.

        Raises:
            InputError: there are some, and none of them is whole.
        """
        damaged: dict[Path, str] = {}
        for folder in reversed(self.checkpoints()):
            reason = what_is_damaged(folder)
            if reason is None:
                break
            damaged[folder] = reason
        else:
            if damaged:
                folder, reason = next(iter(damaged.items()))
                raise InputError(f"no checkpoint in {folder.parent} is whole ({folder.name}: {reason}): start anew")
        for folder, reason in damaged.items():
            aside = folder.with_name(f"damaged-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            warnings.warn(f"{folder} is damaged ({reason}) and now {aside.name}; the one before is taken", stacklevel=2)

    def restore(self, stage: Stage) -> int:
        """Load the last checkpoint into a stage; all processes must call it.

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
            step, stage.skipped = _progress_of(folder)
            if (folder / sharding.FOLDER).is_dir():
                sharding.restore(folder / sharding.FOLDER, stage.raw, stage.average, stage.optimizer)
            else:
                self._restore_whole(folder, step, stage)
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

    def _restore_whole(self, folder: Path, step: int, stage: Stage) -> None:
        """Load what one process has written, each process all of it."""
        states = {name: module.state_dict() for name, module in stage.modules.items()}
        if is_sharded(stage.modules):
            states["average"] = stage.average.values
        for name, targets in states.items():
            state = load_file(regular(folder / f"{name}.safetensors"))
            check_like(state, targets)
            sharding.put(targets, state)
        for name, optimizer in stage.optimizers.items():
            unflatten(optimizer, load_file(regular(folder / f"{name}.optimizer.safetensors")), step)

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
        online = open_wandb(self.wandb, self.path) if self.wandb else None
        before = self._forget_after(first)
        began = last_time = time.perf_counter()
        last_step, file = first, self.path / "metrics.jsonl"
        with file.open("a", encoding="utf-8") as lines, _progress() as bar:
            task = bar.add_task("training", total=steps, completed=first, figures="")

            def log(step: int, figures: dict[str, float]) -> None:
                nonlocal last_time, last_step
                now = time.perf_counter()
                seconds = (now - last_time) / max(1, step - last_step)
                rate = figures["images_per_second"] = (step - last_step) * self.photos / (now - last_time)
                machine = machine_figures(rate, self.flops, self.peak)
                last_time, last_step = now, step
                figures["hours"] = before + (now - began) // 36 / 100
                figures |= machine
                self.last = figures
                left = {"hours_left": (steps - step) * seconds / 3600}
                rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
                with naming(file):
                    lines.write(json.dumps({"step": step, **rounded}) + "\n")
                    lines.flush()
                for name, value in {**figures, **left}.items() if board else ():
                    board.add_scalar(name, value, step)
                if online is not None:
                    online.log({**figures, **left}, step=step)
                shown = [n for n in figures if n not in ("learning_rate", "hours", "memory_gb", "waiting")]
                text = "  ".join(f"{name.replace('_per_', '/')} {figures[name]:.3g}" for name in shown)
                bar.update(task, completed=step, figures=text)

            try:
                yield log
            finally:
                self._board = None
                if board:
                    board.close()
                if online is not None:
                    online.finish()

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


def _finish(part: Path, step: int, stage: Stage) -> None:
    """Write what a checkpoint holds beside weights and moments, and at last the hashes of all of it."""
    _save(stage.buffers, part / "buffers.safetensors")
    if stage.tokenizer is not None:
        stage.tokenizer.save(part / "tokenizer.json")
    skipped = getattr(stage, "skipped", 0)
    state = {"step": step} | ({"skipped": skipped} if skipped else {})
    write_json(part / "state.json", {**state, "sha256": {name: sha256(part / name) for name in files_of(part)}})


def files_of(folder: Path) -> list[str]:
    """List the files of a checkpoint, but state.json, by their paths within it."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "state.json")


def sha256(path: Path) -> str:
    """Compute the hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def what_is_damaged(folder: Path) -> str | None:
    """Name what of a checkpoint is not as it was written; None if all is."""
    try:
        hashes = parse_json(read_text(folder / "state.json")).get("sha256", {})
        found = set(files_of(folder))
        missing = sorted(set(hashes) - found)
        if missing:
            return f"{missing[0]} is missing"
        return next((f"{name} has changed" for name in hashes if sha256(folder / name) != hashes[name]), None)
    except (OSError, ValueError, AttributeError) as error:
        return f"state.json: {first_line(error)}"


def _progress_of(folder: Path) -> tuple[int, int]:
    """The number of steps in a checkpoint's state.json, which its folder's name has, too, and of batches skipped."""
    state = parse_json(read_text(folder / "state.json"))
    step, skipped = state["step"], state.get("skipped", 0)
    if type(step) is not int or folder.name != f"step-{step}" or type(skipped) is not int:
        raise ValueError(f"state.json says step {step!r:.40}")
    return step, skipped
