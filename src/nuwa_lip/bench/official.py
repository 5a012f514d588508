"""The official code's encoding and decoding, re-created on our own modules; nothing is copied.

Encoding: every convolution (those of 1 x 1 too) and every norm runs twice, over the whole photo and over its known
part, and both results are multiplied by the mask and its opposite and added; norms and attention are written out, the
norms' masks and counts have the size of what they mask. Decoding: no cache, everything again for every token, attention
written out.

At known positions the encoding is that of `DFVQGAN.encode`, except for the variance of the norms: officially that of a
sample (n - 1), in Eq. 4 and ours that of a population (n). In the hole it differs, which nothing uses. It has the
official code's number of operations (332 GFLOP at the official size) and takes as long: 5.3 s, and the official code
5.4 (two cores, medians of five, alternating), where ours took 1.1. A token takes 25 to 27 s; with fused attention 20
to 23.

Legend: B batch, C channels, H W pixels, N = H * W, G groups, E = C / G * N elements of a group, n known ones of them.
"""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nuwa_lip.bench.sizes import Photo
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.models.dfvqgan import Encoding
from nuwa_lip.models.vqgan import AttentionBlock, ResidualBlock


@torch.inference_mode()
def masked_encode(model: DFVQGAN, image: Tensor, mask: Tensor, *, unbiased: bool = True) -> Encoding:
    """Encode as `model.encode(image, mask)` does, in the way of the official code.

    Args:
        model: with patches of one pixel, as the official one.
        image: [B, 3, H, W] in [-1, 1], the hole's content included.
        mask: bool [B, 1, H, W], True = defective.
        unbiased: use the official variance; off: that of Eq. 4, to compare with ours.
    """
    assert model.config.patch == 1
    encoder, skips = model.encoder, [(image, mask)]
    x = _conv(encoder.conv_in, image, mask)
    for i, level in enumerate(encoder.levels):
        x = _blocks(level, x, mask, unbiased)
        if i < len(encoder.downs):
            skips.append((x, mask))
            smaller = pool_mask(mask)
            x = _conv(encoder.downs[i], x, mask, smaller)
            mask = smaller
    x = _blocks(encoder.middle, x, mask, unbiased)
    x = _conv(encoder.conv_out, _swish(_norm(encoder.norm_out, x, mask, unbiased)), mask)
    latents = _conv(encoder.to_code, x, mask)
    return Encoding(latents, model.quantiser.tokens(latents), mask, skips)


@torch.inference_mode()
def token(model: MPS2S, inputs: Photo) -> Tensor:
    """Decode one token: all encoders and the whole grid of the decoder, with attention written out.

    Args:
        model: in float32.
        inputs: one photo.
    """
    order = torch.arange(inputs[3][0].numel(), device=inputs[3].device)[None]
    with sdpa_kernel(SDPBackend.MATH):
        return model.decoder.predict(model.encode(*inputs), inputs[3].flatten(1), order)


def _mix(mask: Tensor, whole: Tensor, known: Tensor) -> Tensor:
    return whole * mask + known * ~mask


def _conv(layer: nn.Module, x: Tensor, mask: Tensor, after: Tensor | None = None) -> Tensor:
    """Run both branches; `after` is the mask at the output's size, if the size changes."""
    return _mix(mask if after is None else after, layer(x), layer(x * ~mask))


def _norm(layer: nn.GroupNorm, x: Tensor, mask: Tensor, unbiased: bool) -> Tensor:
    """Run both branches: with the mean and variance of everything, and of known positions."""
    return _mix(mask, _whole_norm(layer, x, unbiased), _known_norm(layer, x * ~mask, mask, unbiased))


def _whole_norm(layer: nn.GroupNorm, x: Tensor, unbiased: bool) -> Tensor:
    groups = x.view(len(x), layer.num_groups, -1)  # [B, G, E]
    variance = groups.var(-1, correction=int(unbiased), keepdim=True)
    return _scaled(layer, groups, groups.mean(-1, keepdim=True), variance, x)


def _known_norm(layer: nn.GroupNorm, x: Tensor, mask: Tensor, unbiased: bool) -> Tensor:
    """Normalise by the mean with a zero hole, times E / n, and the variance with the hole filled by that mean."""
    groups = x.view(len(x), layer.num_groups, -1)  # [B, G, E]
    hole = mask.repeat(1, x.shape[1], 1, 1).view(groups.shape)
    defective = hole.sum(-1, keepdim=True).repeat(1, 1, groups.shape[-1])  # int64 [B, G, E], E - n everywhere
    count = torch.ones_like(defective) * groups.shape[-1]
    mean = groups.mean(-1, keepdim=True) * count / (count - defective)
    filled = groups * ~hole + mean * hole
    variance = filled.var(-1, correction=int(unbiased), keepdim=True)
    variance = variance * (count - int(unbiased)) / (count - defective - int(unbiased))
    return _scaled(layer, groups, mean, variance, x)


def _scaled(layer: nn.GroupNorm, groups: Tensor, mean: Tensor, variance: Tensor, like: Tensor) -> Tensor:
    scaled = ((groups - mean) / (variance + layer.eps).sqrt()).view_as(like)
    return scaled * layer.weight[:, None, None] + layer.bias[:, None, None]


def _swish(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def _blocks(blocks: nn.Module, x: Tensor, mask: Tensor, unbiased: bool) -> Tensor:
    for block in blocks.children():
        if isinstance(block, ResidualBlock):
            x = _residual(block, x, mask, unbiased)
        else:
            assert isinstance(block, AttentionBlock)
            x = _attention(block, x, mask, unbiased)
    return x


def _residual(block: ResidualBlock, x: Tensor, mask: Tensor, unbiased: bool) -> Tensor:
    h = _conv(block.conv1, _swish(_norm(block.norm1, x, mask, unbiased)), mask)
    h = _conv(block.conv2, _swish(_norm(block.norm2, h, mask, unbiased)), mask)
    return (x if block.shortcut is None else _conv(block.shortcut, x, mask)) + h


def _attention(block: AttentionBlock, x: Tensor, mask: Tensor, unbiased: bool) -> Tensor:
    """Attend: a known query sees known keys only, a defective one sees all."""
    h = _norm(block.norm, x, mask, unbiased)
    q, k, v = (_conv(layer, h, mask).flatten(2) for layer in (block.q, block.k, block.v))  # [B, C, N]
    hole = mask.flatten(1)
    hidden = ~hole[:, :, None] & hole[:, None]  # [B, N, N]
    scores = (q.mT @ k * q.shape[1] ** -0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    h = (v @ scores.mT).view_as(x)
    return x + _conv(block.out, h, mask)
