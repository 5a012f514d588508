"""Fitting neighbours: they learn what stands beside what, nothing else moves, and the model decodes as before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.hub import ModelParts, load_model
from nuwa_lip.models import MPS2S
from nuwa_lip.training.neighbours import NeighboursStage, radius
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.tokens import TokenCache
from tests.small_runs import MPS2S_CONFIG, make_cpu_accelerator, mps2s_recipe, open_cache, run

CONFIG = dataclasses.replace(MPS2S_CONFIG, neighbours=1)


def make(recipe: MPS2SRecipe, cache: TokenCache) -> NeighboursStage:
    return NeighboursStage(recipe, cache, make_cpu_accelerator())


def checked(cache: TokenCache) -> TokenCache:
    """Photos of which a token tells those beside it: 1 and 2 like the squares of a chessboard."""
    cache = cache.load("cpu")
    (part,) = cache.parts
    whole = part.array("whole")
    rows, columns = (torch.arange(side) for side in whole.shape[1:])
    board = 1 + (rows[:, None] + columns + torch.arange(len(whole))[:, None, None]) % 2
    return dataclasses.replace(cache, parts=(dataclasses.replace(part, whole=board.to(whole.dtype)),))


def test_neighbours_learn_what_stands_beside_what(cache: Path) -> None:
    recipe = mps2s_recipe(CONFIG, trained="neighbours")
    stage = make(recipe, checked(open_cache(cache, recipe)))
    losses = [float(stage.step(step, batch)["loss"]) for step, batch in zip(range(60), stage.batches(0), strict=False)]
    assert losses[0] > 2
    assert np.mean(losses[-5:]) < np.log(2) / 2, "either token is as likely without its neighbours"


def test_nothing_else_learns_and_the_model_decodes_as_before(cache: Path, tmp_path: Path) -> None:
    recipe = mps2s_recipe(CONFIG, steps=2, trained="neighbours", weight_decay=0.1)
    stage = make(recipe, open_cache(cache, recipe))
    before = {name: value.clone() for name, value in stage.raw.state_dict().items()}
    run(stage, recipe, tmp_path / "run")
    moved = {name for name, value in stage.raw.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"decoder.neighbours.{name}" for name in ("tokens.weight", "hidden.weight", "hidden.bias")}
    saved = load_model(tmp_path / "run/model").mps2s
    assert saved is not None
    plain = MPS2S(dataclasses.replace(saved.config, neighbours=0)).eval()
    plain.load_state_dict({k: v for k, v in saved.state_dict().items() if "neighbours" not in k})
    batch = stage.cache.batch(0, 2, seed=0)
    ids, hole = stage.word_pieces(batch.captions), torch.ones_like(batch.tokens, dtype=torch.bool)[:, None]
    inputs = ids, batch.images, torch.ones_like(batch.masks), batch.tokens, hole
    with torch.no_grad():
        assert torch.equal(saved(*inputs)[0], plain(*inputs)[0])


def test_a_model_goes_on_with_its_own_radius() -> None:
    assert [radius(0, 0), radius(0, 1), radius(2, 0), radius(2, 2)] == [0, 1, 2, 2]
    with pytest.raises(InputError, match="neighbours is 2"):
        radius(2, 1)


def test_what_cannot_be_is_refused(cache: Path) -> None:
    recipe = mps2s_recipe(trained="neighbours")
    with pytest.raises(InputError, match="neighbours is 0"):
        make(recipe, open_cache(cache, recipe))
    recipe = mps2s_recipe(CONFIG, trained="neighbours", contrast=1.0)
    with pytest.raises(InputError, match="contrast"):
        make(recipe, open_cache(cache, recipe))
    recipe = mps2s_recipe(CONFIG, trained="neighbours")
    stage = make(recipe, open_cache(cache, recipe))
    with pytest.raises(InputError, match="validation"):
        stage.held_out_loss(0, stage.cache.batch(0, 2, seed=0))
    torch.nn.init.ones_(stage.neighbours.after.weight)
    weights = ModelParts(stage.dfvqgan, stage.raw, stage.tokenizer, recipe.sampling, None)
    with pytest.raises(InputError, match="already"):
        NeighboursStage(recipe, stage.cache, make_cpu_accelerator(), weights)
