"""Orders of decoding: permutations of the defective positions, and what each promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.models.orders import (
    ORDERS,
    border_distance,
    decoding_order,
    order_by,
    order_keys,
    raster_order,
    target_tokens,
)
from tests.small_models import seeded


@st.composite
def masks(draw: st.DrawFn, batch: int = 1) -> Tensor:
    """bool [B, 1, h, w], none and all defective among them."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    share, seed = draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])), draw(st.integers(0, 999))
    return torch.rand(batch, 1, height, width, generator=seeded(seed)) < share


@settings(max_examples=60, deadline=None)
@given(masks(), st.sampled_from(ORDERS), st.integers(0, 99))
def test_an_order_is_a_permutation_of_the_defective_positions(mask: Tensor, name: str, seed: int) -> None:
    order = decoding_order(name, mask, seeded(seed))
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == mask.flatten().nonzero()[:, 0].tolist()
    assert torch.equal(order, decoding_order(name, mask, seeded(seed)))
    assert torch.equal(order, decoding_order(name, mask[0], seeded(seed)))


@settings(max_examples=60, deadline=None)
@given(masks())
def test_the_border_order_goes_inwards(mask: Tensor) -> None:
    grid = mask[0, 0]
    known, order = (~grid).nonzero(), decoding_order("border", mask)
    cells = torch.stack([order // grid.shape[1], order % grid.shape[1]], 1)
    if len(known) == 0:
        assert torch.equal(order, decoding_order("raster", mask))
        return
    # the slow twin: every distance to every known token
    distance = [min(int((cell - other).square().sum()) for other in known) for cell in cells]
    assert list(zip(distance, order.tolist(), strict=True)) == sorted(zip(distance, order.tolist(), strict=True))
    assert border_distance(mask)[0].flatten()[order].tolist() == distance


def test_the_border_order_of_a_square() -> None:
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 1:4, 1:4] = True
    assert decoding_order("border", mask).tolist() == [6, 7, 8, 11, 13, 16, 17, 18, 12]


def test_raster_is_sorted_and_random_is_the_seeds() -> None:
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    assert decoding_order("raster", mask).tolist() == list(range(36))
    first, second = (decoding_order("random", mask, seeded(seed)).tolist() for seed in (1, 2))
    assert first != second != list(range(36))


@settings(max_examples=30, deadline=None)
@given(masks(batch=3), st.sampled_from(["raster", "border"]))
def test_a_batch_has_the_orders_of_its_samples(mask: Tensor, name: str) -> None:
    order, real = order_by(order_keys(name, mask), mask)
    assert real.sum(1).tolist() == mask.flatten(1).sum(1).tolist()
    for i in range(3):
        assert torch.equal(order[i, real[i]], decoding_order(name, mask[i]))
        assert not order[i, ~real[i]].any()
    if name == "raster":
        assert torch.equal(order, raster_order(mask)[0])


def test_targets_are_gathered_in_the_order() -> None:
    tokens = torch.arange(8).view(2, 2, 2) * 10
    assert target_tokens(tokens, torch.tensor([[3, 0], [1, 1]])).tolist() == [[30, 0], [50, 50]]


def test_an_unknown_order_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'spiral'.*raster, random, border"):
        decoding_order("spiral", torch.ones(1, 1, 2, 2, dtype=torch.bool))
