"""Relative estimation (Eq. 4-6): convolution, group norm and attention that see known positions only.

Each operation takes the hole's `mask` (bool, True = defective) and is the plain torch operation when it is
None. The hole is excluded by selection, never by multiplying with zero, because 0 * NaN is NaN: whatever
stands in the hole, known outputs are the same to the bit, and outputs in the hole are finite.

At inference on a CPU channels stand last in memory, where convolutions are a quarter faster at full resolution, and
where each position's channels are a row: `swish_norm` takes the known rows out, and puts them back.

Legend: B batch, C channels, H W height and width, N = H * W positions, n known ones of them, G groups, d width of an
attention head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes of an element."""


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
        x = x.clone().masked_fill_(mask, 0)  # which keeps channels last, unlike `masked_fill`
    if isinstance(padding, tuple):
        x, padding = F.pad(x, padding), 0
    return F.conv2d(x, weight, bias, stride, padding)


def partial_conv2d(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | tuple[int, int, int, int] = 0,
) -> tuple[Tensor, Tensor]:
    """Partial convolution (Liu et al. 2018), which §3.2 compares with: the hole shrinks from one to the next.

    What the window's known pixels give is scaled by (its pixels) / (its known pixels), and an output is known as
    soon as one of them is; defective outputs are zero. Pixels of the padding count as neither, so that without a
    hole this is the plain convolution.

    Args:
        x, mask, weight, bias, stride, padding: as in `conv2d`, the mask given.

    Returns:
        Outputs [B, C_out, H', W'] and their mask, bool [B, 1, H', W'].
    """
    window = torch.ones_like(weight[:1, :1])
    known = (~mask).to(x.dtype)
    seen = conv2d(known, None, window, None, stride, padding)
    whole = conv2d(torch.ones_like(known[:1]), None, window, None, stride, padding)
    out = conv2d(x, mask, weight, None, stride, padding) * (whole / seen.clamp(min=1))
    if bias is not None:
        out = out + bias[:, None, None]
    defective = seen < 0.5
    return out.masked_fill(defective, 0), defective


