"""Dropout whose choices belong to the sample: a batch gives the same however it is cut into parts and processes.

PyTorch draws the choices of a batch one after another, so that those of a sample depend on its neighbours and on their
padding. Here they are a hash of the own seed of the sample, the layer, the row and the channel; it needs no state, so
that blocks which run again for their gradients (gradient checkpointing) make the same choices.

Legend: B batch, N rows, D width.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SampleDropout:
    """Puts such dropout in the place of a model's own.

    Args:
        model: its dropout layers are changed, in place; their inputs are [B, N, D].
    """

    seeds: Tensor | None = None
    """Of the samples of the next forward pass, int32 [B]; None: PyTorch's dropout."""

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
        for number, layer in enumerate(layers):
            site = torch.tensor(number + 1, dtype=torch.int32) * 0x9E3779B
            layer.forward = partial(self.drop, layer, site)  # type: ignore[method-assign]

    def drop(self, layer: nn.Dropout, site: Tensor, x: Tensor) -> Tensor:
        """Drop a share of the channels of x [B, N, D], in training.

        Args:
            layer: says the share, and whether it is in training.
            site: a number of the layer's own, int32.
            x: states.
        """
        if not layer.training or self.seeds is None:
            return F.dropout(x, layer.p, layer.training)
        if layer.p >= 1:
            return torch.zeros_like(x)
        n, d = (torch.arange(size, device=x.device, dtype=torch.int32) for size in x.shape[1:])
        rows = _mixed(_mixed(self.seeds[:, None] + site.to(x.device)) + n)
        bits = _mixed(rows[..., None] ^ _mixed(d + 0x3C6EF37))
        kept = (bits & 0x7FFFFFFF) >= int(layer.p * 2**31)
        return x * (kept / (1 - layer.p)).to(x.dtype)


def seeds_of(rng: Sequence[np.random.Generator]) -> Tensor:
    """Draw the seed of each sample's dropout from its own random numbers, int32 [B]."""
    return torch.tensor([int(own.integers(2**31)) for own in rng], dtype=torch.int32)


def _mixed(bits: Tensor) -> Tensor:
    """Mix int32 numbers so that neighbours become unlike (MurmurHash3's last step)."""
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * -2048144789
    bits = (bits ^ ((bits >> 13) & 0x7FFFF)) * -1028477387
    return bits ^ ((bits >> 16) & 0xFFFF)
