"""Partial convolutions: what the hole holds is ignored, a smaller hole is left, without one they are plain."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from nuwa_lip.models.partial import partial_conv2d

VQGAN = dataclasses.replace(
    DFVQGANConfig.preset("tiny"), relative_estimation=False, symmetrical_connections=False, attention_levels=(1,)
)


def make(config: DFVQGANConfig) -> DFVQGAN:
    torch.manual_seed(0)
    model = DFVQGAN(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.quantiser.codebook)
    return model


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@given(
    fill=st.sampled_from([0.0, 1e30, float("inf"), float("nan")]),
    share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from([0, 1, (0, 1, 0, 1)]),
    H=st.integers(3, 9),
    W=st.integers(3, 9),
)
def test_outputs_ignore_the_hole_and_are_scaled_by_what_is_known(
    fill: float, share: float, stride: int, padding: int | tuple[int, int, int, int], H: int, W: int
) -> None:
    x, weight, bias = noise(2, 3, H, W), noise(4, 3, 3, 3), noise(4)
    mask = torch.rand(2, 1, H, W, generator=torch.Generator().manual_seed(H * W)) < share
    out, left = partial_conv2d(x.masked_fill(mask, fill), mask, weight, bias, stride, padding)
    sides = padding if isinstance(padding, tuple) else (padding,) * 4
    known, photo = (F.unfold(F.pad(t, sides), 3, stride=stride) for t in ((~mask).float(), torch.ones(2, 1, H, W)))
    seen, whole = known.sum(1), photo.sum(1)  # [2, places]
    patches = F.unfold(F.pad(x.masked_fill(mask, 0), sides), 3, stride=stride)
    expected = weight.flatten(1) @ patches * (whole / seen.clamp(min=1))[:, None] + bias[:, None]
    expected = expected.where(seen[:, None] > 0, 0.0)
    assert torch.equal(left.flatten(1), seen == 0)
    torch.testing.assert_close(out.flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_a_mean_over_known_pixels_stays_the_mean() -> None:
    x = torch.full((1, 1, 6, 6), 3.0)
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., 1:5, 1:5] = True
    out, left = partial_conv2d(x, mask, torch.full((1, 1, 3, 3), 1 / 9), None, 1, 1)
    inner = torch.zeros_like(mask)
    inner[..., 2:4, 2:4] = True
    assert torch.equal(left, inner)  # the hole has lost its outermost pixels
    assert torch.all(out[inner] == 0)
    torch.testing.assert_close(out[..., 0, 1:5], torch.full((1, 1, 4), 3 * 6 / 9))  # padding is no hole
    torch.testing.assert_close(out[..., 1, 1:5], torch.full((1, 1, 4), 3.0))


def test_without_a_hole_it_is_the_plain_encoder() -> None:
    partial, plain = make(dataclasses.replace(VQGAN, partial_convolution=True)), make(VQGAN)
    image, nothing = noise(2, 3, 32, 32).clamp(-1, 1), torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    whole = plain.encode(image)
    assert torch.equal(partial.encode(image).latents, whole.latents)
    torch.testing.assert_close(partial.encode(image, nothing).latents, whole.latents, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2])
def test_the_content_of_the_hole_has_no_influence_but_its_place_has(patch: int) -> None:
    model = make(dataclasses.replace(VQGAN, partial_convolution=True, patch=patch))
    image, mask = noise(1, 3, 32, 32).clamp(-1, 1), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 8:24] = True
    a, b = (model.encode(image.masked_fill(mask, fill), mask) for fill in (0.0, float("nan")))
    assert torch.equal(a.latents, b.latents) and a.latents.isfinite().all()
    assert a.token_mask is not None and a.skips is not None and len(a.skips) == 3
    zeroed = make(dataclasses.replace(VQGAN, patch=patch)).encode(image, mask)
    known = ~a.token_mask[:, 0]
    whole = model.encode(image)
    assert not torch.equal(a.latents, zeroed.latents)
    # norms and attention stay plain, so known latents still differ from those of the complete photo
    assert ((a.latents - whole.latents).norm(dim=1)[known] > 1e-4).any()


def test_everything_missing_stays_finite() -> None:
    model = make(dataclasses.replace(VQGAN, partial_convolution=True))
    encoding = model.encode(noise(1, 3, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool))
    assert encoding.latents.isfinite().all()


def test_it_excludes_relative_estimation() -> None:
    with pytest.raises(InputError, match="partial_convolution stands in place of relative_estimation"):
        DFVQGANConfig(partial_convolution=True)
