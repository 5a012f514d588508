"""The caption's tilt of the decoder's output, and photos of which nothing is known, encoded once."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.caption_prior import CaptionPrior
from nuwa_lip.sampling import sample

CONFIG = dataclasses.replace(MPS2SConfig.preset("tiny"), caption_prior=2, caption_shift=True)
IDS = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])


def make(config: MPS2SConfig = CONFIG) -> MPS2S:
    """A model whose prior says something."""
    torch.manual_seed(0)
    model = MPS2S(config).eval()
    if model.decoder.prior is not None:
        torch.nn.init.normal_(model.decoder.prior.out.weight)
        torch.nn.init.normal_(model.decoder.prior.gate.weight)
    if model.decoder.shift is not None:
        torch.nn.init.normal_(model.decoder.shift.out.weight)
    return model


def photo(hidden: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two photos with holes; the second one hidden altogether or not."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    tokens = torch.randint(64, (2, 8, 8), generator=generator)
    hole = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    hole[:, :, 2:6, 1:7] = True
    hole[1] |= hidden
    return image, hole.repeat_interleave(4, 2).repeat_interleave(4, 3), tokens, hole


def test_regions_are_squares_of_the_grid() -> None:
    prior = CaptionPrior(4, (8, 8), 2)
    found = prior.region_of(torch.arange(64)).view(8, 8)
    assert torch.equal(found, torch.tensor([[0, 1], [2, 3]]).repeat_interleave(4, 0).repeat_interleave(4, 1))


@torch.no_grad()
def test_a_new_prior_changes_nothing() -> None:
    torch.manual_seed(0)
    with_prior = MPS2S(CONFIG).eval()
    without = MPS2S(dataclasses.replace(CONFIG, caption_prior=0, caption_shift=False)).eval()
    shared = {k: v for k, v in with_prior.state_dict().items() if k in without.state_dict()}
    without.load_state_dict(shared)
    image, mask, tokens, hole = photo(hidden=False)
    assert torch.equal(with_prior(IDS, image, mask, tokens, hole)[0], without(IDS, image, mask, tokens, hole)[0])


@torch.no_grad()
def test_the_tilt_is_the_regions_times_the_gate() -> None:
    model = make()
    prior = model.decoder.prior
    assert prior is not None
    rows, regions = torch.randn(1, 3, 32), torch.randn(1, 4, 32)
    at = torch.tensor([[0, 7, 63]])
    expected = rows + 2 * prior.gate(rows).sigmoid() * regions[:, [0, 1, 3]]
    assert torch.equal(prior.tilt(rows, regions, at), expected)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_cached_decoding_gives_the_same_tokens(hidden: bool, guidance: float) -> None:
    model = make()
    image, mask, tokens, hole = photo(hidden)
    with torch.no_grad():
        memory = model.encode(IDS, image, mask, tokens, hole)
        nothing = model.with_captions(memory, torch.tensor([[1, 2], [1, 2]]))
    fast, slow = (
        sample(
            model,
            memory,
            num_candidates=2,
            unconditional=nothing,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(3),
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    )
    assert torch.equal(fast[0], slow[0])
    torch.testing.assert_close(fast[1], slow[1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_hidden_photo_is_the_same_alone_and_among_others() -> None:
    model = make()
    image, mask, tokens, hole = photo(hidden=True)
    two = [torch.cat([t, t[1:]]) for t in (image, mask, tokens, hole)]
    two[0][2] = 0.5  # what is hidden does not count
    order = torch.arange(64)[None]
    alone = model.decoder.predict(
        model.encode(IDS[1:], *(t[1:] for t in (image, mask, tokens, hole))), tokens[1:].flatten(1), order
    )
    memory = model.encode(torch.cat([IDS, IDS[1:]]), *two)
    among = model.decoder.predict(memory, tokens[[0, 1, 1]].flatten(1), order.expand(3, -1))
    torch.testing.assert_close(among[1:], alone.expand(2, -1, -1), atol=1e-5, rtol=0)


def test_in_training_hidden_photos_encoded_once_are_what_each_alone_is() -> None:
    model = make().train()
    image, mask, tokens, hole = (torch.cat([t, t[1:]]) for t in photo(hidden=True))
    every, seen = [], []
    assert model.pixels is not None
    model.pixels.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    for model.hidden_once in (False, True):
        every.append(model.encode(torch.cat([IDS, IDS[1:]]), image, mask, tokens, hole).states)
    assert seen == [3, 2]
    torch.testing.assert_close(every[1], every[0], atol=1e-5, rtol=1e-5)


def test_more_regions_than_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="0 to 8"):
        dataclasses.replace(CONFIG, caption_prior=9)
