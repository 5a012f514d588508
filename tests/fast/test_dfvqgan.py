"""DF-VQGAN's forms for inference against the plain ones of `models`, which are their slow twins."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nuwa_lip.fast import speed_up
from nuwa_lip.fast.dfvqgan import FastDFVQGAN, FastGroupNorm, FastResidualBlock, blank_, swish_rows
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from nuwa_lip.models.defect_free import GroupNorm, group_norm
from nuwa_lip.models.vqgan import ResidualBlock
from tests.models.test_defect_free import FILLS, MASKS, hole, noise, quick, same

TINY = DFVQGANConfig.preset("tiny")
CONFIGS = {
    "tiny": TINY,
    "patches, attention, mirrored": dataclasses.replace(
        TINY, patch=2, attention_levels=(1,), mirrored_decoder=True, connection_weights=(0.5, float("inf"))
    ),
    "partial": dataclasses.replace(TINY, relative_estimation=False, partial_convolution=True),
    "vqgan": dataclasses.replace(TINY, relative_estimation=False, symmetrical_connections=False),
}


def twins(config: DFVQGANConfig, dtype: torch.dtype = torch.float32) -> tuple[DFVQGAN, DFVQGAN]:
    """A plain model, and a copy in its forms for inference."""
    torch.manual_seed(0)
    plain = DFVQGAN(config).eval().requires_grad_(False).to(dtype)
    return plain, speed_up(copy.deepcopy(plain))


def picture() -> tuple[Tensor, Tensor]:
    """Two photos [2, 3, 32, 32] and their holes."""
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[0, :, 4:20, 8:24] = True
    mask[1, :, :, 15:] = True
    return noise(2, 3, 32, 32).clamp(-1, 1), mask


def test_rows_in_bf16_of_values_far_from_zero() -> None:
    """Their mean is subtracted before anything is rounded, as in `group_norm`."""
    mask, x = hole("random", 1, 16, 16), (noise(1, 8, 16, 16) + 30).bfloat16()
    known, weight, bias = ~mask.expand_as(x), torch.ones(8), torch.zeros(8)
    exact = F.silu(group_norm(x.double(), mask, 4))[known]
    error = swish_rows(x, mask, 4, weight.bfloat16(), bias.bfloat16())[known].double() - exact
    assert error.square().mean().sqrt() < 0.004


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_both_encode_and_decode_the_same(config: DFVQGANConfig) -> None:
    plain, fast = twins(config)
    image, mask = picture()
    expected, found = plain.encode(image, mask), fast.encode(image, mask)
    assert found.token_mask is not None and expected.skips is not None and found.skips is not None
    known = ~found.token_mask
    torch.testing.assert_close(found.latents * known, expected.latents * known, atol=1e-4, rtol=1e-4)
    for (h, m), (ours, own) in zip(expected.skips, found.skips, strict=True):
        assert torch.equal(m, own)
        torch.testing.assert_close(ours, h, atol=1e-4, rtol=1e-4)
    decoded = fast.decode(expected.tokens, expected.skips)
    torch.testing.assert_close(decoded, plain.decode(expected.tokens, expected.skips), atol=1e-4, rtol=1e-4)
    merged = fast.merge_encode(image, mask).latents
    torch.testing.assert_close(merged, plain.merge_encode(image, mask).latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_without_a_mask_both_are_the_same_to_the_last_bit(config: DFVQGANConfig) -> None:
    plain, fast = twins(config)
    image, _ = picture()
    tokens = plain.encode(image).tokens
    assert torch.equal(plain.encode(image).latents, fast.encode(image).latents)
    assert torch.equal(plain.decode(tokens), fast.decode(tokens))


@pytest.mark.parametrize("fill", FILLS)
def test_known_outputs_ignore_the_hole(fill: float) -> None:
    _, fast = twins(CONFIGS["patches, attention, mirrored"])
    image, mask = picture()
    clean, filled = fast.encode(image, mask), fast.encode(image.masked_fill(mask, fill), mask)
    assert clean.token_mask is not None and clean.skips is not None and filled.skips is not None
    assert same(clean.latents, filled.latents, clean.token_mask)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(clean.skips, filled.skips, strict=True))


def test_with_gradients_both_are_the_same_to_the_last_bit() -> None:
    torch.manual_seed(0)
    plain = DFVQGAN(dataclasses.replace(TINY, symmetrical_connections=False))
    fast = speed_up(copy.deepcopy(plain))
    image, mask = picture()
    for model in (plain, fast):
        model(image, mask, torch.ones(2, dtype=torch.bool)).image.square().mean().backward()
    for (name, ours), (_, own) in zip(plain.named_parameters(), fast.named_parameters(), strict=True):
        assert ours.grad is None and own.grad is None or torch.equal(ours.grad, own.grad), name  # type: ignore[arg-type]


def test_parameters_keep_their_names_and_a_second_call_changes_nothing() -> None:
    plain, fast = twins(TINY)
    kinds = [type(module) for module in speed_up(fast).modules()]
    assert list(fast.state_dict()) == list(plain.state_dict()) and type(fast) is FastDFVQGAN
    assert FastGroupNorm in kinds and FastResidualBlock in kinds
    assert GroupNorm not in kinds and ResidualBlock not in kinds


def test_a_block_overwrites_no_input() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(8, 8, 4)
    block.__class__ = FastResidualBlock
    for norm in (block.norm1, block.norm2):
        norm.__class__ = FastGroupNorm
    mask = hole("random", 2, 6, 5)
    for one in (None, mask):
        x = noise(2, 8, 6, 5).contiguous(memory_format=torch.channels_last)
        before = x.clone()
        with torch.no_grad():
            block(x, one)
        assert torch.equal(x, before)


@given(kind=st.sampled_from(MASKS[:1] + MASKS[2:]), far=st.sampled_from([0, 1000]))
@quick
def test_the_norm_is_that_of_the_known_positions_alone(kind: str, far: float) -> None:
    mask = hole(kind, 3, 7, 6)
    x, weight, bias = noise(3, 8, 7, 6) + far, noise(8), noise(8, seed=1)
    out = swish_rows(x, mask, 4, weight, bias, 1e-6)
    for i in range(3):
        known = ~mask[i, 0].flatten()
        values = x[i].flatten(1)[None, :, known].double()
        alone = F.silu(F.group_norm(values, 4, weight.double(), bias.double(), 1e-6)[0])
        tolerance = 1e-2 if far else 1e-5  # float32 has 7 digits, and the mean takes 3 of them
        torch.testing.assert_close(out[i].flatten(1)[:, known].double(), alone, rtol=tolerance, atol=tolerance)
        assert (out[i].flatten(1)[:, ~known] == 0).all()


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_of_rows_is_the_plain_one_in_place_or_not(kind: str, dtype: torch.dtype) -> None:
    mask, x = hole(kind, 3, 6, 5), noise(3, 12, 6, 5).to(dtype)
    weight, bias = noise(12).to(dtype), noise(12, seed=1).to(dtype)
    slow = F.silu(group_norm(x, mask, 4, weight, bias)).masked_fill(mask, 0)
    rows = x.contiguous(memory_format=torch.channels_last)
    before = rows.clone()
    fast = swish_rows(rows, mask, 4, weight, bias)
    assert torch.equal(rows, before) and fast.is_contiguous(memory_format=torch.channels_last)
    error = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(fast, slow, rtol=error, atol=error)
    overwritten = swish_rows(rows, mask, 4, weight, bias, overwrite=True)
    assert torch.equal(overwritten, fast) and overwritten.data_ptr() == rows.data_ptr()


def test_a_single_known_value_is_normalised_to_the_bias() -> None:
    mask = hole("all", 1, 3, 3)
    mask[..., 1, 2] = False
    x, weight, bias = noise(1, 4, 3, 3), noise(4), noise(4, seed=1)
    out = swish_rows(x, mask, 4, weight, bias)
    torch.testing.assert_close(out[0, :, 1, 2], F.silu(bias), atol=1e-3, rtol=1e-3)
    assert (out.masked_select(mask) == 0).all()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_are_cleared_in_the_hole_only(fill: float, dtype: torch.dtype) -> None:
    mask = hole("random", 2, 5, 4)
    x = noise(2, 6, 5, 4).to(dtype).masked_fill(mask, fill).contiguous(memory_format=torch.channels_last)
    expected = x.masked_fill(mask, 0)
    assert torch.equal(blank_(x, mask), expected) and torch.equal(x, expected)


def test_a_model_in_bf16_stays_near_its_twin() -> None:
    plain, fast = twins(TINY, torch.bfloat16)
    image, mask = picture()
    expected, found = plain.encode(image, mask), fast.encode(image, mask)
    assert found.token_mask is not None
    known = ~found.token_mask
    torch.testing.assert_close(found.latents * known, expected.latents * known, atol=0.15, rtol=0.1)
