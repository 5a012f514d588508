"""Two of MP-S2S's three perspectives: the known pixels and the known tokens (the third is `text`).

Both exclude the hole by selection, so that nothing in it has any influence, NaN included. A second pass sees there, in
both, what the first one has painted (`Coarse`), and can tell it from what is known.

Legend: B batch, P patches, N tokens of the grid, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models.mps2s_config import MPS2SConfig
from nuwa_lip.models.rotary import Rotation
from nuwa_lip.models.transformer import Encoder


class Coarse(NamedTuple):
    """Holds a first painting of B holes, enlarged, for a second pass to paint anew with its details."""

    image: Tensor
    """float [B, 3, H, W] in [-1, 1]; anything outside the hole."""
    tokens: Tensor
    """int64 [B, h, w], of the photo with that painting; anything outside the hole."""
    painted: Tensor
    """bool [B]: which photos have one at all."""

    @classmethod
    def of_all(cls, image: Tensor, tokens: Tensor) -> Coarse:
        """Return those of a batch of which every photo has one."""
        return cls(image, tokens, torch.ones(len(image), dtype=torch.bool, device=image.device))

    def of(self, kept: Tensor | slice) -> Coarse:
        """Return those of some photos of the batch."""
        return Coarse(*(part[kept] for part in (self.image, self.tokens, self.painted)))


class PixelEncoder(nn.Module):
    """E^l: the known pixels and the mask in patches, as in a ViT, through a transformer → [B, P, D]."""

    def __init__(self, config: MPS2SConfig, encoder: Encoder) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        # the mask is a channel: without it a zeroed hole could be grey
        self.patch = nn.Linear(4 * config.patch_size**2, config.width)
        self.position = nn.Embedding((config.image_size // config.patch_size) ** 2, config.width)
        self.encoder = encoder

    def forward(
        self, image: Tensor, mask: Tensor, rotation: Rotation | None = None, coarse: Coarse | None = None
    ) -> Tensor:
        """Encode what is known → [B, P, D].

        Args:
            image: [B, 3, H, W] in [-1, 1].
            mask: bool [B, 1, H, W], True = defective.
            rotation: of the patches.
            coarse: what a first pass has painted; the mask is half as white there.
        """
        known, unknown = image.masked_fill(mask, 0), mask.to(image.dtype)
        if coarse is not None:
            painted = mask & coarse.painted[:, None, None, None]
            known, unknown = torch.where(painted, coarse.image, known), torch.where(painted, 0.5, unknown)
        x = torch.cat([known, unknown], 1).to(self.patch.weight.dtype)
        patches = F.pixel_unshuffle(x, self.patch_size).flatten(2).transpose(1, 2)  # [B, P, 4 · patch²]
        return self.encoder(self.patch(patches) + self.position.weight, rotation=rotation)


class TokenEncoder(nn.Module):
    """E^h: known tokens, one trainable vector for every defective one, through a transformer → [B, N, D]."""

    def __init__(self, config: MPS2SConfig, encoder: Encoder) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.randn(config.width) * 0.02)
        self.position = nn.Embedding(config.grid[0] * config.grid[1], config.width)
        self.encoder = encoder

    def forward(
        self,
        embedded: Tensor,
        defective: Tensor,
        rotation: Rotation | None = None,
        painted: Tensor | None = None,
    ) -> Tensor:
        """Encode what is known → [B, N, D].

        Args:
            embedded: [B, N, D], the tokens' embeddings; anything at defective positions.
            defective: bool [B, N].
            rotation: of the tokens.
            painted: [B, N, D], embeddings of the tokens that a first pass has painted, zero where there are none; they
                are added to the vector of defective ones.
        """
        missing = self.missing if painted is None else self.missing + painted
        x = torch.where(defective[..., None], missing, embedded)
        return self.encoder(x + self.position.weight, rotation=rotation)


def different(mask: Tensor, defective: Tensor, coarse: Coarse | None) -> tuple[Tensor | slice, Tensor | slice]:
    """Find which photos of a batch to encode, and which of these stands for each: all fully hidden ones share one.

    Args:
        mask: bool [B, 1, H, W].
        defective: bool [B, N].
        coarse: what a first pass has painted.
    """
    hidden = mask.flatten(1).all(1) & defective.all(1)
    if coarse is not None:
        hidden &= ~coarse.painted
    if int(hidden.sum()) < 2:
        return slice(None), slice(None)
    kept = ~hidden
    kept[int(hidden.int().argmax())] = True
    of = kept.cumsum(0) - 1
    return kept, torch.where(hidden, of[hidden][0], of)
