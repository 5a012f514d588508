"""Groups of missing tokens that one step decides together, and what the decoder's rows say and see then.

Every missing token has one row, which predicts it, and which is given ("says") a token of the group before:

    groups of 1, 2 and 3 tokens     row    0   1 2   3 4 5
                                    says   -   0 0   1 2 2

So that the rows of a step say all that the step before has decided, and all of them stay in the cache: parallel steps
run no row twice. With one token a step a row says the token before it, as in the paper.

Legend: K missing tokens, S steps, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from nuwa_lip.errors import InputError

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
    """Some rows of a sequence that is decided in groups: what they say and see."""

    slots: Tensor
    """int64 [R], which rows these are: row k predicts token k."""
    said: Tensor
    """int64 [R], the token that each one says; -1: none."""
    reach: Tensor
    """int64 [R]: a row sees so many rows, from row 0 on, and itself."""

    def visible(self, columns: int) -> Tensor:
        """Which rows from row 0 on each one sees, bool [R, columns]."""
        column = torch.arange(columns, device=self.slots.device)
        return (column < self.reach[:, None]) | (column == self.slots[:, None])


def rows_of(sizes: Sequence[int], first: int = 0, device: torch.device | None = None) -> Rows:
    """The rows of the groups from the `first` one on; each says a token of the group before its own.

    Where a group has more rows than that one had tokens, the last token is said by all that are left. A row sees the
    rows of earlier groups, those of its own that are the first to say a token, and itself.

    Args:
        sizes: of all groups from the beginning; they must not fall, or a token would never be said.
        first: number of a group.
        device: of the result.
    """
    before, start = [0, *sizes][first], sum(sizes[:first])
    slots = torch.arange(start, sum(sizes), device=device)
    said, reach = [slots[:0]], [slots[:0]]
    for size in sizes[first:]:
        own = torch.arange(start, start + size, device=device)
        said.append((own - before).clamp(max=start - 1))
        reach.append(torch.full_like(own, start + before))
        before, start = size, start + size
    return Rows(slots, torch.cat(said), torch.cat(reach))


def check_schedule(name: str) -> None:
    """Raises: InputError: there is no schedule of that name."""
    if name not in SCHEDULES:
        raise InputError(f"there is no schedule {name!r}; there are: {', '.join(SCHEDULES)}")