def group_norm(
    x: Tensor,
    mask: Tensor | None,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise groups of channels by the (biased) mean and variance over known positions (Eq. 4).

    With the mean of the known positions taken off and the hole zero, the plain group norm finds mean 0 and
    n/N of the known variance. Scaling by sqrt(N/n) makes the variance right, and dividing the weight by it
    undoes the scale, so that the plain, fused operation does the work.

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
    scale = (H * W / known).sqrt().to(x.dtype)[:, None]  # [B, 1], sqrt(N/n)
    total = x.masked_fill(mask, 0).reshape(B, num_groups, -1).sum(-1, dtype=torch.float32)  # [B, G]
    mean = (total / (known[:, None] * (C // num_groups))).repeat_interleave(C // num_groups, 1)  # [B, C]
    centred = (x - mean.to(x.dtype)[:, :, None, None]).masked_fill(mask, 0)
    centred = centred * scale[:, :, None, None]
    # [B, C] each
    weight = (1 / scale).expand(B, C) if weight is None else (weight / scale.float()).to(weight.dtype)
    bias = torch.zeros_like(weight) if bias is None else bias.expand(B, C)
    # samples stand as further groups of one sample, which gives each its own weight
    centred, weight, bias = centred.reshape(1, B * C, H, W), weight.reshape(-1), bias.reshape(-1)
    return F.group_norm(centred, B * num_groups, weight, bias, eps).view(B, C, H, W)


def swish_norm(
    x: Tensor,
    mask: Tensor | None,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    overwrite: bool = False,
) -> Tensor:
    """silu(group_norm(x, mask)) with zeros in the hole: what a plain convolution turns into Eq. 5.

    Args:
        x, mask, num_groups, weight, bias, eps: as in `group_norm`.
        overwrite: x is not needed any more; its memory may become the result's. Fresh memory for a large tensor takes
            longer than the arithmetic on it.
    """
    if mask is None:
        return _silu(F.group_norm(x, num_groups, weight, bias, eps))
    if not _inference(x, weight):
        return _silu(group_norm(x, mask, num_groups, weight, bias, eps)).masked_fill(mask, 0)
    x = x.contiguous(memory_format=torch.channels_last)
    out = x if overwrite else torch.empty_like(x)
    for sample, result, hole in zip(x, out, mask.flatten(1), strict=True):
        known = (~hole).nonzero()[:, 0]
        if len(known) == 0:
            continue
        rows = _rows(sample).index_select(0, known)
        rows -= _group_means(rows, num_groups)  # or with channels last the variance of what is far from 0 is lost
        alone = rows.view(1, -1, 1, x.shape[1]).permute(0, 3, 1, 2)  # [1, C, n, 1]
        alone = torch.group_norm(alone, num_groups, weight, bias, eps)  # unlike F's, of a single value too
        rows = _rows(_silu(alone)[0])  # [n, C]
        back = (~hole).cumsum(0).sub_(1).clamp_(0)  # where each position's row is, in the hole anyone's
        torch.index_select(rows, 0, back, out=_rows(result))
    return blank(out, mask)


def blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """X with zeros in the hole, for an x that nobody else uses: at inference on a CPU in place, with channels last."""
    if mask is None:
        return x
    if not (_inference(x, x) and x.is_contiguous(memory_format=torch.channels_last)):
        return x.masked_fill(mask, 0)
    # 0 in the hole, all bits set elsewhere: four times as fast as filling, NaN included
    keep = mask.to(INTEGERS[x.dtype.itemsize]) - 1
    x.view(keep.dtype).bitwise_and_(keep)
    return x


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend to known positions only (Eq. 6); with nothing known the result is zero.

    Args:
        q, k, v: [B, heads, N, d].
        mask: bool [B, N], True = defective, or None for plain attention.
    """
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    hole = mask[:, None, :, None]  # [B, 1, N, 1]
    q, k, v = (t.masked_fill(hole, 0) for t in (q, k, v))
    attendable = ~mask | mask.all(dim=1, keepdim=True)  # softmax over no key at all would be NaN
    return F.scaled_dot_product_attention(q, k, v, attn_mask=attendable[:, None, None, :])


def pool_mask(mask: Tensor) -> Tensor:
    """Halve a mask [B, 1, H, W]: a cell is defective if any of its 2 x 2 pixels is (m_i of Eq. 9)."""
    return F.max_pool2d(mask.to(torch.float32), 2).bool()


def add(x: Tensor, h: Tensor) -> Tensor:
    """H + x, for an h that nobody else uses: in place where no gradient needs it."""
    return h + x if h.requires_grad or h.dtype != x.dtype else h.add_(x)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not x.requires_grad)


def _inference(x: Tensor, weight: Tensor) -> bool:
    """Whether arithmetic on known rows alone, and in place, may be used: inference on a CPU, in one precision."""
    return (
        x.device.type == "cpu"
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _group_means(rows: Tensor, num_groups: int) -> Tensor:
    """Of each group of channels, for each of its channels: [n, C] → [C]."""
    means = rows.sum(0, dtype=torch.float32).view(num_groups, -1).mean(1) / len(rows)
    return means.repeat_interleave(rows.shape[1] // num_groups).to(rows.dtype)


def _rows(x: Tensor) -> Tensor:
    """A sample [C, H, W] with channels last → [N, C], the same memory."""
    return x.permute(1, 2, 0).flatten(0, 1)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with relative estimation when a mask is given (Eq. 5)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Convolve as `conv2d`."""
        return conv2d(x, mask, self.weight, self.bias, self.stride[0], self.padding[0])  # type: ignore[arg-type]


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` with relative estimation when a mask is given (Eq. 4)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Normalise as `group_norm`."""
        return group_norm(x, mask, self.num_groups, self.weight, self.bias, self.eps)

    def swish(self, x: Tensor, mask: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """`swish_norm` with this norm's parameters."""
        return swish_norm(x, mask, self.num_groups, self.weight, self.bias, self.eps, overwrite)
