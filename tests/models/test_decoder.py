"""The decoder: its layers with and without a cache, and its units as a compiler and a GPU take them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from nuwa_lip.models import MPS2S
from nuwa_lip.models.cache import BatchPadding, CachedRows, KeysValues
from nuwa_lip.models.decoder import CausalAttention, CrossAttention, DecoderBlock
from nuwa_lip.models.groups import NO_TOKEN, RowInputs, group_sizes
from nuwa_lip.models.memory import Memory
from nuwa_lip.sampling import Sampling, loop
from tests.fake_gpu import Ungraphed
from tests.models.test_transformer import HEADS, WIDTH, random
from tests.small_models import HOLE, K, make_memories, make_model

CANDIDATES = 2


def make_attention() -> CausalAttention:
    torch.manual_seed(0)
    return CausalAttention(WIDTH, HEADS).eval()


def make_cache(batch: int, capacity: int) -> KeysValues:
    shape = batch, HEADS, capacity, WIDTH // HEADS
    return torch.zeros(shape), torch.zeros(shape)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [7], [2, 1, 4]])
def test_rows_with_a_cache_equal_the_whole_sequence(sizes: list[int]) -> None:
    layer, x, cache = make_attention(), random(2, 7, WIDTH), make_cache(2, 7)
    whole = layer(x, None, None)
    parts, start = [], 0
    for size in sizes:
        slots = torch.arange(start, start + size)
        visible = torch.arange(start + size) <= slots[:, None]
        parts.append(layer(x[:, slots], None, None, CachedRows(cache, slots, visible)))
        start += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_row_that_is_overwritten_leaves_no_trace() -> None:
    layer, x, cache = make_attention(), random(1, 4, WIDTH), make_cache(1, 4)
    slots = torch.arange(4)
    layer(random(1, 4, WIDTH, seed=2), None, None, CachedRows(cache, slots, torch.eye(4, dtype=torch.bool)))
    rows = layer(x, None, None, CachedRows(cache, slots, slots <= slots[:, None]))
    torch.testing.assert_close(rows, layer(x, None, None), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_causal_row_does_not_see_later_ones() -> None:
    layer, x = make_attention(), random(1, 6, WIDTH)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = layer(x, None, None), layer(changed, None, None)
    assert torch.equal(before[:, :4], after[:, :4])
    every = torch.ones(6, 6, dtype=torch.bool)
    assert not torch.equal(layer(x, every, None)[:, :4], layer(changed, every, None)[:, :4])


@torch.no_grad()
def test_padding_takes_no_place_in_a_cache() -> None:
    layer, x, c = make_attention(), random(2, 3, WIDTH), 4
    padded = torch.cat([x, x[-1:].expand(c - 2, -1, -1)]).repeat(2, 1, 1)  # of two memories
    slots = torch.arange(3)
    visible = slots <= slots[:, None]
    every = layer(padded, None, None, CachedRows(make_cache(2 * c, 3), slots, visible))
    stripped = layer(padded, None, None, CachedRows(make_cache(4, 3), slots, visible, BatchPadding(2, c)))
    torch.testing.assert_close(stripped, every, atol=1e-5, rtol=0)


@torch.no_grad()
def test_masked_keys_have_no_influence() -> None:
    torch.manual_seed(0)
    layer, x, memory = CrossAttention(WIDTH, HEADS), random(1, 3, WIDTH), random(1, 8, WIDTH, seed=2)
    visible = torch.arange(8) < 5

    def run(memory: Tensor, visible: Tensor | None) -> Tensor:
        return layer(x, layer.keys_values(memory), None if visible is None else visible[None, None, None])

    changed = memory.clone()
    changed[:, 5:] = 100
    assert torch.equal(run(memory, visible), run(changed, visible))
    torch.testing.assert_close(run(memory, visible), run(memory[:, :5], None), atol=1e-5, rtol=0)
    assert not torch.allclose(run(memory, None), run(changed, None))


@torch.no_grad()
def test_sequences_that_share_a_memory_need_no_copy_of_it() -> None:
    torch.manual_seed(0)
    block = DecoderBlock(WIDTH, HEADS, 2.0, 0.0, 1.0).eval()
    memory, x = random(2, 5, WIDTH), random(6, 4, WIDTH, seed=2)
    shared = block(x, block.keys_values(memory))
    copied = block(x, block.keys_values(memory.repeat_interleave(3, 0)))
    torch.testing.assert_close(shared, copied, atol=1e-5, rtol=0)


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


def test_the_table_of_tokens_is_the_models_and_saved_once(model: MPS2S) -> None:
    assert model.decoder.embedding is model.embedding
    assert not [name for name in model.state_dict() if name.startswith("decoder.embedding")]


def inputs_of(memory: Memory) -> RowInputs:
    """What K rows are given, for a raster of K tokens, each [C, K]."""
    at = memory.token_mask.flatten().nonzero()[:, 0].expand(CANDIDATES, -1)
    tokens = torch.randint(64, at.shape, generator=torch.Generator().manual_seed(1))
    previous = torch.cat([torch.full((CANDIDATES, 1), NO_TOKEN), tokens[:, :-1]], 1)
    return RowInputs(previous, torch.cat([at[:, :1], at[:, :-1]], 1), at)


def one_of(inputs: RowInputs, k: int) -> RowInputs:
    return RowInputs(*(x[:, k : k + 1].clone() for x in inputs))


@torch.no_grad()
def test_one_token_over_the_whole_cache_equals_rows_over_its_used_part(model: MPS2S, memory: Memory) -> None:
    decoder, inputs = model.decoder, inputs_of(memory)
    whole, part = (decoder.prefill(memory, CANDIDATES, K) for _ in range(2))
    for k in range(K):
        slot, one = torch.tensor([k]), one_of(inputs, k)
        logits = decoder.decode_rows(whole, one, slot, torch.arange(K) <= slot[:, None], 1)
        rows = decoder.decode_rows(part, one, slot, torch.ones(1, k + 1, dtype=torch.bool), 1)
        torch.testing.assert_close(logits, rows, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_compiler_takes_both_units_as_one_graph_for_all_steps(model: MPS2S, memory: Memory) -> None:
    torch._dynamo.reset()
    decoder, inputs = model.decoder, inputs_of(memory)
    prefill = torch.compile(decoder.prefill, backend="eager", fullgraph=True, dynamic=False)
    step = torch.compile(decoder.decode_rows, backend="eager", fullgraph=True, dynamic=False)
    compiled, plain = prefill(memory, CANDIDATES, K), decoder.prefill(memory, CANDIDATES, K)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for k in range(3):
            slot, one = torch.tensor([k]), one_of(inputs, k)
            visible = torch.arange(K) <= slot[:, None]
            expected = decoder.decode_rows(plain, one, slot, visible, 1)
            torch.testing.assert_close(step(compiled, one, slot, visible, 1), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("by_confidence", [False, True])
@pytest.mark.parametrize("steps", [None, 2])
def test_no_step_waits_for_a_gpu_or_mixes_it_with_the_cpu(
    model: MPS2S,
    small_memory: Memory,
    steps: int | None,
    by_confidence: bool,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fake tensors have a device and no values: whatever asked for one, as waiting does, would fail.

    What is recorded may not fetch anything from the CPU, either (`fake_gpu.Apart`).
    """
    count = int(small_memory.token_mask.sum())
    sizes = group_sizes(count, steps)
    sampling = Sampling(guidance_scale=scale, temperature=0.9, top_k=5, top_p=0.9)
    plan = loop._Plan.make(small_memory.token_mask, [0] * CANDIDATES, CANDIDATES, sizes, sampling)
    monkeypatch.setattr(loop, "Graph", Ungraphed)
    with FakeTensorMode():
        with torch.device("cuda"):
            gpu = make_model(rotary=model.config.rotary, pointer=model.config.pointer).decoder
            states = torch.empty(1 if scale == 1 else 2, *small_memory.states.shape[1:])
            tokens = torch.empty(small_memory.tokens.shape, dtype=torch.int64)
            batch = dataclasses.replace(small_memory, states=states, mask=states[..., 0] > 0, tokens=tokens)
            positions = torch.empty(CANDIDATES, count, dtype=torch.int64)
            uniform = torch.empty(CANDIDATES, count, dtype=torch.float64)
            room: dict[str, Any] = {"chosen": torch.empty_like(positions), "logp": torch.empty_like(uniform)}
        there = dataclasses.replace(plan, positions=positions, uniform=uniform, by_confidence=by_confidence, **room)
        for graph in (False, True):
            progress, cache = loop._Progress(None, None, len(sizes)), there.prefill(gpu, batch)
            chosen, logp = loop._decode(gpu, batch, there, sampling, progress, cache=cache, graph=graph)
    assert chosen.is_cuda and logp.is_cuda and chosen.shape == (CANDIDATES, count) and logp.shape == (CANDIDATES,)
