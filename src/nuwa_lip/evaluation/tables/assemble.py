"""Rows → one table: the paper's figures and ours side by side, and what became of the claims.

Several trainings of a row with different seeds count as one: figures are their means, and in place of the interval
over the photos stands their range.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table as Shown

from nuwa_lip.data.benchmark import Benchmark
from nuwa_lip.evaluation.distances import bootstrap_interval
from nuwa_lip.evaluation.tables import paper
from nuwa_lip.evaluation.tables.layout import Claim, Column, Row, Table
from nuwa_lip.evaluation.tables.rows import Measured, RowFolder

NONE = "–"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of ours."""

    value: float
    low: float | None
    """Of the 95 % interval over the photos; with several seeds of their range."""
    high: float | None

    def text(self, digits: int) -> str:
        """As shown."""
        shown = f"{self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return shown
        return f"{shown} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table, with what was measured of it."""

    row: Row
    trainings: Sequence[Measured]
    """One for each seed; none if it was not measured yet."""

    def cell(self, column: str) -> Cell | None:
        """The figure of a column."""
        key = self.row.key(column)
        values = [value for one in self.trainings if (value := one.figures.get(key)) is not None]
        if not values:
            return None
        if len(values) > 1:
            return Cell(value=float(np.mean(values)), low=min(values), high=max(values))
        interval = self.trainings[0].intervals_95.get(key)
        low, high = (None, None) if interval is None else interval
        return Cell(value=values[0], low=low, high=high)

    def photos(self, column: str) -> np.ndarray | None:
        """The figure of each photo, mean over the seeds: float64 [N] with NaN where there is none."""
        key = self.row.key(column)
        rows = [one.per_photo[key] for one in self.trainings if key in one.per_photo]
        if not rows or len({len(row) for row in rows}) > 1:
            return None
        return np.array(rows, dtype=np.float64).mean(0)

    @property
    def n(self) -> str:
        """Photos measured."""
        return ", ".join(str(n) for n in sorted({one.n for one in self.trainings})) or NONE


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a claim."""

    text: str
    value: float | None
    """The ratio, or by how much the row is ahead; None on other photos."""
    interval: tuple[float, float] | None
    holds: bool | None
    """None: its interval has both answers in it, or the rows were measured on other photos."""

    @property
    def word(self) -> str:
        """As shown."""
        return "undecided" if self.holds is None else "yes" if self.holds else "no"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One table on one benchmark."""

    table: Table
    source: Benchmark
    lines: Sequence[Line]

    @property
    def name(self) -> str:
        """Of the benchmark."""
        return self.source.folder.name

    def verdicts(self) -> list[Verdict]:
        """Of the claims whose rows were measured."""
        by_name = {line.row.name: line for line in self.lines}
        labels = {column.key: column.label for column in self.table.columns}
        found = [_judge(claim, by_name[claim.ahead], by_name[claim.behind], labels) for claim in self.table.claims]
        return [verdict for verdict in found if verdict is not None]


def assemble(table: Table, source: Benchmark, folder: RowFolder) -> Block:
    """Gather a table's rows from their files."""
    lines = [Line(row=row, trainings=folder.seeds(row.measured, source.sha256)) for row in table.rows]
    return Block(table=table, source=source, lines=lines)


def _judge(claim: Claim, ahead: Line, behind: Line, labels: Mapping[str, str]) -> Verdict | None:
    a, b = ahead.cell(claim.key), behind.cell(claim.key)
    if a is None or b is None:
        return None
    label = labels.get(claim.key, claim.key)
    said = f" (paper: {claim.paper})" if claim.paper else ""
    if ahead.n != behind.n:  # distances of sets depend on n
        text = f"{label}: {ahead.row.label} against {behind.row.label}, measured on {ahead.n} and {behind.n} photos"
        return Verdict(text=text + said, value=None, interval=None, holds=None)
    if claim.at_most is not None:
        ratio = a.value / b.value if b.value else float("inf")
        text = f"{label}: {ahead.row.label} is {ratio:.3f} x {behind.row.label}, at most {claim.at_most} wanted{said}"
        return Verdict(text=text, value=ratio, interval=None, holds=ratio <= claim.at_most)
    sign = 1 if claim.higher else -1
    gain, interval = sign * (a.value - b.value), None
    x, y = ahead.photos(claim.key), behind.photos(claim.key)
    if x is not None and y is not None and len(x) == len(y):
        difference = sign * (x - y)
        difference = difference[~np.isnan(difference)]
        if len(difference):
            gain, interval = float(difference.mean()), bootstrap_interval(difference)
    text = f"{label}: {ahead.row.label} is {gain:+.4f} ahead of {behind.row.label}"
    text += f" [{interval[0]:+.4f}, {interval[1]:+.4f}], paired over photos" if interval else ""
    if interval is None:
        return Verdict(text=text + said, value=gain, interval=None, holds=gain > 0)
    holds = None if interval[0] <= 0 < interval[1] else interval[0] > 0
    return Verdict(text=text + said, value=gain, interval=interval, holds=holds)


