"""DF-VQGAN at inference: no memory that can be spared, and on a CPU norms of the known rows alone, channels last.

`speed_up` puts these forms on a model whose plain ones are in `nuwa_lip.models`. They compute the same from the same
parameters and step aside wherever a gradient is needed. Fresh memory for a large tensor takes a CPU longer than the
arithmetic on it, hence the sums in place. With channels last in memory convolutions are a quarter faster at full
resolution, and each position's channels are a row: the norm takes the known rows out and puts them back.

Legend: B batch, C channels, H W height and width, N = H * W positions, n known ones of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models.defect_free import GroupNorm
from nuwa_lip.models.dfvqgan import DFVQGAN, Skips
from nuwa_lip.models.vqgan import Encoder, ResidualBlock

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer types by the number of their bytes."""


def speed_up(dfvqgan: DFVQGAN) -> None:
    """Put the forms for inference on a model, in place; the parameters and their names stay."""
    for module in dfvqgan.modules():
        module.__class__ = FORMS.get(type(module), type(module))


class FastGroupNorm(GroupNorm):
    """A group norm whose swish is computed in place, on a CPU of the known rows alone."""

    def swish(self, x: Tensor, mask: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """Compute what `GroupNorm.swish` does.

        Args:
            x, mask: as for `GroupNorm.swish`.
            overwrite: x is not needed any more; its memory may become the result's.
        """
        if not _inference(x, self.weight):
            return super().swish(x, mask)
        if mask is None:
            return F.silu(self(x), inplace=True)
        if x.device.type != "cpu":
            return F.silu(self(x, mask), inplace=True).masked_fill_(mask, 0)
        return swish_rows(x, mask, self.num_groups, self.weight, self.bias, self.eps, overwrite)


class FastResidualBlock(ResidualBlock):
    """A residual block that reuses the memory of its first convolution."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute what `ResidualBlock.forward` does."""
        norm1, norm2 = self.norm1, self.norm2
        if not (_inference(x, self.conv1.weight) and isinstance(norm2, FastGroupNorm)):
            return super().forward(x, mask)
        h = self.conv1(norm1.swish(x, mask))
        h = self.conv2(norm2.swish(h, mask, overwrite=True))
        return h.add_(x if self.shortcut is None else self.shortcut(x))


class FastEncoder(Encoder):
    """An encoder that clears its holes in place."""

    def blank(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Compute what `Encoder.blank` does."""
        inference = h.device.type == "cpu" and _inference(h, self.conv_in.weight)
        if mask is None or not (inference and h.is_contiguous(memory_format=torch.channels_last)):
            return super().blank(h, mask)
        return blank_(h, mask)


class FastDFVQGAN(DFVQGAN):
    """A DF-VQGAN that keeps channels last in memory on a CPU wherever a hole is encoded or connected."""

    def _encode(self, image: Tensor, masks: list[Tensor] | list[None]) -> tuple[Tensor, list[Tensor]]:
        return super()._encode(image if masks[0] is None else _channels_last(image), masks)

    def _connect(self, i: int, h: Tensor, skips: Skips | None) -> Tensor:
        connected = skips is not None and i + 1 < len(skips)
        return super()._connect(i, _channels_last(h) if connected else h, skips)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    DFVQGAN: FastDFVQGAN,
    Encoder: FastEncoder,
    GroupNorm: FastGroupNorm,
    ResidualBlock: FastResidualBlock,
}
"""The form for inference of each plain one."""


def swish_rows(
    x: Tensor,
    mask: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    overwrite: bool = False,
) -> Tensor:
    """Compute silu(group_norm(x, mask)) of the known rows, zero in the hole, with channels last in memory.

    Args:
        x, mask, num_groups, weight, bias, eps: as in `defect_free.group_norm`, all but the mask in one precision.
        overwrite: x is not needed any more; its memory may become the result's.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    out = x if overwrite else torch.empty_like(x)
    for sample, result, hole in zip(x, out, mask.flatten(1), strict=True):
        known = (~hole).nonzero()[:, 0]
        if len(known) == 0:
            continue
        rows = _rows(sample).index_select(0, known)
        rows -= _group_means(rows, num_groups)  # with channels last the variance of large values would be lost
        alone = rows.view(1, -1, 1, x.shape[1]).permute(0, 3, 1, 2)  # [1, C, n, 1]
        alone = torch.group_norm(alone, num_groups, weight, bias, eps)  # unlike F's, of a single value too
        rows = _rows(F.silu(alone, inplace=True)[0])  # [n, C]
        back = (~hole).cumsum(0).sub_(1).clamp_(0)  # the row of each known position; in the hole any row
        torch.index_select(rows, 0, back, out=_rows(result))
    return blank_(out, mask)


def blank_(x: Tensor, mask: Tensor) -> Tensor:
    """Write zeros into the hole of x [B, C, H, W], which has its channels last in memory.

    All bits are kept or cleared by a mask of bits, which is four times as fast as filling, and clears NaN too.
    """
    keep = mask.to(INTEGERS[x.dtype.itemsize]) - 1  # 0 in the hole, all bits set elsewhere
    x.view(keep.dtype).bitwise_and_(keep)
    return x


def _inference(x: Tensor, weight: Tensor) -> bool:
    """Whether arithmetic in place may be used: no gradient is needed, and all is in one precision."""
    return (
        not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
    )


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def _group_means(rows: Tensor, num_groups: int) -> Tensor:
    """Return the mean of each channel's group, [n, C] → float32 [C]."""
    means = rows.sum(0, dtype=torch.float32).view(num_groups, -1).mean(1) / len(rows)
    return means.repeat_interleave(rows.shape[1] // num_groups)


def _rows(x: Tensor) -> Tensor:
    """View a sample [C, H, W] with channels last as rows [N, C]."""
    return x.permute(1, 2, 0).flatten(0, 1)
