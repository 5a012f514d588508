"""Runs of a few steps that several processes share (`tests.processes`), and what came of them."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.training.dfvqgan import DFVQGANStage
from nuwa_lip.training.loop import make_accelerator, train
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.recipes import DFVQGANRecipe, MPS2SRecipe
from nuwa_lip.training.runs import RunFolder
from tests.small_runs import open_cache

Recipe = DFVQGANRecipe | MPS2SRecipe


def go(recipe: Recipe, data: Path, folder: Path, stop_at: int | None = None, sharded: bool = False) -> None:
    """Train or go on, in this process of several; stop after a step as Ctrl-C does."""
    accelerator = make_accelerator(recipe.schedule)
    stage: Any
    if isinstance(recipe, DFVQGANRecipe):
        # noise, for the drawn shapes have equal cells: codes that start from them are equal, and rounding chooses
        photos = PhotoSet.load(data, 40)
        noise = torch.randint(256, photos.images.shape, generator=torch.Generator().manual_seed(0))
        photos = dataclasses.replace(photos, images=noise.byte())
        stage = DFVQGANStage(recipe, photos, accelerator)
        for group in (group for optimizer in stage.optimizers.values() for group in optimizer.param_groups):
            # else Adam makes a whole step of what rounding leaves of a gradient of 0, as of the critic's last bias
            group["eps"] = 1e-3
    else:
        stage = MPS2SStage(recipe, open_cache(data, recipe), accelerator, sharded=sharded)
    stage.sheet = lambda: None
    run = RunFolder(folder, recipe.schedule.batch_size, accelerator.is_main_process)
    run.write_sheet = lambda *_: None  # type: ignore[method-assign]
    plan = dataclasses.replace(recipe.schedule, sheet_every=10**6)
    folder.mkdir(exist_ok=True)
    if stop_at is not None:
        step = stage.step

        def stopping(number: int, batch: Any) -> Any:
            if number + 1 == stop_at and accelerator.is_main_process:
                signal.raise_signal(signal.SIGINT)
            return step(number, batch)

        stage.step = stopping
    try:
        train(stage, plan, run, accelerator, resume=True)
    except KeyboardInterrupt:
        assert stop_at is not None


def found(folder: Path) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The figures of every step, and the averaged and trained weights at the end."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    # a token between two codes may go to either, and the adversary's weight is a quotient of small gradients
    machine = ("images_per_second", "hours", "waiting", "memory_gb")
    loose = (*machine, "perplexity", "batch_usage", "adversary_weight")
    figures = [{name: value for name, value in line.items() if name not in loose} for line in lines]
    last = RunFolder(folder, 1).checkpoints()[-1]
    weights = {
        f"{name}.{key}": value
        for name in ("model", "average", "critic")
        if (last / f"{name}.safetensors").is_file()
        for key, value in load_file(last / f"{name}.safetensors").items()
    }
    return figures, weights
