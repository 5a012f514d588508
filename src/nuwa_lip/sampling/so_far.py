"""What is decided so far while a hole is being filled, and a picture of it: for live previews.

Tokens that are not decided yet are shown as averages of the codes around them, so that the picture is coarse there and
gets its detail as the steps go on.

Legend: h w token grid, K defective tokens, H W the model's square.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.models.dfvqgan import DFVQGAN, Skips


@dataclass(frozen=True, eq=False)
class SoFar:
    """Holds the tokens of the candidate that is being drawn (of several the first); the next step changes it."""

    known: Tensor
    """int64 [h, w], the photo's tokens; those of the hole mean nothing."""
    positions: Tensor
    """int64 [K], where the hole's tokens stand, as flat (row-major) positions in the order of decoding."""
    chosen: Tensor
    """int64 [K], these tokens."""
    decided: int
    """How many of them are decided, from the first on."""

    @property
    def tokens(self) -> Tensor:
        """Return all tokens, int64 [1, h, w]; those that are missing mean nothing."""
        where, decided = self.positions[: self.decided], self.chosen[: self.decided]
        return self.known.flatten().scatter(0, where, decided).view(1, *self.known.shape)

    @property
    def missing(self) -> Tensor:
        """Return which are not decided yet, bool [1, 1, h, w]."""
        missing = torch.zeros_like(self.known, dtype=torch.bool).flatten()
        return missing.index_fill(0, self.positions[self.decided :], True).view(1, 1, *self.known.shape)

    def decode(self, dfvqgan: DFVQGAN, skips: Skips | None = None) -> Tensor:
        """Decode them to a picture, float32 [1, 3, H, W] in about [-1, 1], coarse where tokens are missing."""
        with torch.no_grad():
            codes = dfvqgan.quantiser.lookup(self.tokens)
            return dfvqgan.decode_codes(spread(codes.float(), self.missing), skips)


def shown_by(
    callback: Callable[..., None] | None, dfvqgan: DFVQGAN, skips: Skips | None
) -> Callable[[int, int, SoFar], None] | None:
    """Make of a painter's callback what `sample` calls; it gets a step, the steps, and what decodes the picture so far.

    Args:
        callback: the painter's; None: nobody watches.
        dfvqgan, skips: as for `SoFar.decode`.
    """
    if callback is None:
        return None
    return lambda step, steps, so_far: callback(step, steps, partial(so_far.decode, dfvqgan, skips))


def spread(codes: Tensor, missing: Tensor) -> Tensor:
    """Fill cells with the mean of their neighbours, from those that there are inwards.

    Args:
        codes: float [B, n_z, h, w]; what is missing is not looked at.
        missing: bool [B, 1, h, w], True = to fill.
    """
    there = (~missing).to(codes.dtype)
    codes = codes.masked_fill(missing, 0)
    for _ in range(sum(codes.shape[2:])):  # steps of one cell, also diagonally, from one corner to the other
        if there.all():
            break
        total, weight = (F.avg_pool2d(x, 3, stride=1, padding=1) for x in (codes, there))
        codes = torch.where(there > 0, codes, total / weight.clamp(min=torch.finfo(codes.dtype).tiny))
        there = (weight > 0).to(codes.dtype)
    return codes
