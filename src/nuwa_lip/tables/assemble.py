"""Rows → one table: the paper's figures and ours side by side, and what became of the claims.

As JSON for programs, CSV for spreadsheets, Markdown and text for people.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table as Shown

from nuwa_lip.data.benchmark import Benchmark
from nuwa_lip.disk import escaped
from nuwa_lip.evaluation.report import number
from nuwa_lip.tables import paper
from nuwa_lip.tables.claims import Verdict, judge
from nuwa_lip.tables.layout import Column, Table
from nuwa_lip.tables.lines import NONE, Line
from nuwa_lip.tables.rows import RowFolder

STABLE = 1000
"""Photos from which FSD hardly depends on which they are (docs/measuring.md)."""
HIDDEN = ("method", "model", "parameters")
"""Settings that are not shown below the table, because they name one row."""
LABEL = 30
"""Characters that a row's label may take of a line of the terminal; a longer one is wrapped."""
GAP = 2
"""Spaces between columns there."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One table on one benchmark."""

    table: Table
    source: Benchmark
    folder: RowFolder
    lines: Sequence[Line]

    @property
    def name(self) -> str:
        """Name of the benchmark."""
        return self.source.folder.name

    def verdicts(self) -> list[Verdict]:
        """Judge all claims, measured or not."""
        by_name = {line.row.name: line for line in self.lines}
        labels = {column.key: column.label for column in self.table.columns}
        return [judge(claim, by_name, labels) for claim in self.table.claims]

    def answers(self) -> list[tuple[str, str]]:
        """Give the verdicts as they are shown, text and word; those that wait for rows in one line."""
        verdicts = self.verdicts()
        waiting = sum(not verdict.measured for verdict in verdicts)
        shown = [(verdict.text, verdict.word) for verdict in verdicts if verdict.measured]
        return shown + ([(f"{waiting} more wait for rows that are not measured", "open")] if waiting else [])


def assemble(table: Table, source: Benchmark, folder: RowFolder) -> Block:
    """Gather the rows of a table on a benchmark from the folder of their files.

    Args:
        table: says which rows.
        source: the benchmark.
        folder: has the files of the measured rows.
    """
    lines = [Line(row=row, trainings=folder.seeds(row.measured)) for row in table.rows]
    return Block(table=table, source=source, folder=folder, lines=lines)


