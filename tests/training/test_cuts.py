"""A training is the same however it is cut: into processes, parts, and runs one after the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.training.recipes import Adversary, DFVQGANRecipe, MPS2SRecipe
from tests.group_runs import found, go
from tests.processes import together
from tests.small_runs import dfvqgan_recipe, mps2s_recipe

STEPS = 14


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
    """With dropout, dropped captions, hidden photos, all orders, several tokens a step, and captions told apart."""
    recipe = mps2s_recipe(
        steps=STEPS,
        batch_size=8,
        parallel=0.5,
        everything=0.25,
        caption_only=0.125,
        refine=0.5,
        contrast=5.0,
        learning_rate=1e-3,
    )
    return cut(recipe, **changes)


def cut(recipe: Any, **changes: Any) -> Any:
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, **changes))


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
