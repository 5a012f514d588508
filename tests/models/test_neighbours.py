"""The decoder's short way from the tokens around a position."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.groups import NO_TOKEN, group_sizes, rows_of
from nuwa_lip.models.neighbours import Neighbours, places_around
from nuwa_lip.sampling import sample
from tests.small_models import make_model, seeded

CODES = 64


def test_places_are_the_square_without_its_middle() -> None:
    places = places_around((3, 4), 1)
    none = 12
    assert places[0].tolist() == [none, none, none, none, 1, none, 4, 5]
    assert places[5].tolist() == [0, 1, 2, 4, 6, 8, 9, 10]
    assert places[11].tolist() == [6, 7, none, 10, none, none, none, none]
    assert places_around((3, 4), 2).shape == (12, 24)


@st.composite
def decodings(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, list[int], int]:
    """Known tokens, an order with padding behind it, tokens, sizes of groups, and a radius."""
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    cells = torch.arange(height * width)
    missing = torch.tensor(draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells))))
    places = draw(st.permutations(cells[missing].tolist()))
    sizes = group_sizes(len(places), draw(st.none() | st.integers(1, 6)))
    known = (cells % CODES).masked_fill(missing, NO_TOKEN).view(height, width)
    order = torch.tensor([*places, *[0] * draw(st.integers(0, 2))], dtype=torch.int64)
    return known, order, 20 + torch.arange(len(order)), sizes, draw(st.integers(1, 2))


@settings(max_examples=200, deadline=None)
@given(decodings())
def test_a_row_is_given_what_is_known_or_decided_before_its_group(
    made: tuple[Tensor, Tensor, Tensor, list[int], int],
) -> None:
    known, order, tokens, sizes, radius = made
    height, width = known.shape
    near = Neighbours(CODES, 8, (height, width), radius)
    found = near.around_rows(known.flatten()[None], tokens[None], order[None], rows_of(sizes))[0]
    for start, size in zip([sum(sizes[:i]) for i in range(len(sizes))], sizes, strict=True):
        so_far = known.flatten().clone()
        so_far[order[:start]] = tokens[:start]
        assert torch.equal(near.around(so_far[None], order[None, start : start + size])[0], found[start : start + size])
        for row in range(start, start + size):
            y, x = divmod(int(order[row]), width)
            expected = []
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if (dy, dx) != (0, 0):
                        inside = 0 <= y + dy < height and 0 <= x + dx < width
                        token = int(so_far.view(height, width)[y + dy, x + dx]) if inside else near.outside
                        expected.append(near.undecided if token == NO_TOKEN else token)
            assert found[row].tolist() == expected


def photo() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two photos with holes, and captions."""
    hole = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    hole[0, :, 2:6, 1:7] = True
    hole[1, :, :, 3:] = True
    tokens = torch.randint(CODES, (2, 8, 8), generator=seeded(2))
    image = torch.rand(2, 3, 32, 32, generator=seeded(1)) * 2 - 1
    return (
        torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]),
        image,
        hole.repeat_interleave(4, 2).repeat_interleave(4, 3),
        tokens,
        hole,
    )


@torch.no_grad()
def test_new_neighbours_change_nothing() -> None:
    with_neighbours, without = make_model(neighbours=1), make_model()
    shared = {k: v for k, v in with_neighbours.state_dict().items() if k in without.state_dict()}
    without.load_state_dict(shared)
    assert torch.equal(with_neighbours(*photo())[0], without(*photo())[0])


@pytest.mark.parametrize("schedule", ["cosine", "confidence"])
@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_cached_decoding_gives_the_same_tokens(schedule: str, steps: int | None, guidance: float) -> None:
    model = make_model(neighbours=2)
    assert model.decoder.neighbours is not None
    nn.init.normal_(model.decoder.neighbours.after.weight, std=0.5)
    with torch.no_grad():
        memory = model.encode(*photo())
        nothing = model.with_captions(memory, torch.tensor([[1, 2], [1, 2]]))
    fast, slow, blind = (
        sample(
            one,
            memory,
            num_candidates=2,
            unconditional=nothing,
            guidance_scale=guidance,
            order="random",
            schedule=schedule,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(3),
            use_cache=use_cache,
        )
        for one, use_cache in ((model, True), (model, False), (without_neighbours(model), True))
    )
    assert torch.equal(fast[0], slow[0])
    torch.testing.assert_close(fast[1], slow[1], atol=1e-4, rtol=0)
    assert not torch.equal(fast[0], blind[0])


def without_neighbours(model: MPS2S) -> MPS2S:
    """The same weights, but for neighbours."""
    other = make_model()
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "neighbours" not in k})
    return other


def test_without_known_tokens_there_are_no_neighbours() -> None:
    assert make_model(neighbours=1, perspectives=("text", "pixels")).decoder.neighbours is None


def test_a_radius_out_of_range_is_refused() -> None:
    for radius in (-1, 9):
        with pytest.raises(InputError, match=f"{radius}"):
            dataclasses.replace(MPS2SConfig.preset("tiny"), neighbours=radius)
