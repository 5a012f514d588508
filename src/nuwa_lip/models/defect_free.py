"""Relative estimation (Eq. 4-6): convolution, group norm and attention that see known positions only.

Each operation takes the hole's `mask` (bool, True = defective) and is the plain torch operation when it is None. The
hole is excluded by selection, never by multiplying with zero, because 0 * NaN is NaN: whatever stands in the hole,
known outputs are the same to the bit, and outputs in the hole are finite.

Legend: B batch, C channels, H W height and width, N = H * W positions, n known ones, G groups, d width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv2d(
    x: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | tuple[int, int, int, int] = 0,
) -> Tensor:
    """Convolve with defective inputs taken as zero (Eq. 5).

    Args:
        x: [B, C, H, W].
        mask: bool [B, 1, H, W] at the size of x, or None for the plain convolution.
        weight: [C_out, C, k, k].
        bias: [C_out].
        stride: as in `torch.nn.functional.conv2d`.
        padding: pixels on every side, or (left, right, top, bottom).
    """
    if mask is not None:
        x = torch.where(mask, 0, x)  # unlike `masked_fill` it keeps the order of x in memory, channels last too
    if isinstance(padding, tuple):
        x, padding = F.pad(x, padding), 0
    return F.conv2d(x, weight, bias, stride, padding)


def group_norm(
    x: Tensor,
    mask: Tensor | None,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise groups of channels by the (biased) mean and variance over known positions (Eq. 4).

    Once the known mean is subtracted and the hole is zero, the plain group norm finds the mean 0 and n/N of the known
    variance. Scaling its input by sqrt(N/n) makes the variance right, and dividing the weight by it undoes the scale.

    Args:
        x: [B, C, H, W].
        mask: bool [B, 1, H, W], or None for the plain group norm.
        num_groups: G, a divisor of C.
        weight: [C], or None.
        bias: [C], or None.
        eps: ε, added to the variance.
    """
    if mask is None:
        return F.group_norm(x, num_groups, weight, bias, eps)
    B, C, H, W = x.shape
    known = (~mask).sum((1, 2, 3)).clamp(min=1)  # [B], n
    scale = (H * W / known).sqrt()[:, None]  # [B, 1], sqrt(N/n)
    total = x.masked_fill(mask, 0).reshape(B, num_groups, -1).sum(-1, dtype=torch.float32)  # [B, G]
    mean = (total / (known[:, None] * (C // num_groups))).repeat_interleave(C // num_groups, 1)  # [B, C]
    # in float32: a mean rounded to bf16 is off by up to its 256th part, more than the spread of values far from zero
    centred = (x - mean[:, :, None, None]).masked_fill(mask, 0) * scale[:, :, None, None]
    centred = centred.to(x.dtype)
    weight = (1 / scale).expand(B, C).to(x.dtype) if weight is None else (weight / scale).to(weight.dtype)  # [B, C]
    bias = torch.zeros_like(weight) if bias is None else bias.expand(B, C)
    # samples stand as further groups of one sample, which gives each its own weight
    centred, weight, bias = centred.reshape(1, B * C, H, W), weight.reshape(-1), bias.reshape(-1)
    return F.group_norm(centred, B * num_groups, weight, bias, eps).view(B, C, H, W)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend to known positions only (Eq. 6); with nothing known the result is zero.

    Args:
        q, k, v: [B, heads, N, d].
        mask: bool [B, N], True = defective, or None for plain attention.
    """
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    q, k, v = (t.masked_fill(mask[:, None, :, None], 0) for t in (q, k, v))
    attendable = ~mask | mask.all(dim=1, keepdim=True)  # softmax over no key at all would be NaN
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attendable[:, None, None, :])


def blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x with zeros in the hole; x itself if the mask is None."""
    return x if mask is None else x.masked_fill(mask, 0)


def pool_mask(mask: Tensor, size: int = 2) -> Tensor:
    """Reduce a mask [B, 1, H, W]: a cell is defective if any of its size x size pixels is (Eq. 8)."""
    return F.max_pool2d(mask.to(torch.float32), size).bool()


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with relative estimation when a mask is given (Eq. 5)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Convolve x [B, C, H, W]; mask as in `conv2d`."""
        return conv2d(x, mask, self.weight, self.bias, self.stride[0], self.padding[0])  # type: ignore[arg-type]


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` with relative estimation when a mask is given (Eq. 4)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Normalise x [B, C, H, W]; mask as in `group_norm`."""
        return group_norm(x, mask, self.num_groups, self.weight, self.bias, self.eps)

    def swish(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute silu(norm(x)), zero in the hole: with that input a plain convolution is that of Eq. 5."""
        return blank(F.silu(self(x, mask)), mask)
