"""Groups of missing tokens that one step decides together, and what the decoder's rows say and see then.

Every missing token has one row, which predicts it, and which is given ("says") a token of the group before:

    groups of 1, 2 and 3 tokens     row    0   1 2   3 4 5
                                    says   -   0 0   1 2 2

The rows of a step say all that the step before has decided, and stay in the cache: parallel steps run no row twice.
With one token a step a row says the token before it, as in the paper.

Legend: B samples, K missing tokens, S steps, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.errors import InputError

NO_TOKEN = -1
"""What a row says that says none."""

SCHEDULES = ("cosine", "constant", "confidence")
"""How K tokens are shared among S steps. cosine: few at first, when little is known, more later; constant: as many
in each; confidence: as many as with cosine, but of all that are missing those of which the model is surest
(MaskGIT), for which every step asks for all."""


def group_sizes(tokens: int, steps: int | None, schedule: str = "cosine") -> list[int]:
    """How many of K tokens each of S steps decides, from few to many.

    After a share t of the steps about K · (1 - cos(π/2 · t)) tokens are decided (MaskGIT's cosine), or K · t with
    "constant". Every step decides at least one, the sizes never fall, and their sum is K. More steps than tokens, or
    None, mean one token a step.

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


class Rows(NamedTuple):
    """Some rows of a sequence that is decided in groups: what they say and see. Each int64 [R], or [B, R]."""

    slots: Tensor
    """Which rows these are: row k predicts token k."""
    said: Tensor
    """The token that each one says; -1: none."""
    reach: Tensor
    """A row sees so many rows, from row 0 on, and itself."""

    def visible(self, columns: int) -> Tensor:
        """Which rows from row 0 on each one sees, bool [R, columns] or [B, R, columns]."""
        column = torch.arange(columns, device=self.slots.device)
        return (column < self.reach[..., None]) | (column == self.slots[..., None])

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(*(row.to(device) for row in self))

    def say(self, tokens: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """What each row says: the token, or `NO_TOKEN`, and where that one stands, each int64 [B, R].

        Args:
            tokens: int64 [B, K], in the order of decoding.
            order: int64 [B, K], where they stand.
        """
        slots, said = (x.expand(len(tokens), -1) for x in (self.slots, self.said))
        none = said < 0
        # what comes first stands where it predicts
        at = order.gather(1, torch.where(none, slots, said))
        return tokens.gather(1, said.clamp(min=0)).masked_fill(none, NO_TOKEN), at


def rows_of(sizes: Sequence[int]) -> Rows:
    """Of one sequence, on the CPU: each row says a token of the group before its own.

    Where a group has more rows than that one had tokens, the last token is said by all that are left. A row sees the
    rows of earlier groups, those of its own that are the first to say a token, and itself.

    Args:
        sizes: of the groups.

    Raises:
        InputError: the sizes fall, so that some token would never be said.
    """
    said: list[int] = []
    reach: list[int] = []
    before = start = 0
    for size in sizes:
        if size < max(before, 1):
            raise InputError(f"a group of {size} tokens comes after one of {before}; groups must not get smaller")
        said += [min(row - before, start - 1) for row in range(start, start + size)]
        reach += [start + before] * size
        before, start = size, start + size
    return Rows(*(torch.tensor(row, dtype=torch.int64) for row in (range(start), said, reach)))


def rows_of_each(sizes: Sequence[Sequence[int]]) -> Rows:
    """Of B sequences, [B, R]; what stands after a shorter one's own rows sees itself only, and no row sees it."""
    each = [rows_of(one) for one in sizes]
    longest = max(len(rows.slots) for rows in each)
    slots = torch.arange(longest).expand(len(each), -1)
    said = torch.stack([F.pad(rows.said, (0, longest - len(rows.said)), value=-1) for rows in each])
    reach = torch.stack([F.pad(rows.reach, (0, longest - len(rows.reach))) for rows in each])
    return Rows(slots, said, reach)


def rows_of_steps(sizes: Sequence[int], surest: bool, device: torch.device | None = None) -> list[Rows]:
    """The rows that each of S steps runs.

    Args:
        sizes: of the groups.
        device: of the result.
        surest: every step asks for all that are missing ("confidence"). What the last step decided has changed places
            since then, so that its rows are run once more, as they stand now.
    """
    if not surest:
        parts = (row.to(device).split(list(sizes)) for row in rows_of(sizes))
        return [Rows(*rows) for rows in zip(*parts, strict=True)]
    steps = []
    for step in range(len(sizes)):
        again = sum(sizes[: max(0, step - 1)])
        rows = rows_of([*sizes[:step], sum(sizes[step:])])
        steps.append(Rows(*(row[again:].to(device) for row in rows)))
    return steps


def check_schedule(name: str) -> None:
    """Raises: InputError: there is no schedule of that name."""
    if name not in SCHEDULES:
        raise InputError(f"there is no schedule {name!r}; there are: {', '.join(SCHEDULES)}")
