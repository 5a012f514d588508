"""Plans: parameters and arithmetic with known answers, what fits a GPU, and the page that they are written down in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nuwa_lip.cli import run as nuwa_lip
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.models.orders import target_tokens
from nuwa_lip.training import plan
from nuwa_lip.training.counting import count, flops_of
from nuwa_lip.training.plan import Cost, Way, cost_of, parse_gpus, recommended, states, ways
from nuwa_lip.training.recipes import named
from tests.small_runs import dfvqgan_recipe, mps2s_recipe

PAGE = Path(__file__).parents[2] / "docs/scale.md"


@pytest.fixture(scope="module")
def cost() -> Cost:
    return cost_of(mps2s_recipe(), bf16=False)


def test_parameters_and_arithmetic_are_the_models(cost: Cost) -> None:
    model = MPS2S(mps2s_recipe().model)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim > 1 and "position" not in name)
    rows = 64 + 16 + 32 + 32  # tokens, patches, words, and decoded tokens; each goes through a part of the matrices
    assert 2 * matrices < cost.forward < 2 * matrices * rows
    assert 0 < cost.repeated < cost.forward and cost.kept_checkpointed < cost.kept


def test_a_step_is_counted_with_numbers_and_without() -> None:
    """Of a layer and a ReLU: its result, and that one's gradient, when the backward pass has begun."""
    layer = torch.nn.Linear(8, 4, bias=False)
    x = torch.zeros(16, 8)  # not counted, for it was there before

    def run() -> torch.Tensor:
        return layer(x).relu().sum()

    with FakeTensorMode(allow_non_fake_inputs=True):
        unreal = count(run, layer.parameters(), bf16=False)
    real = count(run, layer.parameters(), bf16=False)
    assert real == unreal and real.casts == 0 and layer.weight.grad is None
    assert real.held == 4 * (16 * 4 + 16 * 4 + 1 + 1)  # two of one number: the loss, and its gradient
    cast = count(run, layer.parameters(), bf16=True)
    assert cast.casts == 2 * 4 * 8
    assert flops_of(run) == 2 * 16 * 8 * 4


def test_memory_is_a_multiple_of_the_samples_and_a_rest(cost: Cost) -> None:
    """A plan counts two samples; eight take four times as much, but for tables that all of them share."""
    with FakeTensorMode():
        model = MPS2S(mps2s_recipe().model)
        peaks = {n: count(lambda n=n: forward(model, n), model.parameters(), bf16=False).held for n in (2, 8)}
    assert peaks[2] == pytest.approx(2 * cost.kept) and peaks[8] == pytest.approx(8 * cost.kept, rel=0.03)


def forward(model: MPS2S, batch: int) -> torch.Tensor:
    """The loss, with all tokens in the hole."""
    config = model.config
    (h, w), side = config.grid, config.image_size
    order, tokens = torch.zeros(batch, h * w, dtype=torch.int64), torch.zeros(batch, h, w, dtype=torch.int64)
    masks = torch.zeros(batch, 1, side, side, dtype=torch.bool), torch.zeros(batch, 1, h, w, dtype=torch.bool)
    text = torch.ones(batch, config.text_length, dtype=torch.int64)
    logits, real = model(text, torch.zeros(batch, 3, side, side), masks[0], tokens, masks[1], order)
    return mps2s_loss(logits, target_tokens(tokens, order), real)


def test_stage_1_counts_its_critic() -> None:
    with_critic, without = (cost_of(dfvqgan_recipe(adversary=a)) for a in (dfvqgan_recipe().adversary, off()))
    assert with_critic.parameters > without.parameters and with_critic.forward > without.forward
    assert without.fixed > 0 and without.repeated == 0


def off() -> Any:
    return named("dfvqgan", "tiny").adversary


def test_gpus() -> None:
    assert parse_gpus("64xa100-80g") == (64, "A100-80G")
    for text in ("A100-80G", "0xA100-80G", "8xA200", "8 x A100-80G"):
        with pytest.raises(InputError, match="is not like 64xA100-80G; kinds: V100-32G"):
            parse_gpus(text)


BIG = Cost(
    parameters=10**9,
    largest_block=10**8,
    forward=1e12,
    repeated=8e11,
    kept=4e9,
    kept_checkpointed=1e9,
    casts=0,
    fixed=0,
)


@pytest.mark.parametrize(
    ("memory", "name", "part"),
    [(80e9, "ddp", 8), (40e9, "ddp", 2), (30e9, "fsdp", 4), (7e9, "fsdp, blocks run again", 2)],
)
def test_the_cheapest_way_that_fits_is_recommended(memory: float, name: str, part: int) -> None:
    recipe = mps2s_recipe(batch_size=64)
    best = recommended(ways(BIG, recipe, 8, memory))
    assert isinstance(best, Way) and (best.name, best.part) == (name, part) and best.memory <= plan.ROOM * memory


def test_nothing_fits() -> None:
    assert recommended(ways(BIG, mps2s_recipe(batch_size=8), 8, 3e9)) is None
    assert states(BIG, 8) == 2.5e9 and states(BIG, 1, gradients=False) == 16e9


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```\nnuwa-lip (plan [^\n]*)\n```\n\n```\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def counted_once() -> Iterator[None]:
    """A model is counted once, however many of the page's plans are of it."""
    costs: dict[str, Cost] = {}
    count_it = plan._mps2s

    def found(recipe: Any, bf16: bool) -> Cost:
        name = f"{recipe.model} {bf16}"
        return costs[name] if name in costs else costs.setdefault(name, count_it(recipe, bf16))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_mps2s", found)
        yield


@pytest.mark.parametrize(("words", "said"), blocks(), ids=lambda text: text[:60].splitlines()[0])
def test_the_page_says_what_the_command_says(
    words: str, said: str, capsys: pytest.CaptureFixture[str], counted_once: None
) -> None:
    nuwa_lip(shlex.split(words))
    assert capsys.readouterr().out == said


def test_the_page_has_the_papers_training_and_one_of_400_million_pairs() -> None:
    commands = [words for words, _ in blocks()]
    assert any("mps2s paper --gpus 64xA100-80G" in words for words in commands)
    assert any("--samples 4e8" in words for words in commands)
