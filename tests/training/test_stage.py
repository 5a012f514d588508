"""What a training is made of: parts and processes, captions, the averaged weights, the optimizer, generators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training.loop import set_learning_rate
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.stage import Average, Stage, generator_for, make_optimizer
from tests.small_runs import mps2s_recipe, schedule


class Line(Stage[nn.Linear]):
    """Learns y = 0 and y = 1 from x, by a recipe of which it uses the schedule and the share of captions to drop."""

    def __init__(self, accelerator: Accelerator, recipe: MPS2SRecipe) -> None:
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        super().__init__(recipe, None, accelerator, model)

    def step(self, step: int, batch: Tensor) -> dict[str, Tensor]:
        return self.learn(step, batch.chunk(self.recipe.schedule.accumulate), self.losses)

    def losses(self, part: Tensor) -> dict[str, Tensor]:
        said = self.model(part)
        return {"zero": said.square().mean(), "one": (said - 1).square().mean()}

    def sheet(self) -> Image.Image:
        raise NotImplementedError

    def export(self, folder: Path) -> None:
        raise NotImplementedError


def test_a_step_by_hand(accelerator: Accelerator) -> None:
    batch, found = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), []
    for accumulate in (1, 2):
        stage = Line(accelerator, mps2s_recipe(accumulate=accumulate, ema=0.0, weight_decay=0.0, clip=0.5))
        assert stage.optimizers["model"].param_groups[0]["lr"] == 1e-2
        figures = stage.step(0, batch)
        # (1 + 4 + 9 + 16) / 4, (0 + 1 + 4 + 9) / 4, and the gradient of both: 2 * 7.5 + 2 * (7.5 - 2.5)
        assert {name: float(value) for name, value in figures.items()} == {"zero": 7.5, "one": 3.5, "gradient": 25.0}
        assert stage.raw.weight.item() == pytest.approx(1 - 1e-2, rel=1e-5), "Adam's first step is the rate"
        assert torch.equal(stage.average.model.weight, stage.raw.weight) and stage.raw.weight.grad is None
        found.append(stage.raw.weight.item())
    assert found[0] == found[1]


def test_gradients_are_exchanged_in_the_last_part_only(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, quiet, seen = Line(accelerator, mps2s_recipe()), [False], []

    @contextmanager
    def no_sync(model: nn.Module) -> Iterator[None]:
        assert model is stage.model
        quiet[0] = True
        yield
        quiet[0] = False

    monkeypatch.setattr(accelerator, "no_sync", no_sync)
    for part in stage.in_turn("abc", stage.model):
        seen.append((part, quiet[0]))
    assert seen == [("a", True), ("b", True), ("c", False)]


def test_each_process_has_its_own_share_and_chance(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Source:
        def batches(self, batch_size: int, **more: int) -> Iterator[int]:
            asked.update(more, batch_size=batch_size)
            return iter(())

    stage = Line(accelerator, mps2s_recipe(seed=7))
    stage.source = Source()
    monkeypatch.setattr(Accelerator, "process_index", 2)
    monkeypatch.setattr(Accelerator, "num_processes", 4)
    stage.batches(5)
    assert asked == {"batch_size": 4, "seed": 7, "start_step": 5, "rank": 2, "world_size": 4}
    assert stage.seeds(5) == (7, 5, 2)
    monkeypatch.setattr(accelerator, "reduce", lambda value, how: (value, how))
    assert stage.mean({"loss": torch.ones(())}) == {"loss": (torch.ones(()), "mean")}


def test_captions_are_dropped_and_cut_in_silence(accelerator: Accelerator) -> None:
    stage = Line(accelerator, mps2s_recipe(caption_dropout=0.3))
    texts = [f"bear {i}" for i in range(400)]
    kept = stage.drop_captions(texts, np.random.default_rng(0))
    assert all(a in (b, "") for a, b in zip(kept, texts, strict=True)) and 80 < kept.count("") < 160
    assert kept == stage.drop_captions(texts, np.random.default_rng(0))
    stage.tokenizer = CaptionTokenizer.train(texts, 300, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stage.word_pieces(["a bear " * 50, ""]).shape == (2, 8)


def test_the_average_by_hand() -> None:
    model, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for layer, value in ((model, 1.0), (other, 3.0)):
        layer.weight.data.fill_(value)
        layer.register_buffer("count", torch.tensor(int(value)))
    average = Average(model, 0.9)
    average.update(other, 0)  # decay 1 / 10
    assert average.model.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 3)
    average.update(other, 10)  # decay 11 / 20
    assert average.model.weight.item() == pytest.approx(0.55 * 2.8 + 0.45 * 3)
    average.model.weight.fill_(1.0)
    average.update(other, 1000)  # 0.9 at most
    assert average.model.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert other.weight.item() == 3 and average.model.count.item() == 1
    assert not average.model.weight.requires_grad and not average.model.training


def test_without_decay_the_average_is_the_model() -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    average = Average(model, 0.0)
    average.update(other, 500)
    assert torch.equal(average.model.weight, other.weight) and torch.equal(average.model.bias, other.bias)


def test_weight_decay_is_for_matrices_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2))
    model[1].weight.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, schedule(weight_decay=0.5, betas=(0.5, 0.75)), scale=0.5)
    set_learning_rate({"model": optimizer}, 0.2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"].detach(), before["0.weight"] * (1 - 0.2 * 0.5 * 0.5))
    assert all(torch.equal(after[name], before[name]) for name in ("0.bias", "1.weight", "1.bias"))
    assert [group["betas"] for group in optimizer.param_groups] == [(0.5, 0.75)] * 2
    assert len(optimizer.param_groups[0]["params"]) == 1 and len(optimizer.param_groups[1]["params"]) == 2


def test_generators_are_functions_of_their_numbers() -> None:
    def draw(*numbers: int) -> int:
        return int(torch.randint(2**62, (), generator=generator_for("cpu", *numbers)))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    drawn = [draw(*numbers) for numbers in [(), (0,), (0, 0), (1, 2), (2, 1), (1, 2, 0), (12,), (2**40,)]]
    assert len(set(drawn)) == len(drawn)


@given(a=st.lists(st.integers(0, 10**9), max_size=4), b=st.lists(st.integers(0, 10**9), max_size=4))
@settings(max_examples=50, deadline=None)
def test_different_numbers_give_different_streams(a: list[int], b: list[int]) -> None:
    seeds = [generator_for("cpu", *numbers).initial_seed() for numbers in (a, b)]
    assert (seeds[0] == seeds[1]) == (a == b)


def test_a_model_without_blocks_cannot_be_compiled(accelerator: Accelerator) -> None:
    with pytest.raises(InputError, match=r"schedule\.compile is for DF-VQGAN and MP-S2S"):
        Line(accelerator, mps2s_recipe(compile=True))


def test_muon_is_not_for_any_model(accelerator: Accelerator) -> None:
    with pytest.raises(InputError, match=r"schedule\.optimizer muon is for MP-S2S"):
        Line(accelerator, mps2s_recipe(optimizer="muon"))
