"""A short way from the tokens next to a position into the decoder's row that predicts it.

Legend: B batch, N = h · w tokens of the grid, K missing tokens, R rows of the decoder, P neighbours, D width.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models.groups import NO_TOKEN, Rows

NARROW = 64
"""Width in which neighbours are told apart; one for each would be most of a small model."""


class Neighbours(nn.Module):
    """Reads the tokens around the positions to predict, each by its place, known ones and those decided so far.

    A model of the eight next tokens alone predicts a token better than attention does that looks for them in a random
    order, unless it learns that from far more photos (results/ablations.md).

    Args:
        codes: V.
        width: D.
        grid: rows and columns of tokens.
        radius: how far the neighbours are, in cells, also diagonally: P = (2 · radius + 1)² - 1.
    """

    places: Tensor

    def __init__(self, codes: int, width: int, grid: tuple[int, int], radius: int) -> None:
        super().__init__()
        self.undecided, self.outside = codes, codes + 1
        self.tokens = nn.Embedding(codes + 2, NARROW)
        self.hidden = nn.Linear(((2 * radius + 1) ** 2 - 1) * NARROW, 2 * width)
        self.before, self.after = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.register_buffer("places", places_around(grid, radius), persistent=False)

    def start(self) -> None:
        """Draw the table's weights, and begin as if there were no neighbours, in place."""
        nn.init.normal_(self.tokens.weight, std=0.5)
        nn.init.zeros_(self.before.weight)
        nn.init.zeros_(self.after.weight)

    def forward(self, around: Tensor) -> tuple[Tensor, Tensor]:
        """Compute of the tokens around the rows' positions what is added to the rows' first and to their last states.

        Args:
            around: int64 [B, R, P], of `around`.

        Returns:
            Both [B, R, D].
        """
        features = self.features(around)
        return self.before(features), self.after(features)

    def features(self, around: Tensor) -> Tensor:
        """Compute the features of the tokens around positions, int64 [B, R, P] → [B, R, 2 D]."""
        return F.silu(self.hidden(self.tokens(around).flatten(2)))

    def around(self, grid: Tensor, targets: Tensor) -> Tensor:
        """Look up what stands around positions.

        Args:
            grid: int64 [B, N], tokens, or `NO_TOKEN` where none is decided.
            targets: int64 [B, R], the positions.

        Returns:
            int64 [B, R, P]: tokens, `undecided` or `outside`.
        """
        tokens = grid.where(grid != NO_TOKEN, self.undecided)
        return self._look(F.pad(tokens, (0, 1), value=self.outside), targets)

    def around_rows(self, known: Tensor, tokens: Tensor, order: Tensor, rows: Rows) -> Tensor:
        """Look up what stands around the positions that rows predict when these run, int64 [B, R, P].

        Args:
            known: int64 [B, N], the photos' tokens, `NO_TOKEN` in the hole.
            tokens: int64 [B, K], in the order of decoding; those that are not decided yet may be anything.
            order: int64 [B, K], where they stand; anything after a sample's own.
            rows: [R] for all, or [B, R].
        """
        count, cells = order.shape[1], known.shape[1]
        slots = torch.arange(count, device=order.device)
        # what stands after a sample's own goes to a cell of its own behind the grid
        at = order.where(slots < (known == NO_TOKEN).sum(1, keepdim=True), cells)
        grid = F.pad(known, (0, 1)).scatter(1, at, tokens)[:, :cells]
        never = count + 1
        decided_at = F.pad(known.new_full(known.shape, never).where(known == NO_TOKEN, -1), (0, 1))
        decided_at = decided_at.scatter(1, at, slots.expand_as(at))
        decided_at[:, cells] = -1  # outside of the grid nothing changes
        targets = order.gather(1, rows.slots.expand(len(order), -1))
        later = self._look(decided_at, targets) >= rows.decided[..., None]
        return self.around(grid, targets).masked_fill(later, self.undecided)

    def _look(self, cells: Tensor, targets: Tensor) -> Tensor:
        """Read `cells` [B, N + 1], the last one outside of the grid, around `targets` [B, R] → [B, R, P]."""
        beside = self.places[targets]
        return cells.gather(1, beside.flatten(1)).view(beside.shape)


def places_around(grid: tuple[int, int], radius: int) -> Tensor:
    """Compute the flat positions of every cell's neighbours, int64 [N, P], row by row; N: outside of the grid."""
    height, width = grid
    steps = range(-radius, radius + 1)
    offsets = torch.tensor([step for step in product(steps, steps) if step != (0, 0)])  # [P, 2]
    cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).view(-1, 1, 2)
    row, column = (cells + offsets).unbind(-1)  # [N, P]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return torch.where(inside, row * width + column, height * width)
