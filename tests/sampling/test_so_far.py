"""What is decided so far: tokens step by step, and a picture that is coarse where none is decided."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nuwa_lip.models import DFVQGAN
from nuwa_lip.sampling import sample
from nuwa_lip.sampling.so_far import SoFar, spread
from tests.small_models import HOLE, make_memories, make_model, seeded


@pytest.mark.parametrize("schedule", ["cosine", "confidence"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_what_is_decided_is_in_the_result(schedule: str, use_cache: bool) -> None:
    model = make_model()
    memory = make_memories(model, HOLE)[0]
    seen: list[tuple[int, int, Tensor, Tensor]] = []

    def watch(step: int, steps: int, so_far: SoFar) -> None:
        seen.append((step, steps, so_far.tokens, so_far.missing))

    words = {"generator": seeded(1), "num_inference_steps": 3, "schedule": schedule, "use_cache": use_cache}
    plain, _ = sample(model, memory, **words)
    result, _ = sample(model, memory, watch=watch, **words)
    assert torch.equal(plain, result)
    assert [one[:2] for one in seen] == [(1, 3), (2, 3), (3, 3)]
    before = memory.token_mask
    for _, _, tokens, missing in seen:
        assert tokens.shape == result.shape and torch.equal(tokens[~missing[:, 0]], result[~missing[:, 0]])
        assert missing.sum() < before.sum() and not (missing & ~before).any()
        before = missing
    assert not before.any()


def test_missing_cells_become_what_is_around_them() -> None:
    codes = torch.full((1, 2, 5, 9), torch.nan)
    missing = torch.ones(1, 1, 5, 9, dtype=torch.bool)
    codes[..., 0], missing[..., 0] = 1.0, False
    assert torch.allclose(spread(codes, missing), torch.ones(1, 2, 5, 9))
    codes[..., -1], missing[..., -1] = 3.0, False
    filled = spread(codes, missing)
    assert torch.equal(filled[..., [0, -1]], codes[..., [0, -1]]) and (filled[..., 4] == 2).all()
    assert not spread(codes, torch.ones_like(missing)).any(), "nothing is known: nothing is shown"


def test_known_pixels_of_the_picture_are_the_photos() -> None:
    from tests.conftest import tiny_parts

    dfvqgan: DFVQGAN = tiny_parts()[0]
    image = torch.rand(1, 3, 32, 32, generator=seeded(0)) * 2 - 1
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 8:24] = True
    with torch.no_grad():
        encoding = dfvqgan.encode(image, mask)
        assert encoding.token_mask is not None
        positions = encoding.token_mask.flatten().nonzero()[:, 0]
        for decided in (0, 1, len(positions)):
            so_far = SoFar(encoding.tokens[0], positions, torch.ones_like(positions), decided)
            assert so_far.missing.sum() == len(positions) - decided
            picture = so_far.decode(dfvqgan, encoding.skips)
            assert torch.equal(picture.masked_fill(mask, 0), image.masked_fill(mask, 0))
        assert torch.equal(picture, dfvqgan.decode(so_far.tokens, encoding.skips))
