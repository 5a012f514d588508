"""The compiled step against the eager one, in every form of the weights, and what it needs."""

from __future__ import annotations

import dataclasses
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.bench.sizes import random_memory, random_mps2s
from nuwa_lip.errors import InputError
from nuwa_lip.fast import compiling, few_rows, kernels
from nuwa_lip.fast.kernels import compile_step
from nuwa_lip.fast.quantise import LAYERS, quantise
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.decoder import CausalAttention, CrossAttention, Kernel
from nuwa_lip.sampling import sample
from tests.fast.test_quantise import MARKS
from tests.small_runs import NEEDS_COMPILER

FORMS = pytest.mark.parametrize("weights", [None, *(pytest.param(n, marks=MARKS.get(n, ())) for n in LAYERS)])
KERNEL = Kernel(few_rows.takes, few_rows.attend)
pytestmark = pytest.mark.usefixtures("apart")


def made(weights: str | None) -> MPS2S:
    config = dataclasses.replace(MPS2SConfig.preset("tiny"), width=128, heads=4, decoder_layers=2)
    torch.manual_seed(0)
    model = random_mps2s(config, "fp32")
    if weights is not None:
        quantise(model, weights)
    return model


def attentions(model: MPS2S) -> list[CausalAttention | CrossAttention]:
    return [m for m in model.decoder.modules() if isinstance(m, CausalAttention | CrossAttention)]


@FORMS
def test_every_form_is_taken_as_one_graph_and_gives_the_same(weights: str | None) -> None:
    """Needs no compiler for C++: what is compiled is run as it was traced."""
    model = made(weights)
    memory, seed = random_memory(model), torch.Generator().manual_seed(3)
    expected = sample(model, memory, generator=seed, num_candidates=2, num_inference_steps=5)
    for block in model.decoder.layers:
        block.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    tokens, logp = sample(model, memory, generator=seed, num_candidates=2, num_inference_steps=5)
    assert torch.equal(tokens, expected[0])
    torch.testing.assert_close(logp, expected[1], atol=1e-5, rtol=1e-5)


@FORMS
def test_layers_and_steps_share_their_graphs(weights: str | None) -> None:
    model = made(weights)
    memory, seed = random_memory(model), torch.Generator().manual_seed(3)
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        nonlocal graphs
        graphs += 1
        return graph

    for block in model.decoder.layers:
        block.compile(dynamic=True, fullgraph=True, backend=count)
    sample(model, memory, generator=seed)
    assert graphs == 1, "one token a step has the same shapes from the first step to the last"
    sample(model, memory, generator=seed, num_inference_steps=5)
    assert graphs <= 3
    sample(model, memory, generator=seed, num_inference_steps=3)
    assert graphs <= 3, "however many rows a step has"


def test_more_graphs_may_be_made_than_pytorch_would() -> None:
    compile_step(made(None), backend="eager")
    assert torch._dynamo.config.recompile_limit == compiling.GRAPHS > 8


@NEEDS_COMPILER
def test_a_compiled_candidate_does_not_depend_on_how_many_there_are() -> None:
    plain, model = made(None), made(None)
    memory, seed = random_memory(model), torch.Generator().manual_seed(3)
    compile_step(model)
    assert {module.kernel for module in attentions(model)} == {KERNEL if few_rows.supported() else None}
    guided = {"unconditional": random_memory(model, 3), "guidance_scale": 2.0}
    for options in ({}, {"num_inference_steps": 20, **guided}):
        settings: dict[str, Any] = {"generator": seed, **options}
        expected, _ = sample(plain, memory, num_candidates=4, **settings)
        four, scores = sample(model, memory, num_candidates=4, **settings)
        one, score = sample(model, memory, **settings)
        assert torch.equal(four, expected)
        assert torch.equal(one, four[:1]) and torch.equal(score, scores[:1])


def test_what_compiling_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = made(None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        compile_step(model)
    monkeypatch.setenv("CXX", "python3")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match=r"Python\.h"):
        compile_step(model)
    assert all(block._compiled_call_impl is None for block in model.decoder.layers)
    assert {module.kernel for module in attentions(model)} == {None}


def test_copies_are_left_out_only_where_all_rows_are_alike() -> None:
    rows = torch.ones(4, 8)
    assert len(kernels.without_copies(rows)) == 1
    rows[3, 0] = 2
    assert kernels.without_copies(rows) is rows
