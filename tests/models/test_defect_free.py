"""Relative estimation: nothing known depends on the hole; without a hole it is plain torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nuwa_lip.models.defect_free import Conv2d, GroupNorm, attention, blank, conv2d, group_norm, pool_mask

quick = settings(max_examples=12, deadline=None)
MASKS = ("none", "all", "pixel", "checkerboard", "half", "random")
FILLS = (0.0, 1e30, float("inf"), float("-inf"), float("nan"))


def hole(kind: str, B: int, H: int, W: int) -> Tensor:
    """bool [B, 1, H, W]; samples differ where the kind lets them."""
    mask = torch.zeros(B, 1, H, W, dtype=torch.bool)
    if kind == "all":
        mask[:] = True
    elif kind == "pixel":
        mask[..., H // 2, W // 3] = True
    elif kind == "checkerboard":
        mask[:] = (torch.arange(H)[:, None] + torch.arange(W)) % 2 == 0
    elif kind == "half":
        mask[..., W // 2 :] = True
    elif kind == "random":
        mask = torch.rand(B, 1, H, W, generator=torch.Generator().manual_seed(H)) < 0.6
    return mask


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm_of(weight: Tensor, bias: Tensor, eps: float = 1e-5) -> GroupNorm:
    """A module of four groups with these parameters."""
    norm = GroupNorm(4, len(weight), eps)
    norm.weight, norm.bias = (nn.Parameter(t.detach(), requires_grad=t.requires_grad) for t in (weight, bias))
    return norm


def same(a: Tensor, b: Tensor, mask: Tensor) -> bool:
    """Equal to the bit where known."""
    return torch.equal(a.masked_fill(mask, 0), b.masked_fill(mask, 0))


cases = given(
    kind=st.sampled_from(MASKS),
    fill=st.sampled_from(FILLS),
    H=st.integers(1, 9),
    W=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    grad=st.booleans(),
)


@cases
@quick
def test_known_outputs_ignore_the_hole(
    kind: str, fill: float, H: int, W: int, dtype: torch.dtype, layout: torch.memory_format, grad: bool
) -> None:
    mask = hole(kind, 2, H, W)
    weight, gain, shift = noise(6, 8, 3, 3).to(dtype), noise(8).to(dtype), noise(8, seed=1).to(dtype)
    weight.requires_grad_(grad), gain.requires_grad_(grad)
    x = noise(2, 8, H, W).to(dtype).contiguous(memory_format=layout)
    operations = {
        "conv": lambda x: conv2d(x, mask, weight, noise(6).to(dtype), padding=1),
        "norm": lambda x: group_norm(x, mask, 4, gain, shift, 1e-6),
        "swish": lambda x: norm_of(gain, shift, 1e-6).swish(x, mask),
        "blank": lambda x: blank(x, mask),
        "attention": lambda x: attention(*x.flatten(2).mT[:, None].expand(3, -1, -1, -1, -1), mask.flatten(1)),
    }
    for name, operation in operations.items():
        clean, filled = operation(x), operation(x.clone().masked_fill_(mask, fill))
        known = mask.flatten(1)[:, None, :, None] if name == "attention" else mask
        assert same(clean, filled, known), name
        assert clean.isfinite().all() and filled.isfinite().all(), name


@given(
    kind=st.sampled_from(MASKS[:1] + MASKS[2:]),
    grad=st.booleans(),
    far=st.sampled_from([0, 1000]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
@quick
def test_group_norm_is_that_of_the_known_positions_alone(
    kind: str, grad: bool, far: float, layout: torch.memory_format
) -> None:
    mask = hole(kind, 3, 7, 6)
    x = (noise(3, 8, 7, 6) + far).contiguous(memory_format=layout).requires_grad_(grad)
    weight, bias = noise(8), noise(8, seed=1)
    out = group_norm(x, mask, 4, weight, bias, 1e-6)
    swished = norm_of(weight, bias, 1e-6).swish(x, mask)
    for i in range(3):
        known = ~mask[i, 0].flatten()
        values = x[i].flatten(1)[None, :, known].double()
        alone = F.group_norm(values, 4, weight.double(), bias.double(), 1e-6)[0]
        tolerance = 1e-2 if far else 1e-5  # float32 has 7 digits, and the mean takes 3 of them
        torch.testing.assert_close(out[i].flatten(1)[:, known].double(), alone, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            swished[i].flatten(1)[:, known].double(), F.silu(alone), rtol=tolerance, atol=tolerance
        )
        assert (swished[i].flatten(1)[:, ~known] == 0).all()


def test_group_norm_in_bf16_of_values_far_from_zero() -> None:
    """Their mean is subtracted before anything is rounded: rounded first, errors are eight times as large."""
    mask, x = hole("random", 1, 16, 16), (noise(1, 8, 16, 16) + 30).bfloat16()
    known = ~mask.expand_as(x)
    exact = group_norm(x.double(), mask, 4)[known]
    error = group_norm(x, mask, 4)[known].double() - exact
    assert error.square().mean().sqrt() < 0.004


def test_group_norm_follows_equation_4() -> None:
    """Literally: with the hole zero, the mean times N/(N - N_m), and the variance of the filled input too."""
    mask, x = hole("random", 1, 8, 8), noise(1, 4, 8, 8) * 3 + 1
    N, N_m = 4 * 64, 4 * int(mask.sum())
    x = x.masked_fill(mask, 0)
    mean = x.mean() * N / (N - N_m)
    variance = torch.where(mask, mean, x).var(correction=0) * N / (N - N_m)
    expected = (x - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(
        group_norm(x, mask, 1).masked_fill(mask, 0), expected.masked_fill(mask, 0), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("grad", [False, True])
def test_a_single_known_value_is_normalised_to_the_bias(grad: bool) -> None:
    mask = hole("all", 1, 3, 3)
    mask[..., 1, 2] = False
    x, weight, bias = noise(1, 4, 3, 3), noise(4).requires_grad_(grad), noise(4, seed=1)
    out = norm_of(weight, bias).swish(x, mask)
    torch.testing.assert_close(out[0, :, 1, 2], F.silu(bias), atol=1e-3, rtol=1e-3)
    assert (out.masked_select(mask) == 0).all()


@given(kind=st.sampled_from(MASKS), heads=st.integers(1, 3))
@quick
def test_attention_is_that_over_the_known_set(kind: str, heads: int) -> None:
    mask = hole(kind, 2, 1, 12)[:, 0, 0]  # [B, N]
    q, k, v = (noise(2, heads, 12, 4, seed=seed) for seed in range(3))
    out = attention(q, k, v, mask)
    for i in range(2):
        known = ~mask[i]
        alone = F.scaled_dot_product_attention(*(t[i : i + 1, :, known] for t in (q, k, v)))
        torch.testing.assert_close(out[i : i + 1, :, known], alone, rtol=1e-5, atol=1e-5)
    if kind == "all":
        assert (out == 0).all()


@given(
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from([0, 1, (0, 1, 0, 1)]),
    kind=st.sampled_from(MASKS),
)
@quick
def test_conv2d_takes_the_hole_as_zero(stride: int, padding: int | tuple[int, ...], kind: str) -> None:
    mask, x, weight, bias = hole(kind, 2, 8, 7), noise(2, 3, 8, 7), noise(5, 3, 3, 3), noise(5)
    out = conv2d(x, mask, weight, bias, stride, padding)  # type: ignore[arg-type]
    padded = (padding,) * 4 if isinstance(padding, int) else padding
    expected = F.conv2d(F.pad(x * ~mask, padded), weight, bias, stride)
    torch.testing.assert_close(out, expected)


def test_without_a_mask_it_is_plain_torch_to_the_last_bit() -> None:
    x, weight, gain, shift = noise(2, 8, 7, 5), noise(6, 8, 3, 3), noise(8), noise(8, seed=1)
    assert torch.equal(conv2d(x, None, weight, None, padding=1), F.conv2d(x, weight, padding=1))
    norm = F.group_norm(x, 4, gain, shift, 1e-6)
    assert torch.equal(group_norm(x, None, 4, gain, shift, 1e-6), norm)
    assert torch.equal(norm_of(gain, shift, 1e-6).swish(x), F.silu(norm))
    q = x.flatten(2)[:, None]
    assert torch.equal(attention(q, q, q, None), F.scaled_dot_product_attention(q, q, q))
    assert blank(x, None) is x


def test_with_an_empty_hole_it_is_plain_torch() -> None:
    x, weight, gain, shift = noise(2, 8, 7, 5), noise(6, 8, 3, 3), noise(8), noise(8, seed=1)
    empty = hole("none", 2, 7, 5)
    assert torch.equal(conv2d(x, empty, weight), F.conv2d(x, weight))
    torch.testing.assert_close(group_norm(x, empty, 4, gain, shift), F.group_norm(x, 4, gain, shift))
    swished = norm_of(gain, shift).swish(x, empty)
    torch.testing.assert_close(swished, F.silu(F.group_norm(x, 4, gain, shift)))
    q = x.flatten(2)[:, None]
    torch.testing.assert_close(
        attention(q, q, q, torch.zeros(2, 8, dtype=torch.bool)), F.scaled_dot_product_attention(q, q, q)
    )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_the_known_positions(autocast: bool, layout: torch.memory_format) -> None:
    mask = hole("random", 2, 6, 5)
    x = noise(2, 8, 6, 5).to(memory_format=layout).requires_grad_()
    weight, bias = noise(8).requires_grad_(), noise(8, seed=1).requires_grad_()
    norm = norm_of(weight, bias)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = norm.swish(x, mask)
    out.float().square().sum().backward()
    grads = [x.grad, norm.weight.grad, norm.bias.grad]
    assert (x.grad.masked_select(mask) == 0).all()  # type: ignore[union-attr]

    y, w, b = (t.detach().clone().requires_grad_() for t in (x, weight, bias))
    total = torch.zeros(())
    for i in range(2):
        known = ~mask[i, 0].flatten()
        total = total + F.silu(F.group_norm(y[i].flatten(1)[None, :, known], 4, w, b)).square().sum()
    total.backward()
    for ours, expected in zip(grads, (y.grad, w.grad, b.grad), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_pool_mask_marks_a_cell_of_which_any_pixel_is_defective() -> None:
    mask = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    mask[0, 0, 1, 4] = True
    pooled = pool_mask(mask)
    assert pooled.dtype == torch.bool and pooled.nonzero().tolist() == [[0, 0, 0, 2]]
    assert torch.equal(pool_mask(mask, 1), mask)


@pytest.mark.parametrize("kind", MASKS)
def test_pooling_at_once_is_pooling_step_by_step(kind: str) -> None:
    mask = hole(kind, 2, 16, 8)
    assert torch.equal(pool_mask(mask, 8), pool_mask(pool_mask(pool_mask(mask))))


def test_modules_are_their_functions() -> None:
    x, mask = noise(2, 8, 6, 6), hole("random", 2, 6, 6)
    conv, norm = Conv2d(8, 4, 3, stride=2, padding=1), GroupNorm(4, 8)
    assert torch.equal(conv(x, mask), conv2d(x, mask, conv.weight, conv.bias, 2, 1))
    assert torch.equal(norm(x, mask), group_norm(x, mask, 4, norm.weight, norm.bias))
    assert torch.equal(norm.swish(x, mask), F.silu(norm(x, mask)).masked_fill(mask, 0))
