"""The parts of a table: columns, rows, and claims that it is to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nuwa_lip.errors import InputError

Kind = Literal["tokenizer", "stage2", "images"]
"""What is measured of a row: a tokenizer alone; results and likelihoods of a model; results of any method."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure."""

    key: str
    """In a row's figures, such as `oracle/fsd`."""
    label: str
    digits: int = 2
    paper: str | None = None
    """The paper's name for the figure that it prints there."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant."""

    name: str
    """Name of its files."""
    label: str
    paper: Mapping[str, float] = field(default_factory=dict)
    """The paper's figures, by the columns' keys."""
    source: str | None = None
    """The row that is measured for it, if it only shows another row's figures in another way."""
    rename: tuple[str, str] | None = None
    """("oracle/", "pasted/"): what begins with the first is looked up with the second."""

    @property
    def measured(self) -> str:
        """Name of the row that is measured."""
        return self.source or self.name

    def key(self, column: str) -> str:
        """Give the name of a column's figure among those of the measured row."""
        if self.rename is not None and column.startswith(self.rename[0]):
            return self.rename[1] + column.removeprefix(self.rename[0])
        return column


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that the table is to show: about two rows, or (without `behind`) about one."""

    ahead: str
    """The row that is ahead."""
    key: str
    """Key of the figure."""
    behind: str | None = None
    """The row that it is ahead of."""
    higher: bool = False
    """The higher figure is better."""
    at_most: float | None = None
    """Largest ratio ahead / behind; None: the difference counts, paired over photos where both have each photo's."""
    above: float | None = None
    """For one row: the figure is above this."""
    equals: float | None = None
    """For one row: the figure is exactly this."""
    budget: Literal["steps", "time"] = "steps"
    """What must be equal in both trainings, where it is known: the photos of each stage, or the time (of the row behind
    at least)."""
    same_tokenizer: bool = False
    """The figure compares models of one tokenizer only."""
    paper: str = ""
    """The paper's result."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the paper."""

    name: str
    title: str
    kind: Kind
    columns: Sequence[Column]
    rows: Sequence[Row]
    claims: Sequence[Claim] = ()
    picture: str = "result"
    """Which of a row's pictures the page shows."""
    sort: Sequence[str] = ()
    """Keys of the figures of each photo by which the page sorts."""
    notes: Sequence[str] = ()

    def measured(self) -> list[Row]:
        """List the rows that are measured, not derived."""
        return [row for row in self.rows if row.source is None]

    def check(self, names: Sequence[str], option: str) -> None:
        """Check names of rows, given by an option.

        Raises:
            InputError: there is no such row.
        """
        known = [row.name for row in self.measured()]
        for name in names:
            if name not in known:
                raise InputError(f"{option} {name!r} is no row of {self.name}; there are: {', '.join(known)}")
