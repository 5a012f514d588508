"""`prefill` and `decode_one_token` as units: without waiting for a device, and as one graph for a compiler."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nuwa_lip.models import MPS2S
from nuwa_lip.models.decoder import Memory
from nuwa_lip.models.groups import NO_TOKEN, group_sizes
from nuwa_lip.sampling import loop as sampling
from nuwa_lip.sampling.draw import Draw
from tests.fake_gpu import Ungraphed
from tests.small_models import HOLE, K, make_memories, make_model

CANDIDATES = 2


@pytest.fixture(scope="module", params=[False, True], ids=["learned positions", "rotary and pointer"])
def model(request: pytest.FixtureRequest) -> MPS2S:
    return make_model(rotary=request.param, pointer=request.param)


@pytest.fixture(scope="module")
def memory(model: MPS2S) -> Memory:
    return make_memories(model, HOLE)[0]


@pytest.fixture(scope="module")
def small_memory(model: MPS2S) -> Memory:
    """Of a hole of four tokens: every operation on fake tensors takes as long as on large ones."""
    return make_memories(model, (2, 3, 2, 2))[0]


def rows_of(memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
    """Previous tokens, their positions, and positions of a raster of K tokens, each [C, K]."""
    at = memory.token_mask.flatten().nonzero()[:, 0].expand(CANDIDATES, -1)
    tokens = torch.randint(64, at.shape, generator=torch.Generator().manual_seed(1))
    previous = torch.cat([torch.full((CANDIDATES, 1), NO_TOKEN), tokens[:, :-1]], 1)
    return previous, torch.cat([at[:, :1], at[:, :-1]], 1), at


@torch.no_grad()
def test_one_token_over_the_whole_cache_equals_rows_over_its_used_part(model: MPS2S, memory: Memory) -> None:
    whole, part = (model.prefill(memory, CANDIDATES, K) for _ in range(2))
    columns = rows_of(memory)
    for k in range(K):
        one = [x[:, k] for x in columns]
        slot = torch.tensor([k])
        logits = model.decode_one_token(whole, *one, slot)
        rows = model.decode_rows(part, *(x[:, None] for x in one), slot, torch.ones(1, k + 1, dtype=torch.bool))
        torch.testing.assert_close(logits, model.head(rows[:, 0]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_compiler_takes_both_units_as_one_graph_for_all_steps(model: MPS2S, memory: Memory) -> None:
    torch._dynamo.reset()
    prefill = torch.compile(model.prefill, backend="eager", fullgraph=True, dynamic=False)
    step = torch.compile(model.decode_one_token, backend="eager", fullgraph=True, dynamic=False)
    compiled, plain = prefill(memory, CANDIDATES, K), model.prefill(memory, CANDIDATES, K)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for k in range(3):
            arguments = [x[:, k].clone() for x in rows_of(memory)]
            slot = torch.tensor([k])
            expected = model.decode_one_token(plain, *arguments, slot)
            torch.testing.assert_close(step(compiled, *arguments, slot), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("surest", [False, True])
@pytest.mark.parametrize("steps", [None, 2])
def test_no_step_waits_for_a_gpu_or_mixes_it_with_the_cpu(
    model: MPS2S, small_memory: Memory, steps: int | None, surest: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake tensors have a device and no values: whatever asked for one, as waiting does, would fail.

    What is recorded may not fetch anything from the CPU, either (`fake_gpu.Apart`).
    """
    count = int(small_memory.token_mask.sum())
    sizes = group_sizes(count, steps)
    plan = sampling._Plan.make("raster", small_memory.token_mask, [0] * CANDIDATES, CANDIDATES, sizes, surest)
    draw = Draw(guidance_scale=scale, temperature=0.9, top_k=5, top_p=0.9)
    monkeypatch.setattr(sampling, "Graph", Ungraphed)
    with FakeTensorMode():
        with torch.device("cuda"):
            gpu = make_model(rotary=model.config.rotary, pointer=model.config.pointer)
            states = torch.empty(1 if scale == 1 else 2, *small_memory.states.shape[1:])
            batch = dataclasses.replace(small_memory, states=states, mask=states[..., 0] > 0)
            positions = torch.empty(CANDIDATES, count, dtype=torch.int64)
            uniform = torch.empty(CANDIDATES, count, dtype=torch.float64)
        there = dataclasses.replace(plan, positions=positions, uniform=uniform)
        for alike in {False, there.one_by_one}:
            decoder = sampling._Cached(gpu, batch, there, alike=alike)
            chosen, logp = sampling._decode(decoder, draw, sampling._Progress(None, len(sizes)))
    assert chosen.is_cuda and logp.is_cuda and chosen.shape == (CANDIDATES, count) and logp.shape == (CANDIDATES,)
