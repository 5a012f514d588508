"""What cached decoding keeps from step to step.

Legend: G memories, C candidates of each, R new rows, N tokens of the grid, M length of a memory, L slots in use, D
width, d width of a head, r regions of the caption prior on a side.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nuwa_lip.models.rotary import Rotation

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each [B, heads, M, d]."""


class BatchPadding(NamedTuple):
    """The real ones of the C sequences of each memory; the others repeat the last one of these.

    These keep the number of rows of every matrix product the same, and with it a row's last bits. Attention leaves
    them out where its bits do not depend on their number (docs/design.md).
    """

    real: int
    padded: int
    """C"""

    def strip(self, x: Tensor) -> Tensor:
        """Leave the padding out: [G · C, ...] → [G · real, ...]."""
        return x.unflatten(0, (-1, self.padded))[:, : self.real].flatten(0, 1)

    def restore(self, x: Tensor) -> Tensor:
        """Repeat the last real sequence: [G · real, ...] → [G · C, ...]."""
        x = x.unflatten(0, (-1, self.real))
        padding = x[:, -1:].expand(-1, self.padded - self.real, *x.shape[2:])
        return torch.cat([x, padding], 1).flatten(0, 1)


class CachedRows(NamedTuple):
    """The places of new rows in one layer's cache, and what they see there."""

    cache: KeysValues
    """Keys and values, each [B, heads, capacity, d], written in place; B without padding."""
    slots: Tensor
    """int64 [R]"""
    visible: Tensor
    """bool [R, L], True = may be attended."""
    padding: BatchPadding | None = None


@dataclass(frozen=True)
class DecoderCache:
    """The state of cached decoding: every layer's earlier rows, and what it reads of the memories."""

    layers: list[KeysValues]
    memory: list[KeysValues]
    memory_mask: Tensor
    """bool [G, 1, 1, M], True = may be attended."""
    tokens: Tensor
    """[G · C, N, D], the token encoder's states, for the pointer."""
    rotation: Rotation | None
    """The rotation of the N tokens of the grid; None without rotary positions."""
    shifts: Tensor | None = None
    """[G · C, layers, D], what each block adds of the caption's mean state."""
    known: Tensor | None = None
    """int64 [G · C, N], the photos' tokens, `groups.NO_TOKEN` in the hole, for the neighbours."""
    prior: Tensor | None = None
    """[G · C, r², D], by how much the caption tilts the output in each region."""
    padding: BatchPadding | None = None
