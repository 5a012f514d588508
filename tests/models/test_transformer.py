"""Transformer blocks: the cache against the whole sequence, masks, shared memories, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nuwa_lip.models.transformer import (
    FEW,
    GEGLU,
    Block,
    CachedRows,
    Copies,
    Encoder,
    KeyValueCache,
    _attend,
    initialise,
)

WIDTH, HEADS = 32, 2


def make_block(*, cross: bool = False, dropout: float = 0.0) -> Block:
    torch.manual_seed(0)
    return Block(WIDTH, HEADS, 2.0, dropout, 1.0, cross=cross).eval()


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [7], [2, 1, 4]])
def test_rows_with_a_cache_equal_the_whole_sequence(sizes: list[int]) -> None:
    block, x = make_block(), random(2, 7, WIDTH)
    whole = block(x, causal=True)
    cache = KeyValueCache(2, HEADS, 7, WIDTH // HEADS, x)
    parts, start = [], 0
    for size in sizes:
        slots = torch.arange(start, start + size)
        visible = torch.arange(start + size) <= slots[:, None]
        parts.append(block(x[:, slots], rows=CachedRows(cache, slots, visible)))
        start += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_row_that_is_overwritten_leaves_no_trace() -> None:
    block, x = make_block(), random(1, 4, WIDTH)
    whole = block(x, causal=True)
    cache = KeyValueCache(1, HEADS, 4, WIDTH // HEADS, x)
    slots = torch.arange(4)
    block(random(1, 4, WIDTH, seed=2), rows=CachedRows(cache, slots, torch.eye(4, dtype=torch.bool)))
    rows = block(x, rows=CachedRows(cache, slots, slots <= slots[:, None]))
    torch.testing.assert_close(rows, whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_causal_row_does_not_see_later_ones() -> None:
    block, x = make_block(), random(1, 6, WIDTH)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = block(x, causal=True), block(changed, causal=True)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(block(x)[:, :4], block(changed)[:, :4])


@torch.no_grad()
def test_masked_keys_have_no_influence() -> None:
    block, x, memory = make_block(cross=True), random(1, 3, WIDTH), random(1, 8, WIDTH, seed=2)
    visible = torch.arange(8) < 5

    def run(memory: Tensor, visible: Tensor | None) -> Tensor:
        mask = None if visible is None else visible[None, None, None]
        return block(x, keys_values=block.keys_values(memory), memory_mask=mask)

    changed = memory.clone()
    changed[:, 5:] = 100
    assert torch.equal(run(memory, visible), run(changed, visible))
    torch.testing.assert_close(run(memory, visible), run(memory[:, :5], None), atol=1e-5, rtol=0)
    assert not torch.allclose(run(memory, None), run(changed, None))


@torch.no_grad()
def test_sequences_that_share_a_memory_need_no_copy_of_it() -> None:
    block = make_block(cross=True)
    memory, x = random(2, 5, WIDTH), random(6, 4, WIDTH, seed=2)
    shared = block(x, causal=True, keys_values=block.keys_values(memory))
    copied = block(x, causal=True, keys_values=block.keys_values(memory.repeat_interleave(3, 0)))
    torch.testing.assert_close(shared, copied, atol=1e-5, rtol=0)


@torch.no_grad()
def test_geglu_gates_by_a_gelu() -> None:
    layer, x = GEGLU(4, 6), random(2, 4)
    value, gate = (x @ layer.hidden.weight.T).split(6, -1)
    expected = (value * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2) @ layer.out.weight.T
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    block, x = make_block(dropout=0.5), random(1, 4, WIDTH)
    assert torch.equal(block(x), block(x))
    block.train()
    assert not torch.equal(block(x), block(x))


def test_initial_weights_shrink_with_depth_where_they_write() -> None:
    torch.manual_seed(0)
    encoder = Encoder(8, 128, 4, 2.0, 0.0, 1.0)
    initialise(encoder)
    block = encoder.blocks[0]
    assert isinstance(block, Block)
    weights = dict(block.named_parameters())
    inner, outer = (float(weights[f"attention.layer.{name}.weight"].detach().std()) for name in ("qkv", "out"))
    assert inner == pytest.approx(0.02, rel=0.05)
    assert outer == pytest.approx(0.02 / math.sqrt(16), rel=0.05)


def test_layer_scale_zero_is_the_identity() -> None:
    block, x = Block(WIDTH, HEADS, 2.0, 0.0, 0.0), random(1, 4, WIDTH)
    assert torch.equal(block(x), x)


@torch.no_grad()
def test_copies_cost_no_place_in_a_cache() -> None:
    block, x, c = make_block(), random(2, 3, WIDTH), 4
    filled = torch.cat([x, x[-1:].expand(c - 2, -1, -1)]).repeat(2, 1, 1)  # of two memories
    slots = torch.arange(3)
    visible = slots <= slots[:, None]
    every = block(filled, rows=CachedRows(KeyValueCache(2 * c, HEADS, 3, WIDTH // HEADS, x), slots, visible))
    cache = KeyValueCache(4, HEADS, 3, WIDTH // HEADS, x)
    assert torch.equal(block(filled, rows=CachedRows(cache, slots, visible, Copies(2, c))), every)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 4, 30, FEW, FEW + 1])
def test_attention_of_few_rows_in_bf16_equals_the_fused_kernel(rows: int) -> None:
    q, (k, v) = random(1, HEADS, rows, 16).bfloat16(), random(2, 1, HEADS, 40, 16, seed=2).bfloat16()
    mask = torch.rand(rows, 40, generator=torch.Generator().manual_seed(3)) > 0.3
    expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask)
    torch.testing.assert_close(_attend(q, k, v, mask).float(), expected, atol=0.03, rtol=0)
