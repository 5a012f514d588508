"""The official patterns, re-created, give what ours give."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.bench import official
from nuwa_lip.bench.measure import gflop
from nuwa_lip.bench.sizes import SMALL, photo, picture, random_dfvqgan, random_mps2s


@torch.inference_mode()
def test_the_official_way_of_encoding_gives_the_same_known_part_at_twice_the_work() -> None:
    model = random_dfvqgan(SMALL.dfvqgan, "fp32")
    image, mask = picture(model.config.resolution)
    mask = torch.zeros_like(mask)
    mask[..., 5:17, 3:20] = mask[..., 28, 30] = True
    ours = model.encode(image, mask)
    for unbiased, error in ((False, 1e-5), (True, 5e-3)):  # n - 1 in place of n, the one known difference
        theirs = official.masked_encode(model, image, mask, unbiased=unbiased)
        assert ours.skips is not None and theirs.skips is not None
        assert ours.token_mask is not None and torch.equal(ours.token_mask, theirs.token_mask)
        pairs = [*zip(ours.skips, theirs.skips, strict=True)]
        pairs.append(((ours.latents, ours.token_mask), (theirs.latents, theirs.token_mask)))
        for (a, m), (b, n) in pairs:
            assert torch.equal(m, n) and (a - b).masked_fill(m, 0).abs().max() < error
            assert not unbiased or a is ours.skips[0][0] or (a - b).masked_fill(m, 0).abs().max() > 1e-5
    known = ~ours.token_mask[:, 0]
    assert torch.equal(ours.tokens[known], official.masked_encode(model, image, mask, unbiased=False).tokens[known])
    once = gflop(lambda: model.encode(image, mask))
    assert 1.9 < gflop(lambda: official.masked_encode(model, image, mask)) / once <= 2


@torch.inference_mode()
def test_a_token_of_the_official_pattern_runs_the_whole_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_mps2s(SMALL.mps2s, "fp32")
    inputs = photo(SMALL.mps2s)
    fused, attention = [], F.scaled_dot_product_attention

    def look(*args: Tensor, **options: Any) -> Tensor:
        fused.append(torch.backends.cuda.flash_sdp_enabled())
        return attention(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", look)
    everything = official.token(model, inputs)
    assert everything.shape == (1, 64, 64)
    assert len(fused) == 1 + 1 + 1 + 2 * 2 and not any(fused), "attention is written out, in every layer"
    order = torch.arange(64)[None]
    half = model.decoder.predict(model.encode(*inputs), inputs[3].flatten(1)[:, :32], order[:, :32])
    torch.testing.assert_close(half, everything[:, :32])
