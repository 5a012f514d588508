"""The official code's ways of encoding and decoding, re-created on our own modules, with nothing of it copied.

Encoding: every convolution (those of 1 x 1 too) and every norm runs twice, over the whole photo and over its known
part, and both results are multiplied by the mask and its opposite and added; norms and attention are written out, their
masks as large as what they mask. Decoding: no cache, for every token everything again.

At known positions the encoding is that of `DFVQGAN.encode`, but for the variance of the norms: officially that of a
sample (n - 1), Eq. 4 and ours that of a population (n). In the hole it is another one, which nobody uses. It has the
official code's number of operations (332 GFLOP at the official size), and is the faster one of the two: 6.7 against 9.9
seconds of a core, alternating on a busy machine, where ours takes 2.1. So ratios to it understate.

Legend: B batch, C channels, H W pixels, N = H * W, G groups, n known elements of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nuwa_lip.bench.sizes import Photo
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.models.dfvqgan import Encoding
from nuwa_lip.models.vqgan import AttentionBlock, ResidualBlock


@torch.inference_mode()
def masked_encode(model: DFVQGAN, image: Tensor, mask: Tensor, *, unbiased: bool = True) -> Encoding:
    """What `model.encode(image, mask)` is for, as the official code does it.

    Args:
        model: with cells of one pixel, as the official one.
        image: [B, 3, H, W] in [-1, 1], the hole's content included.
        mask: bool [B, 1, H, W], True = defective.
        unbiased: the official variance; off: that of Eq. 4, to compare with ours.
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
    """One token: all encoders and the whole grid of the decoder again.

    Args:
        model: in float32.
        inputs: of one photo.
    """
    memory = model.encode(*inputs)
    order = torch.arange(inputs[3][0].numel())[None]
    return model.predict(memory, inputs[3].flatten(1), order)


def _mix(mask: Tensor, whole: Tensor, known: Tensor) -> Tensor:
    return whole * mask + known * ~mask


def _conv(layer: nn.Module, x: Tensor, mask: Tensor, after: Tensor | None = None) -> Tensor:
    """Both branches; `after` is the mask at the output's size, if that is another."""
    return _mix(mask if after is None else after, layer(x), layer(x * ~mask))


def _norm(layer: nn.GroupNorm, x: Tensor, mask: Tensor, unbiased: bool) -> Tensor:
    """Both branches: with the mean and variance of everything, and of known positions."""
    groups = x.view(len(x), layer.num_groups, -1)  # [B, G, C / G · N]
    kept = (~mask).expand_as(x).reshape(groups.shape)
    n = kept.sum(-1, keepdim=True)
    means = groups.mean(-1, keepdim=True), (groups * kept).sum(-1, keepdim=True) / n
    squares = ((groups - means[1]) * kept).square().sum(-1, keepdim=True)
    variances = groups.var(-1, correction=int(unbiased), keepdim=True), squares / (n - int(unbiased))
    scaled = [(groups - mean) / (var + layer.eps).sqrt() for mean, var in zip(means, variances, strict=True)]
    weight, bias = layer.weight[:, None, None], layer.bias[:, None, None]
    return _mix(mask, *(z.view_as(x) * weight + bias for z in scaled))


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
    """A known query sees known keys only, a defective one sees all."""
    h = _norm(block.norm, x, mask, unbiased)
    q, k, v = (_conv(layer, h, mask).flatten(2) for layer in (block.q, block.k, block.v))  # [B, C, N]
    hole = mask.flatten(1)
    hidden = ~hole[:, :, None] & hole[:, None]  # [B, N, N]
    scores = (q.mT @ k * q.shape[1] ** -0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    h = (v @ scores.mT).view_as(x)
    return x + _conv(block.out, h, mask)
