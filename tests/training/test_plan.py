"""Plans: parameters and arithmetic with known answers, what fits a GPU, and the page that they are written down in."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.cli import run as nuwa_lip
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S
from nuwa_lip.training import plan
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


def test_what_is_kept_is_what_autograd_keeps(cost: Cost) -> None:
    """On real tensors; the plan adds the logits' gradient and its copy."""
    config, seen = mps2s_recipe().model, {}
    model = MPS2S(config).train()
    order = torch.arange(32).expand(2, -1)

    def note(t: torch.Tensor) -> torch.Tensor:
        if not isinstance(t, torch.nn.Parameter):
            seen[t.untyped_storage().data_ptr()] = (t.untyped_storage().nbytes(), t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        masks = torch.zeros(2, 1, 32, 32, dtype=torch.bool), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
        text, tokens = torch.ones(2, config.text_length, dtype=torch.int64), torch.zeros(2, 8, 8, dtype=torch.int64)
        logits, _ = model(text, torch.zeros(2, 3, 32, 32), masks[0], tokens, masks[1], order)
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), torch.zeros(2, 32, dtype=torch.int64))
    real = sum(size for size, _ in seen.values()) / 2
    assert cost.kept - 2 * 32 * 64 * 4 == pytest.approx(real, rel=0.1)


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


BIG = Cost(parameters=10**9, largest_block=10**8, forward=1e12, repeated=8e11, kept=4e9, kept_checkpointed=1e9, fixed=0)


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


@pytest.mark.parametrize(("words", "said"), blocks(), ids=lambda text: text[:60].splitlines()[0])
def test_the_page_says_what_the_command_says(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    nuwa_lip(shlex.split(words))
    assert capsys.readouterr().out == said


def test_the_page_has_the_papers_training_and_one_of_400_million_pairs() -> None:
    commands = [words for words, _ in blocks()]
    assert any("mps2s paper --gpus 64xA100-80G" in words for words in commands)
    assert any("--samples 4e8" in words for words in commands)