def as_json(blocks: Sequence[Block], command: str) -> dict[str, Any]:
    """Everything, for programs."""
    table = blocks[0].table
    return {
        "table": table.name,
        "title": table.title,
        "paper": paper.SOURCE,
        "notes": list(table.notes),
        "benchmarks": [
            {
                "benchmark": block.name,
                "benchmark_sha256": block.source.sha256,
                "rows": [_row_json(line, block.table.columns) for line in block.lines],
                "claims": [
                    {"text": v.text, "value": v.value, "interval_95": v.interval, "holds": v.holds}
                    for v in block.verdicts()
                ],
            }
            for block in blocks
        ],
        "command": command,
    }


def _row_json(line: Line, columns: Sequence[Column]) -> dict[str, Any]:
    cells = {column.key: line.cell(column.key) for column in columns}
    several = len(line.trainings) > 1
    return {
        "row": line.row.name,
        "label": line.row.label,
        "paper": dict(line.row.paper),
        "n": line.trainings[0].n if line.trainings else None,
        "seeds": len(line.trainings),
        "figures": {key: None if cell is None else cell.value for key, cell in cells.items()},
        "range_over_seeds" if several else "intervals_95": {
            key: None if cell is None or cell.low is None else [cell.low, cell.high] for key, cell in cells.items()
        },
        "settings": [dict(one.setting) for one in line.trainings],
        "training": [list(one.training) for one in line.trainings],
        "measured_by": [one.command for one in line.trainings],
    }


def as_csv(blocks: Sequence[Block]) -> str:
    """One line a row and benchmark; figures, the ends of their intervals, the paper's figures."""
    out = io.StringIO()
    columns = blocks[0].table.columns
    ours = [f"{column.key}{ending}" for column in columns for ending in ("", "_low", "_high")]
    theirs = [f"paper_{column.key}" for column in columns if column.paper]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["benchmark", "benchmark_sha256", "row", "label", "n", "seeds", *ours, *theirs])
    for block in blocks:
        for line in block.lines:
            values: list[object] = []
            for column in columns:
                cell = line.cell(column.key)
                values += ["", "", ""] if cell is None else [cell.value, cell.low, cell.high]
            stated = [line.row.paper.get(column.key, "") for column in columns if column.paper]
            about = [block.name, block.source.sha256, line.row.name, line.row.label, line.n, len(line.trainings)]
            writer.writerow([*about, *values, *stated])
    return out.getvalue()


def headings(table: Table) -> list[str]:
    """Of the columns as they are shown: the paper's first."""
    theirs = [f"paper: {column.paper}" for column in table.columns if column.paper]
    return ["row", *theirs, *(column.label for column in table.columns), "n", "seeds"]


def texts(block: Block, intervals: bool = True) -> list[list[str]]:
    """The cells below the headings."""
    found = []
    for line in block.lines:
        cells = [line.row.label]
        for column in block.table.columns:
            if column.paper:
                cells.append(f"{line.row.paper[column.key]:g}" if column.key in line.row.paper else NONE)
        for column in block.table.columns:
            cell = line.cell(column.key)
            if cell is None:
                cells.append(NONE)
            else:
                cells.append(cell.text(column.digits) if intervals else f"{cell.value:.{column.digits}f}")
        found.append([*cells, line.n, str(len(line.trainings))])
    return found


def about(block: Block) -> list[str]:
    """Lines below a table."""
    several = any(len(line.trainings) > 1 for line in block.lines)
    brackets = "in brackets: 95 % intervals over the photos" + (", with several seeds their range" if several else "")
    return [f"benchmark {block.name}, sha256 {block.source.sha256}", brackets, *block.table.notes]


def as_markdown(blocks: Sequence[Block], command: str) -> str:
    """For people, beside the code."""
    lines = []
    for block in blocks:
        head = headings(block.table)
        lines += [f"## {block.table.title}: {block.name}", ""]
        lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines += ["| " + " | ".join(cells) + " |" for cells in texts(block)]
        lines += ["", *(f"- {text}" for text in about(block))]
        if verdicts := block.verdicts():
            lines += ["", "| claim | holds |", "|---|---|"]
            lines += [f"| {verdict.text} | {verdict.word} |" for verdict in verdicts]
        lines += [""]
    return "\n".join([*lines, f"The paper's figures: {paper.SOURCE}.", "", "Made by:", "", f"    {command}", ""])


def as_text(block: Block) -> Shown:
    """For the terminal: without the intervals, which would not fit."""
    shown = Shown(title=f"{block.table.title}: {block.name}")
    for i, heading in enumerate(headings(block.table)):
        shown.add_column(heading, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for cells in texts(block, intervals=False):
        shown.add_row(*cells)
    return shown
