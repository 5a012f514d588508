"""A VQGAN's encoder with partial convolutions (Liu et al. 2018), which §3.2 compares relative estimation with.

Every 3 x 3 convolution sees known pixels only, scales up what they give, and leaves a smaller hole to the next;
1 x 1 convolutions carry nothing from one position to another. Norms and attention stay those of the plain
encoder, over activations that are zero in what is left of the hole: there the hole leaks.

Legend: B batch, H W cells of the finest level, h w token grid, n_z width of a code.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models.defect_free import conv2d
from nuwa_lip.models.vqgan import AttentionBlock, Encoder, ResidualBlock


def partial_conv2d(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | tuple[int, int, int, int] = 0,
) -> tuple[Tensor, Tensor]:
    """Convolve known pixels only, and shrink the hole (Liu et al. 2018).

    What the window's known pixels give is scaled by (its pixels) / (its known pixels), and an output is known as
    soon as one of them is; defective outputs are zero. Pixels of the padding count as neither, so that without a
    hole this is the plain convolution.

    Args:
        x, mask, weight, bias, stride, padding: as in `defect_free.conv2d`; the mask is required.

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


def encode_partially(encoder: Encoder, cells: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Encode photos with holes → latents float32 [B, n_z, h, w], and the activation of each level.

    Args:
        encoder: with the weights of a VQGAN.
        cells: [B, C, H, W]; anything in the hole, NaN included.
        mask: bool [B, 1, H, W], True = defective.
    """
    (h, mask), activations = _convolve(encoder.conv_in, cells, mask), []
    for i, level in enumerate(encoder.levels):
        h, mask = _blocks(cast(nn.ModuleList, level), h, mask)
        activations.append(h)
        if i < len(encoder.downs):
            conv = cast(nn.Conv2d, encoder.downs[i].conv)
            h, mask = partial_conv2d(h, mask, conv.weight, conv.bias, 2, (0, 1, 0, 1))
    h, mask = _blocks(encoder.middle, h, mask)
    h, mask = _convolve(encoder.conv_out, F.silu(encoder.norm_out(h)), mask)
    return encoder.to_code(h).float(), activations


def _blocks(blocks: nn.ModuleList, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Run residual and attention blocks; the hole stays zero between them → states, and the hole that is left."""
    for block in blocks:
        if isinstance(block, AttentionBlock):
            h = block(h)
        else:
            h, mask = _residual(cast(ResidualBlock, block), h, mask)
        h = h.masked_fill(mask, 0)
    return h, mask


def _residual(block: ResidualBlock, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    h, left = _convolve(block.conv1, F.silu(block.norm1(x)), mask)
    h, left = _convolve(block.conv2, F.silu(block.norm2(h)), left)
    return h + (x if block.shortcut is None else block.shortcut(x)), left


def _convolve(conv: nn.Conv2d, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return partial_conv2d(x, mask, conv.weight, conv.bias, padding=cast(int, conv.padding[0]))
