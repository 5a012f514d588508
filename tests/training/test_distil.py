"""Self-distillation: the encoder alone learns to give the complete photo's codes, and its loss falls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN
from nuwa_lip.training.distil import DistilStage
from nuwa_lip.training.recipes import DFVQGAN_RECIPES, Adversary
from tests.small_runs import DFVQGAN_CONFIG, dfvqgan_recipe, make_cpu_accelerator


def teacher() -> DFVQGAN:
    torch.manual_seed(0)
    return DFVQGAN(DFVQGAN_CONFIG).eval()


def make(photos: PhotoSet, **changes: Any) -> DistilStage:
    recipe = dfvqgan_recipe(
        trained="encoder",
        adversary=Adversary(weight=0.0),
        masks=MaskRecipe(rectangles=1.0, everything=0.0, nothing=0.0),
        **{"learning_rate": 3e-3, "warmup": 0.0, "ema": 0.0, **changes},
    )
    return DistilStage(recipe, photos, make_cpu_accelerator(), teacher())


def test_the_loss_falls_and_codes_agree_more(photos: PhotoSet) -> None:
    stage = make(photos, steps=30)
    batch = next(stage.batches(0))
    before = stage.held_out_loss(0, batch)
    first, *_, last = [stage.step(0, batch) for _ in range(30)]
    assert first["plain"] < 1e-6 and first["codes"] > 0
    assert last["codes"] < 0.8 * first["codes"]
    assert last["agreement"] > first["agreement"]
    assert stage.held_out_loss(0, batch) < before


def test_codes_and_decoder_stay(photos: PhotoSet) -> None:
    stage = make(photos, weight_decay=0.5)
    for step in range(2):
        stage.step(step, next(stage.batches(step)))
    first = teacher().state_dict()
    for name, weight in stage.raw.state_dict().items():
        assert torch.equal(weight, first[name]) == (not name.startswith("encoder.")), name


def test_accumulated_parts_are_as_good_as_one(photos: PhotoSet) -> None:
    whole, parts = make(photos), make(photos, accumulate=2)
    assert set(whole.step(0, next(whole.batches(0)))) == set(parts.step(0, next(parts.batches(0))))


def test_a_hole_of_everything_teaches_nothing_wrong(photos: PhotoSet) -> None:
    stage = make(photos)
    stage.recipe = dfvqgan_recipe(
        trained="encoder",
        adversary=Adversary(weight=0.0),
        masks=MaskRecipe(rectangles=0.0, everything=1.0, nothing=0.0),
    )
    figures = stage.step(0, next(stage.batches(0)))
    assert figures["codes"] == 0 and torch.isfinite(figures["plain"])


def test_it_needs_weights(photos: PhotoSet) -> None:
    assert DFVQGAN_RECIPES["distil"]().trained == "encoder"
    with pytest.raises(InputError, match="--init-from"):
        DistilStage(dfvqgan_recipe(trained="encoder"), photos, make_cpu_accelerator())
    with pytest.raises(InputError, match="decoder_only"):
        dfvqgan_recipe(trained="encoder", decoder_only=True)
