"""A training is the same however it is cut: into processes, parts, and runs one after the other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.training.dfvqgan import DFVQGANStage
from nuwa_lip.training.loop import make_accelerator, train
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.recipes import Adversary, DFVQGANRecipe, MPS2SRecipe
from nuwa_lip.training.runs import RunFolder
from tests.processes import together
from tests.small_runs import dfvqgan_recipe, mps2s_recipe, open_cache

STEPS = 20
Recipe = DFVQGANRecipe | MPS2SRecipe


def stage_1(**changes: Any) -> DFVQGANRecipe:
    """Codes begin at a third, then some of them are revived; the adversary begins at the half."""
    adversary = Adversary(start=0.5, head_start=0.1, filters=8, layers=1, crop=24)
    recipe = dfvqgan_recipe(
        steps=STEPS,
        batch_size=8,
        adversary=adversary,
        unquantised=0.3,
        revive_after=4,
        perceptual_weight=0.0,
        learning_rate=1e-3,
    )
    return cut(recipe, **changes)


def stage_2(**changes: Any) -> MPS2SRecipe:
    """With dropout, dropped captions, hidden photos, all orders, and steps that predict several tokens."""
    recipe = mps2s_recipe(
        steps=STEPS, batch_size=8, parallel=0.5, everything=0.25, caption_only=0.125, learning_rate=1e-3
    )
    return cut(recipe, **changes)


def cut(recipe: Any, **changes: Any) -> Any:
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, **changes))


def go(recipe: Recipe, data: Path, folder: Path, stop_at: int | None = None) -> None:
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
        stage = MPS2SStage(recipe, open_cache(data, recipe), accelerator)
    stage.sheet = lambda: None
    run = RunFolder(folder, recipe.schedule.batch_size, accelerator.is_main_process)
    run.write_sheet = lambda *_: None  # type: ignore[method-assign]
    plan = dataclasses.replace(recipe.schedule, sheet_every=10**6)
    folder.mkdir(exist_ok=True)
    if stop_at is not None:
        step = stage.step

        def stopping(number: int, batch: Any) -> Any:
            if number + 1 == stop_at and accelerator.is_main_process:
                import signal

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
    loose = ("images_per_second", "hours", "perplexity", "batch_usage", "adversary_weight")
    figures = [{name: value for name, value in line.items() if name not in loose} for line in lines]
    last = RunFolder(folder, 1).checkpoints()[-1]
    weights = {
        f"{name}.{key}": value
        for name in ("model", "average", "critic")
        if (last / f"{name}.safetensors").is_file()
        for key, value in load_file(last / f"{name}.safetensors").items()
    }
    return figures, weights


def agree(folder: Path, wanted: Path) -> None:
    (figures, weights), (whole_figures, whole) = found(folder), found(wanted)
    assert [line["step"] for line in figures] == [line["step"] for line in whole_figures] == list(range(1, STEPS + 1))
    for line, other in zip(figures, whole_figures, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5), f"step {line['step']}"
    for name, value in whole.items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


CUTS = {"4 processes": (4, 1), "2 processes of 2 parts": (2, 2)}


@pytest.fixture(scope="module")
def whole(shards: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path, Path]]:
    """Each stage's recipe, data and undisturbed run, by one process."""
    folder = tmp_path_factory.mktemp("whole")
    runs: dict[str, tuple[Any, Path, Path]] = {
        "stage 1": (stage_1, shards, folder / "1"),
        "stage 2": (stage_2, cache, folder / "2"),
    }
    for recipe, data, out in runs.values():
        together(1, folder, go, recipe(), data, out)
    return runs


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
@pytest.mark.parametrize("cuts", CUTS)
def test_parts_and_processes_change_nothing(stage: str, cuts: str, whole: Any, tmp_path: Path) -> None:
    (recipe, data, wanted), (processes, parts) = whole[stage], CUTS[cuts]
    together(processes, tmp_path, go, recipe(accumulate=parts), data, tmp_path / "run")
    agree(tmp_path / "run", wanted)


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
def test_a_run_goes_from_one_process_to_two_and_back(stage: str, whole: Any, tmp_path: Path) -> None:
    """Resumed twice, the second time at the end of an epoch."""
    recipe, data, wanted = whole[stage]
    epoch = (
        9 if stage == "stage 2" else 12
    )  # of 12 photos in 2 variants: 3 steps; of 12 photos: every third step ends one
    for processes, stop_at in ((1, 7), (2, epoch), (1, None)):
        together(processes, tmp_path, go, recipe(), data, tmp_path / "run", stop_at)
    agree(tmp_path / "run", wanted)
