"""MP-S2S's decoder: what it reads of a photo, what it keeps while decoding, and its layers.

Legend: as in `nuwa_lip.models.mps2s`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from nuwa_lip.models.caption_prior import CaptionPrior, CaptionShift
from nuwa_lip.models.groups import NO_TOKEN
from nuwa_lip.models.mps2s_config import MPS2SConfig
from nuwa_lip.models.transformer import Block, Copies, KeysValues, KeyValueCache, Turn, Turns


@dataclass(frozen=True)
class Memory:
    """What the decoder needs to know of a batch of photos; computed once for all candidates and steps."""

    states: Tensor
    """[B, M, D], c = [c^t; c^l; c^h]"""
    mask: Tensor
    """bool [B, M], True = padding, may not be attended."""
    tokens: Tensor
    """int64 [B, h, w], ζ^x; anything at defective positions."""
    token_mask: Tensor
    """bool [B, 1, h, w], m'"""
    text_length: int
    """T: so many states, the first ones, are the caption's; the last N are the tokens'."""

    @property
    def caption(self) -> Tensor:
        """The mean of the caption's states, [B, D]."""
        return mean_state(self.states[:, : self.text_length], self.mask[:, : self.text_length])

    def __getitem__(self, image: int) -> Memory:
        """The memory of one photo of the batch, B = 1."""
        one = slice(image, image + 1)
        return dataclasses.replace(
            self,
            states=self.states[one],
            mask=self.mask[one],
            tokens=self.tokens[one],
            token_mask=self.token_mask[one],
        )

    def to(self, device: torch.device | str) -> Memory:
        """The same on a device."""
        return dataclasses.replace(
            self,
            states=self.states.to(device),
            mask=self.mask.to(device),
            tokens=self.tokens.to(device),
            token_mask=self.token_mask.to(device),
        )


def mean_state(states: Tensor, padding: Tensor) -> Tensor:
    """The mean of a caption's states [B, T, D] without its padding, bool [B, T]."""
    words = ~padding[..., None]
    return (states * words).sum(1) / words.sum(1)


@dataclass(frozen=True)
class DecoderCache:
    """What cached decoding keeps: every layer's earlier rows, and what it reads of the memories."""

    layers: list[KeyValueCache]
    memory: list[KeysValues]
    memory_mask: Tensor
    """bool [G, 1, 1, M], True = may be attended."""
    tokens: Tensor
    """[G · C, N, D], the token encoder's states, for the pointer."""
    cells: Turn | None
    """By how much attention turns at each of the N tokens, with rotary positions."""
    copies: Copies | None = None
    """Which candidates only fill up the number of rows."""
    shifts: Tensor | None = None
    """[G · C, layers, D], what each block adds of the caption's mean state."""
    prior: Tensor | None = None
    """[G · C, r², D], by how much the caption tilts the output in each region."""


class Decoder(nn.Module):
    """Causal transformer over the defective positions in any order, with cross-attention to the memory."""

    def __init__(self, config: MPS2SConfig) -> None:
        super().__init__()
        cells = config.grid[0] * config.grid[1]
        self.begin = nn.Parameter(torch.randn(config.width) * 0.02)
        self.previous_position = nn.Embedding(cells, config.width)
        self.next_position = nn.Embedding(cells, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio, config.dropout, config.layer_scale, cross=True)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.pointer: nn.Linear | None = None
        if config.pointer and "tokens" in config.perspectives:
            self.pointer = nn.Linear(config.width, config.width, bias=False)
        self.shift: CaptionShift | None = None
        if config.caption_shift and "text" in config.perspectives:
            self.shift = CaptionShift(config.width, config.decoder_layers)
        self.prior: CaptionPrior | None = None
        if config.caption_prior and "text" in config.perspectives:
            self.prior = CaptionPrior(config.width, config.grid, config.caption_prior)

    @property
    def layers(self) -> list[Block]:
        """The blocks, typed."""
        return cast("list[Block]", list(self.blocks))

    def finish(self, x: Tensor, prior: Tensor | None, at: Tensor) -> Tensor:
        """The last norm, and the caption's tilt at the positions `at` [B, R] that the rows predict."""
        x = self.norm(x)
        return x if self.prior is None or prior is None else self.prior.tilt(x, prior, at)

    def embed(
        self, embedding: nn.Embedding, states: Tensor, previous: Tensor, previous_at: Tensor, at: Tensor
    ) -> Tensor:
        """Rows [B, R, D] of the tokens `previous` (or `NO_TOKEN`), where they stand, and where to predict.

        `states` [B, N, D] are the token encoder's.
        """
        x = embedding(previous.clamp(min=0)) + self.previous_position(previous_at)
        x = torch.where((previous == NO_TOKEN)[..., None], self.begin.to(x.dtype), x)
        x = x + self.next_position(at)
        if self.pointer is None:
            return x
        return x + self.pointer(states.gather(1, at[..., None].expand(-1, -1, states.shape[-1])))


def turns_of(cells: Turn | None, previous_at: Tensor, at: Tensor) -> Turns | None:
    """A row looks from the position that it predicts; what it says stands at another one. Each [B, R]."""
    if cells is None:
        return None
    cos, sin = cells
    return Turns((cos[at][:, None], sin[at][:, None]), (cos[previous_at][:, None], sin[previous_at][:, None]))
