"""What has changed since an earlier run, beyond what its own repeats differ by."""

from __future__ import annotations

import json
import math
from pathlib import Path

from nuwa_lip.bench.measure import Row
from nuwa_lip.errors import InputError

LEAST = 0.03
"""Share below which a change is not worth a line."""


def read(path: Path) -> list[Row]:
    """The rows of an earlier report.

    Raises:
        InputError: there is no such file, or it is no report.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path} to compare with; give one that --json has written")
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no report of nuwa-lip bench: {error}") from error


def changes(old: list[Row], new: list[Row]) -> list[str]:
    """One line for each figure that has changed by more than both runs' noise together.

    Args:
        old, new: figures are told by what they measure; those of one run only are left out.
    """
    before = {row.what: row for row in old}
    lines = []
    for row in new:
        earlier = before.get(row.what)
        if earlier is None or not earlier.value or not math.isfinite(row.value + earlier.value):
            continue
        change = row.value / earlier.value - 1
        if abs(change) > max(LEAST, row.noise + earlier.noise):
            lines.append(f"{row.what}: {earlier.value:.4g} → {row.value:.4g} {row.unit} ({change:+.0%})")
    return lines


def report(path: Path, rows: list[Row]) -> str:
    """The changes as text."""
    lines = changes(read(path), rows)
    return "\n".join([f"changed since {path}, beyond noise:", *lines] if lines else [f"nothing changed since {path}"])
