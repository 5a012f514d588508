"""Measured rows on disk: one JSON each, which is what a table is assembled from.

    rows/BENCHMARK/KIND/ROW.json            figures, intervals, figures of each photo
    pictures/BENCHMARK/KIND/ROW/NNNNN.png   some results, for the page

A row is known by its `identity`: hashes of the benchmark and of the contents of whatever repainted it, and everything
else that its figures depend on. The same identity is not measured twice. Further trainings of a row, with other seeds,
are rows called NAME-seed1 and so on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nuwa_lip.disk import parse_json
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.report import write_report
from nuwa_lip.tables.budget import Budget
from nuwa_lip.tables.layout import Kind

SEEDED = re.compile(r"-seed\d+$")
"""The end of a further training's name."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row's figures on one benchmark."""

    row: str
    kind: Kind
    benchmark: str
    benchmark_sha256: str
    n: int
    identity: Mapping[str, Any]
    """What the figures depend on."""
    setting: Mapping[str, Any]
    """For the reader: the model's name and size, seeds, filters."""
    figures: Mapping[str, float | None]
    intervals_95: Mapping[str, Sequence[float] | None]
    per_photo: Mapping[str, Sequence[float | None]]
    """Figures of each photo, None where it has none."""
    resampled: Mapping[str, Sequence[float | None]]
    """Distances of sets on resamples of the photos, which all rows of a benchmark share."""
    training: Sequence[str] = field(default_factory=list)
    """Commands that trained it, if they are known."""
    budget: Sequence[Budget] = field(default_factory=list)
    """What each stage of its training took, if that is known."""
    command: str = ""
    """The command that measured it."""

    @property
    def seed(self) -> int:
        """Seed of its training."""
        return int(self.row.rpartition("-seed")[2]) if SEEDED.search(self.row) else 0


class RowFolder:
    """The rows of one kind on one benchmark, below a results folder.

    Args:
        out: the results folder.
        benchmark: its name.
        kind: of the rows.
        wanted: what the identity of a row must have to be one of these: the definitions of the figures, the
            benchmark's hash, how many photos, how many captions are compared; None: anything is.
        first: number of photos if not all are measured; such rows lie apart, and replace none of all photos.
    """

    def __init__(
        self,
        out: Path,
        benchmark: str,
        kind: Kind,
        wanted: Mapping[str, Any] | None = None,
        first: int | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.benchmark = benchmark
        self.wanted = dict(wanted or {})
        name = benchmark if first is None else f"{benchmark}-first-{first}"
        self.folder = out / "rows" / name / kind
        self.pictures = out / "pictures" / name / kind
        self.work = out / "work" / name / kind

    def path(self, row: str) -> Path:
        """Name the JSON file of a row."""
        return self.folder / f"{row}.json"

    def picture(self, row: str, index: int, part: str) -> Path:
        """Name the file of a result.

        Args:
            row: its name.
            index: of the photo.
            part: names one of several pictures.
        """
        return self.pictures / row / f"{index:05d}.{part}.png"

    def read(self, row: str) -> Measured | None:
        """Read a row; None if it was not measured.

        Raises:
            InputError: its file is damaged.
        """
        path = self.path(row)
        if not path.is_file():
            return None
        try:
            return Measured(**parse_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is no measured row ({error}): remove it, to measure it again") from error

    def write(self, measured: Measured) -> None:
        """Write a row."""
        write_report(self.path(measured.row), asdict(measured))

    def remove(self, row: str) -> None:
        """Remove a row and its pictures, which are of other weights."""
        self.path(row).unlink(missing_ok=True)
        for picture in (self.pictures / row).glob("*.png"):
            picture.unlink()

    def seeds(self, row: str) -> list[Measured]:
        """Read all trainings of a row, by seed; without those that were measured otherwise than is wanted."""
        names = [path.stem for path in self.folder.glob(f"{row}*.json")] if self.folder.is_dir() else []
        names = [name for name in names if name == row or re.fullmatch(re.escape(row) + r"-seed\d+", name)]
        found = [self.read(name) for name in sorted(names, key=lambda name: (len(name), name))]
        return [measured for measured in found if measured is not None and not self._differs(measured)]

    def stale(self) -> dict[str, str]:
        """Find rows that were measured otherwise than is wanted: name → what differs."""
        names = sorted(path.stem for path in self.folder.glob("*.json")) if self.folder.is_dir() else []
        found = [measured for name in names if (measured := self.read(name)) is not None]
        return {measured.row: why for measured in found if (why := self._differs(measured))}

    def _differs(self, measured: Measured) -> str:
        known = {"benchmark_sha256": measured.benchmark_sha256, "n": measured.n, **measured.identity}
        return ", ".join(key for key, value in self.wanted.items() if known.get(key) != value)


def seeded(row: str, seed: int) -> str:
    """Name a row's training with a seed."""
    return row if seed == 0 else f"{row}-seed{seed}"
