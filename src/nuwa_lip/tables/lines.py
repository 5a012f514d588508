"""What was measured of one row of a table.

Several trainings of a row with different seeds count as one: figures are their means, and in place of the interval
over the photos stands their range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from nuwa_lip.evaluation.distances import Estimate, Interval
from nuwa_lip.tables import budget
from nuwa_lip.tables.layout import Row
from nuwa_lip.tables.rows import Measured

NONE = "–"


class Cell(NamedTuple):
    """One figure of ours."""

    value: float
    interval: Interval | None
    """95 % over the photos; with several seeds their range."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table, with what was measured of it."""

    row: Row
    trainings: Sequence[Measured]
    """One for each seed; none if it was not measured yet."""

    def cell(self, column: str) -> Cell | None:
        """Give the figure of a column."""
        key = self.row.key(column)
        values = [value for one in self.trainings if (value := one.figures.get(key)) is not None]
        if not values:
            return None
        if len(values) > 1:
            return Cell(float(np.mean(values)), (min(values), max(values)))
        low, high = self.trainings[0].intervals_95.get(key) or (None, None)
        return Cell(values[0], None if low is None or high is None else (low, high))

    def photos(self, column: str) -> np.ndarray | None:
        """Give the figure of each photo, mean over the seeds: float64 [N] with NaN where there is none."""
        return self._mean([one.per_photo for one in self.trainings], column)

    def distance(self, column: str) -> Estimate | None:
        """Give a distance of sets with its values on the resamples that all rows share, means over the seeds."""
        cell, resampled = self.cell(column), self._mean([one.resampled for one in self.trainings], column)
        return None if cell is None or resampled is None else Estimate(cell.value, resampled)

    def by_seed(self, column: str) -> dict[int, float]:
        """Give the figure of each training, by its seed."""
        found = {one.seed: one.figures.get(self.row.key(column)) for one in self.trainings}
        return {seed: value for seed, value in found.items() if value is not None}

    def _mean(self, trainings: Sequence[Mapping[str, Sequence[float | None]]], column: str) -> np.ndarray | None:
        key = self.row.key(column)
        rows = [one[key] for one in trainings if key in one]
        if not rows or len({len(row) for row in rows}) > 1:
            return None
        return np.array(rows, dtype=np.float64).mean(0)

    def only(self, seeds: Set[int]) -> Line:
        """Keep only the trainings with these seeds."""
        return replace(self, trainings=[one for one in self.trainings if one.seed in seeds])

    @property
    def seeds(self) -> set[int]:
        """Seeds of the trainings."""
        return {one.seed for one in self.trainings}

    @property
    def n(self) -> str:
        """Number of photos measured."""
        return ", ".join(str(n) for n in sorted({one.n for one in self.trainings})) or NONE

    @property
    def size(self) -> str:
        """Parameters of each part of the first training's model."""
        parts = self.trainings[0].setting.get("parameters") if self.trainings else None
        return " + ".join(f"{number / 1e6:.1f}" for number in parts.values()) + " M" if parts else NONE

    @property
    def trained(self) -> str:
        """Photos and minutes of the first training."""
        return budget.shown(self.trainings[0].budget) or NONE if self.trainings else NONE
