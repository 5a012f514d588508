"""Groups of missing tokens that one step decides together, and the inputs and visible rows of the decoder's rows.

Every missing token has one row, which predicts it, and whose input is a token of the group before:

    groups of 1, 2 and 3 tokens     row      0   1 2   3 4 5
                                    input    -   0 0   1 2 2

The rows of a step are given all that the step before has decided, and stay in the cache: parallel steps run no row
twice. With one token a step the input of a row is the token before it, as in the paper.

Legend: B samples, K missing tokens, S steps, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nuwa_lip.errors import InputError

NO_TOKEN = -1
"""The input token of a row that has none."""

SCHEDULES = ("cosine", "constant", "confidence")
"""How K tokens are shared among S steps. cosine: few at first, when little is known, more later; constant: as many
in each; confidence: as many as with cosine, but of all that are missing those of which the model is surest (MaskGIT),
so that every step predicts all of them."""


def group_sizes(tokens: int, steps: int | None, schedule: str = "cosine") -> list[int]:
    """Return how many of K tokens each of S steps decides, from few to many.

    After a share t of the steps about K · (1 - cos(π/2 · t)) tokens are decided (MaskGIT's cosine), or K · t with
    "constant". Every step decides at least one, the sizes never fall, and their sum is K.

    Args:
        tokens: K.
        steps: S; more than K, or None, mean one token a step.
        schedule: one of `SCHEDULES`.

    Raises:
        InputError: there is no such schedule.
    """
    check_schedule(schedule)
    steps = tokens if steps is None else min(steps, tokens)
    decided = [0]
    for step in range(1, steps + 1):
        share = step / steps if schedule == "constant" else 1 - math.cos(math.pi / 2 * step / steps)
        decided.append(min(max(round(tokens * share), decided[-1] + 1), tokens - steps + step))
    return sorted(b - a for a, b in pairwise(decided))  # sorted: rounding leaves a dip here and there


class RowInputs(NamedTuple):
    """The decoder's inputs for R rows; each int64 [B, R]."""

    tokens: Tensor
    """Input tokens, or `NO_TOKEN`."""
    positions: Tensor
    """Where these stand, as flat (row-major) positions; without a token the position to predict."""
    targets: Tensor
    """The positions to predict."""


class Rows(NamedTuple):
    """Some rows of a sequence that is decided in groups; each int64 [R], or [B, R]."""

    slots: Tensor
    """Which rows these are: row k predicts token k."""
    input_index: Tensor
    """Which token is the input of each row; -1: none."""
    prefix: Tensor
    """A row sees this many rows, from row 0 on, and itself."""

    @property
    def decided(self) -> Tensor:
        """Return how many tokens are decided when each row runs, those of earlier groups: int64 [R] or [B, R]."""
        # the group before has `slots - input_index` tokens, but for rows beyond that many, whose input is its last one
        return torch.maximum(self.input_index + 1, self.prefix - self.slots + self.input_index)

    def visible(self, columns: int) -> Tensor:
        """Return which rows from row 0 on each one sees, bool [R, columns] or [B, R, columns]."""
        column = torch.arange(columns, device=self.slots.device)
        return (column < self.prefix[..., None]) | (column == self.slots[..., None])

    def to(self, device: torch.device) -> Rows:
        """Return the same on a device."""
        return Rows(*(row.to(device) for row in self))

    def inputs(self, tokens: Tensor, order: Tensor) -> RowInputs:
        """Look up what the rows are given.

        Args:
            tokens: int64 [B, K], in the order of decoding.
            order: int64 [B, K], where they stand.
        """
        slots, index = (x.expand(len(tokens), -1) for x in (self.slots, self.input_index))
        none = index < 0
        positions = order.gather(1, torch.where(none, slots, index))
        return RowInputs(
            tokens.gather(1, index.clamp(min=0)).masked_fill(none, NO_TOKEN), positions, order.gather(1, slots)
        )


def rows_of(sizes: Sequence[int]) -> Rows:
    """Return the rows of one sequence, on the CPU: the input of each is a token of the group before its own.

    Where a group has more rows than that one had tokens, the last token is the input of all that are left. A row sees
    the rows of earlier groups, the first row of its own group for each input token, and itself.

    Args:
        sizes: tokens of each group.

    Raises:
        InputError: the sizes fall, so that some token would never be an input.
    """
    index: list[int] = []
    prefix: list[int] = []
    before = start = 0
    for size in sizes:
        if size < max(before, 1):
            raise InputError(f"a group of {size} tokens comes after one of {before}; groups must not get smaller")
        index += [min(row - before, start - 1) for row in range(start, start + size)]
        prefix += [start + before] * size
        before, start = size, start + size
    return Rows(*(torch.tensor(row, dtype=torch.int64) for row in (range(start), index, prefix)))


def rows_of_each(sizes: Sequence[Sequence[int]]) -> Rows:
    """Return the rows of B sequences, [B, R]; beyond a shorter one's own a row sees, and is seen by, itself only."""
    each = [rows_of(one) for one in sizes]
    index = pad_sequence([rows.input_index for rows in each], batch_first=True, padding_value=-1)
    prefix = pad_sequence([rows.prefix for rows in each], batch_first=True)
    return Rows(torch.arange(index.shape[1]).expand(len(each), -1), index, prefix)


def rows_of_steps(sizes: Sequence[int], by_confidence: bool, device: torch.device | None = None) -> list[Rows]:
    """Return the rows that each of S steps runs; the last ones are those of the tokens that it predicts.

    Args:
        sizes: tokens of each group.
        by_confidence: every step predicts all that are missing. What the step before decided has changed places since
            then, so that its rows are run once more, as they stand now.
        device: of the result.
    """
    if not by_confidence:
        parts = (row.to(device).split(list(sizes)) for row in rows_of(sizes))
        return [Rows(*rows) for rows in zip(*parts, strict=True)]
    steps = []
    for step in range(len(sizes)):
        again = sum(sizes[: max(0, step - 1)])
        rows = rows_of([*sizes[:step], sum(sizes[step:])])
        steps.append(Rows(*(row[again:].to(device) for row in rows)))
    return steps


def check_schedule(name: str) -> None:
    """Check the name of a schedule.

    Raises:
        InputError: it is none of `SCHEDULES`.
    """
    if name not in SCHEDULES:
        raise InputError(f"there is no schedule {name!r}; there are: {', '.join(SCHEDULES)}")
