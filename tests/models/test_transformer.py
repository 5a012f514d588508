"""Transformer blocks of the encoders: masks, gates, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nuwa_lip.models.transformer import GEGLU, Block, Encoder, initialise

WIDTH, HEADS = 32, 2


def make_block(dropout: float = 0.0) -> Block:
    torch.manual_seed(0)
    return Block(WIDTH, HEADS, 2.0, dropout, 1.0).eval()


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_masked_keys_have_no_influence() -> None:
    block, x = make_block(), random(1, 6, WIDTH)
    changed = x.clone()
    changed[:, 4:] += 1
    mask = (torch.arange(6) < 4)[None, None, None]
    before, after = block(x, mask), block(changed, mask)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(block(x)[:, :4], block(changed)[:, :4])


@torch.no_grad()
def test_geglu_gates_by_a_gelu() -> None:
    layer, x = GEGLU(4, 6), random(2, 4)
    value, gate = (x @ layer.hidden.weight.T).split(6, -1)
    expected = (value * gate * (1 + torch.erf(gate / math.sqrt(2))) / 2) @ layer.out.weight.T
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    block, x = make_block(0.5), random(1, 4, WIDTH)
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
