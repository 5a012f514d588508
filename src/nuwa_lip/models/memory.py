"""What MP-S2S's encoders give its decoder.

Legend: B batch, T text, N = h · w tokens of the grid, M length of a memory, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Memory:
    """A batch of photos as the decoder reads them; encoded once for all candidates and steps."""

    states: Tensor
    """[B, M, D], c = [c^t; c^l; c^h]"""
    mask: Tensor
    """bool [B, M], True = padding, may not be attended."""
    tokens: Tensor
    """int64 [B, h, w], ζ^x; anything at defective positions."""
    token_mask: Tensor
    """bool [B, 1, h, w], m'"""
    text_length: int
    """T: the first T states are the caption's, the last N the tokens'."""

    @property
    def caption(self) -> Tensor:
        """Return the mean of the caption's states, [B, D]."""
        return mean_state(self.states[:, : self.text_length], self.mask[:, : self.text_length])

    def __getitem__(self, image: int) -> Memory:
        """Return the memory of one photo of the batch, B = 1."""
        return self._map(lambda x: x[image : image + 1])

    def to(self, device: torch.device | str) -> Memory:
        """Return the same on a device."""
        return self._map(lambda x: x.to(device))

    def repeat(self, count: int) -> Memory:
        """Return the memory of one photo `count` times, as a batch."""
        return self._map(lambda x: x.expand(count, *x.shape[1:]))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Memory:
        states, mask, tokens, token_mask = map(change, (self.states, self.mask, self.tokens, self.token_mask))
        return Memory(states, mask, tokens, token_mask, self.text_length)


def mean_state(states: Tensor, padding: Tensor) -> Tensor:
    """Average a caption's states [B, T, D] without its padding, bool [B, T] → [B, D]."""
    words = ~padding[..., None]
    return (states * words).sum(1) / words.sum(1)