def as_json(blocks: Sequence[Block], command: str) -> dict[str, Any]:
    """Give all tables of a command as the report has them."""
    table = blocks[0].table
    return {
        "table": table.name,
        "paper": paper.SOURCE,
        "benchmarks": [
            {
                "title": block.table.title,
                "notes": about(block),
                "benchmark": block.name,
                "benchmark_sha256": block.source.sha256,
                "rows": [_row_json(line, block.table.columns) for line in block.lines],
                "claims": [
                    {
                        "text": v.text,
                        "value": v.value,
                        "interval_95": v.interval,
                        "by_seed": None if v.by_seed is None else dict(v.by_seed),
                        "answer": v.word,
                    }
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
        "paper": {c.paper: line.row.paper[c.key] for c in columns if c.paper and c.key in line.row.paper},
        "n": line.trainings[0].n if line.trainings else None,
        "seeds": len(line.trainings),
        "figures": {key: cell and cell.value for key, cell in cells.items()},
        "range_over_seeds" if several else "intervals_95": {key: cell and cell.interval for key, cell in cells.items()},
        "settings": [dict(one.setting) for one in line.trainings],
        "training": [list(one.training) for one in line.trainings],
        "budget": [list(one.budget) for one in line.trainings],
        "measured_by": [one.command for one in line.trainings],
    }


def as_csv(blocks: Sequence[Block]) -> str:
    """Write CSV with one line a row and benchmark: figures, the ends of their intervals, the paper's figures."""
    out = io.StringIO()
    columns = blocks[0].table.columns
    ours = [f"{column.key}{ending}" for column in columns for ending in ("", "_low", "_high")]
    theirs = [f"paper: {column.paper}" for column in columns if column.paper]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["benchmark", "benchmark_sha256", "row", "label", "n", "seeds", *ours, *theirs])
    for block in blocks:
        for line in block.lines:
            values: list[object] = []
            for column in columns:
                cell = line.cell(column.key)
                values += ["", "", ""] if cell is None else [cell.value, *(cell.interval or ("", ""))]
            stated = [line.row.paper.get(column.key, "") for column in columns if column.paper]
            about = [block.name, block.source.sha256, line.row.name, line.row.label, line.n, len(line.trainings)]
            cells = (*about, *values, *stated)
            writer.writerow(["" if value is None else escaped(value, "cell") for value in cells])
    return out.getvalue()


def headings(table: Table) -> list[str]:
    """Give the headings of the columns that are shown, the paper's first."""
    theirs = [f"paper: {column.paper}" for column in table.columns if column.paper]
    return ["row", *theirs, *(column.label for column in table.columns), "parameters", "trained on", "n", "seeds"]


def texts(block: Block) -> list[list[str]]:
    """Give the cells below the headings, row by row."""
    found = []
    for line in block.lines:
        cells = [line.row.label]
        for column in block.table.columns:
            if column.paper:
                cells.append(f"{line.row.paper[column.key]:g}" if column.key in line.row.paper else NONE)
        for column in block.table.columns:
            cell = line.cell(column.key)
            cells.append(NONE if cell is None else number(cell.value, f".{column.digits}f", cell.interval))
        found.append([*cells, line.size, line.trained, line.n, str(len(line.trainings))])
    return found


def about(block: Block) -> list[str]:
    """Write the lines below a table: what its figures depend on."""
    measured = [one for line in block.lines for one in line.trainings]
    several = any(len(line.trainings) > 1 for line in block.lines)
    brackets = "in brackets: 95 % intervals over the photos" + (", with several seeds their range" if several else "")
    lines = [f"benchmark {block.name}, sha256 {block.source.sha256}", brackets]
    if any(one.n < STABLE for one in measured):
        lines.append(f"n is below {STABLE:,}, from which FSD is stable: compare it within this table only")
    settings: dict[str, list[str]] = {}
    for line in block.lines:
        for one in line.trainings[:1]:
            text = "; ".join(f"{key} {_shown(value)}" for key, value in one.setting.items() if key not in HIDDEN)
            settings.setdefault(text, []).append(line.row.label)
    lines += [f"{', '.join(labels)}: {text}" for text, labels in settings.items() if text]
    return [*lines, *block.table.notes]


def _shown(value: Any) -> str:
    return ", ".join(f"{key} {how}" for key, how in value.items()) if isinstance(value, Mapping) else str(value)


def as_markdown(blocks: Sequence[Block], command: str) -> str:
    """Write Markdown, for people."""
    lines = []
    for block in blocks:
        head = headings(block.table)
        lines += [f"## {block.table.title}: {block.name}", ""]
        lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines += ["| " + " | ".join(cells) + " |" for cells in texts(block)]
        lines += ["", *(f"- {text}" for text in about(block))]
        if answers := block.answers():
            lines += ["", "| claim | holds |", "|---|---|"]
            lines += [f"| {text} | {word} |" for text, word in answers]
        lines += [""]
    lines += [f"The paper's figures: {paper.SOURCE}.", "", "Made by:", ""]
    return "\n".join([*lines, *(f"    {line}" for line in made_by(blocks, command)), ""])


def made_by(blocks: Sequence[Block], command: str) -> list[str]:
    """List the commands that trained and measured the rows, each once below the rows that it was for, then this one."""
    made = [(line.row.label, one) for block in blocks for line in block.lines for one in line.trainings]
    lines: list[str] = []
    for done in ("trained", "measured"):
        rows: dict[str, dict[str, None]] = {}  # by command
        for label, one in made:
            for text in one.training if done == "trained" else [one.command]:
                rows.setdefault(text, {})[label + (f", seed {one.seed}" if one.seed else "")] = None
        above = ""
        for text, labels in rows.items():
            heading = f"# {done}: {'; '.join(labels)}"
            lines += [text] if heading == above else [heading, text]
            above = heading
    return [*lines, "# this table", command]


def as_text(block: Block, width: int) -> list[Shown]:
    """Make tables for a terminal of `width` characters: as many columns side by side as fit, the next ones below.

    Rows that have nothing in one of these tables are left out of it.
    """
    labels, *columns = zip(headings(block.table), *texts(block), strict=True)
    first = min(LABEL, max(map(cell_len, labels)))
    tables: list[list[tuple[Sequence[str], int]]] = []
    left = 0
    for column in columns:
        heading, *cells = column
        wide = max(map(cell_len, (*heading.split(), *cells)))  # a heading may be wrapped, a figure not
        if left < GAP + wide:
            tables.append([(labels, first)])
            left = width - first
        tables[-1].append((column, wide))
        left -= GAP + wide
    shown = [_side_by_side(chosen) for chosen in tables]
    shown[0].title = escaped(f"{block.table.title}: {block.name}", "markup")
    return shown


def _side_by_side(columns: Sequence[tuple[Sequence[str], int]]) -> Shown:
    """Make a table of columns, each with its heading first, and their widths; the first column has the rows' labels."""
    pad = (0, GAP - 1, 0, 0)  # one more space stands where a line would
    shown = Shown(title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=pad)
    for i, ((heading, *_), wide) in enumerate(columns):
        shown.add_column(escaped(heading, "markup"), justify="right" if i else "left", width=wide)
    _, *rows = zip(*(column for column, _ in columns), strict=True)
    for label, *cells in rows:
        if any(cell != NONE for cell in cells):
            shown.add_row(*(escaped(text, "markup") for text in (label, *cells)))
    return shown
