"""FSDP2: what is spread over processes learns what is whole, and goes on from its checkpoints and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.hub import load_model
from nuwa_lip.training.recipes import MPS2SRecipe
from tests.folders import contents
from tests.group_runs import go
from tests.processes import together
from tests.small_runs import mps2s_recipe

STEPS = 6


def recipe(**changes: Any) -> MPS2SRecipe:
    made = mps2s_recipe(steps=STEPS, batch_size=8, accumulate=2, learning_rate=1e-3, parallel=0.5)
    return dataclasses.replace(made, **changes)


def agree(folder: Path, wanted: Path) -> None:
    """Exported weights are the same."""
    ours, theirs = (load_model(path / "model").mps2s for path in (folder, wanted))
    assert ours is not None and theirs is not None
    for (name, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    together(1, folder, go, recipe(), cache, folder / "run")
    return folder / "run"


def test_spread_weights_learn_as_whole_ones(cache: Path, whole: Path, tmp_path: Path) -> None:
    """Stopped, gone on with, and with the blocks run again for their gradients."""
    together(2, tmp_path, go, recipe(gradient_checkpointing=True), cache, tmp_path / "run", 3, True)
    checkpoint = tmp_path / "run/checkpoints/step-3"
    files = set(contents(checkpoint))
    assert files >= {"state.json", "tokenizer.json", "buffers.safetensors"} and "model.safetensors" not in files
    assert sum(name.startswith("sharded/") for name in files) == 2, "each process its part"
    together(2, tmp_path, go, recipe(gradient_checkpointing=True), cache, tmp_path / "run", None, True)
    agree(tmp_path / "run", whole)


def test_one_process_goes_on_where_several_stopped_and_back(cache: Path, whole: Path, tmp_path: Path) -> None:
    for processes, stop_at, sharded in ((2, 2, True), (1, 4, False), (2, None, True)):
        together(processes, tmp_path, go, recipe(), cache, tmp_path / "run", stop_at, sharded)
    agree(tmp_path / "run", whole)
