"""Attention of few rows on a CPU against PyTorch's, which is its slow twin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nuwa_lip.fast import speed_up
from nuwa_lip.fast.attention import FEW, attend, attend_apart
from nuwa_lip.models.decoder import CausalAttention, CrossAttention, plain_attention
from tests.models.test_transformer import HEADS, random
from tests.small_models import make_model


def inputs(batch: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys and values, and a mask that leaves each row something to see."""
    mask = torch.rand(rows, 40, generator=torch.Generator().manual_seed(3)) > 0.3
    return random(batch, HEADS, rows, 16), *random(2, batch, HEADS, 40, 16, seed=2), mask


@pytest.mark.parametrize("rows", [1, 4, 30, FEW, FEW + 1])
def test_few_rows_in_bf16_equal_the_fused_kernel(rows: int) -> None:
    q, k, v, mask = inputs(1, rows)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    for one in (mask, None):
        expected = plain_attention(q.float(), k.float(), v.float(), one)
        torch.testing.assert_close(attend(q, k, v, one).float(), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sequence_alone_is_the_same_to_the_bit_as_among_others(dtype: torch.dtype) -> None:
    q, k, v, mask = inputs(4, 2)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    every = attend_apart(q, k, v, mask)
    torch.testing.assert_close(every, plain_attention(q, k, v, mask), atol=0.03, rtol=0)
    for i in range(4):
        assert torch.equal(attend_apart(q[i : i + 1], k[i : i + 1], v[i : i + 1], mask), every[i : i + 1])


def test_a_models_decoder_takes_them() -> None:
    model = make_model()
    layers = [module for module in model.decoder.modules() if isinstance(module, CausalAttention | CrossAttention)]
    assert {layer.attend for layer in layers} == {plain_attention}
    speed_up(model)
    for layer in layers:
        assert layer.attend is (attend_apart if isinstance(layer, CausalAttention) else attend)
