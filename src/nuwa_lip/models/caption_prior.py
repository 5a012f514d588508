"""Two short ways from a caption's mean state into the decoder, beside its attention to single words.

Legend: B batch, T text, D width, R rows of the decoder, r regions on a side, N tokens of the grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CaptionPrior(nn.Module):
    """Log-odds of the codes in r x r regions given a caption, in the space of the output table.

    It learns within minutes which codes go with which words, from photos and captions alone (`training.prior`): the
    decoder, for which a caption explains little beside the tokens already decided, would need far longer. The
    decoder's own gate says how much of it is news at each row.

    Args:
        width: D.
        grid: rows and columns of tokens, multiples of `regions`.
        regions: r.
    """

    def __init__(self, width: int, grid: tuple[int, int], regions: int) -> None:
        super().__init__()
        self.grid, self.regions = grid, regions
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.region = nn.Parameter(1 + torch.randn(regions**2, width) / 2)
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width, 1)

    def forward(self, mean: Tensor) -> Tensor:
        """Compute the tilt of each region, [B, r², D], from a caption's mean state [B, D]."""
        return self.out(F.silu(self.hidden(self.norm(mean)))[:, None] * self.region)

    def tilt(self, rows: Tensor, regions: Tensor, at: Tensor) -> Tensor:
        """Add the tilt to the decoder's output [B, R, D].

        Args:
            rows: the decoder's output.
            regions: of `forward`.
            at: int64 [B, R], the positions that the rows predict.
        """
        there = regions.gather(1, self.region_of(at)[..., None].expand(-1, -1, regions.shape[-1]))
        return rows + 2 * self.gate(rows).sigmoid() * there

    def region_of(self, at: Tensor) -> Tensor:
        """Find the region of each position, flat and row-major like the positions."""
        height, width = self.grid
        row, column = at // width, at % width
        return row * self.regions // height * self.regions + column * self.regions // width


class CaptionShift(nn.Module):
    """A projection of the caption's mean state for the input of each block: [B, D] → [B, layers, D]."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, layers * width)

    def forward(self, mean: Tensor) -> Tensor:
        """Give each layer's shift, [B, L, D], of the captions' mean states [B, D]."""
        return self.out(F.silu(self.hidden(self.norm(mean)))).unflatten(1, (-1, mean.shape[1]))
