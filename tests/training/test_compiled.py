"""Blocks of both stages compiled whole, to C++: gradients are the same, and the same every time.

One block of each stage: a compiler takes a second for each of some ten loops of a block, and the tests of the stages
trace all blocks with the same operations. One file, because what C++ includes is read once.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from nuwa_lip.fast.compiling import compile_blocks
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.vqgan import ResidualBlock
from nuwa_lip.training import mps2s
from nuwa_lip.training.mps2s import MPS2SStage
from tests.small_runs import NEEDS_COMPILER
from tests.training.test_mps2s import gradients, gradients_twice, make, with_dropout, without_dropout

pytestmark = [NEEDS_COMPILER, pytest.mark.usefixtures("apart")]


def test_a_block_of_stage_1_has_the_same_gradients() -> None:
    """With a hole."""
    torch.manual_seed(0)
    block, mask = ResidualBlock(8, 8, groups=4), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[:, :, 2:5, 3:] = True
    compiled, found = copy.deepcopy(block), []
    compile_blocks([compiled], torch.device("cpu"), dynamic=False)
    for one in (block, compiled):
        x = torch.linspace(-1, 1, 2 * 8 * 64).view(2, 8, 8, 8).requires_grad_()
        one(x, mask).square().sum().backward()
        found.append([x.grad, *(p.grad for p in one.parameters())])
    assert compiled._compiled_call_impl is not None
    for ours, plain in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_the_decoder_of_stage_2_has_the_same_gradients(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts whose K differ, by one graph for all sizes."""
    monkeypatch.setattr(MPS2SStage, "blocks", (DecoderBlock,))
    recipe = without_dropout(2)
    wanted, _ = gradients(make(cache, recipe))
    stage = make(cache, dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, compile=True)))
    found, _ = gradients(stage)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert all(block._compiled_call_impl is not None for block in stage.raw.decoder.layers)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_the_decoder_of_stage_2_in_bf16_with_dropout_is_the_same_every_time(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it runs again for its gradients."""
    monkeypatch.setattr(mps2s, "Block", DecoderBlock)  # of what `run_again_for_gradients` compiles
    recipe = with_dropout(gradient_checkpointing=True)
    recipe = dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, compile=True))
    once, again = gradients_twice(make(cache, recipe, precision="bf16"))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
