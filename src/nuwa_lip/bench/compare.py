"""Changes since an earlier run of the same settings, beyond the noise of both runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nuwa_lip.bench.measure import Row
from nuwa_lip.disk import parse_json
from nuwa_lip.errors import InputError

LEAST = 0.03
"""Share below which a change is not worth a line."""
SETTINGS = ("small", "device", "threads", "torch", "cpu", "cpus", "precisions", "sizes")
"""Notes of a report that must be equal for its figures to be comparable."""
NAMED = 3
"""Most differences that an error names."""


def read(path: Path, now: Mapping[str, Any]) -> list[Row]:
    """Read the rows of an earlier report.

    Raises:
        InputError: there is no such file, it is no report, or it was measured in another setting.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path} to compare with; give one that --json has written")
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
        # what is compared, so that reports with other columns can be read
        rows = [
            Row(row["what"], math.nan if row["value"] is None else row["value"], row["unit"], noise=row.get("noise", 0))
            for row in report["rows"]
        ]
        report.setdefault("device", "cpu")  # before there was a choice
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no report of nuwa-lip bench: {error}") from error
    found = differences(report, now)
    if found:
        named = "; ".join(found[:NAMED]) + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
        raise InputError(f"{path} is not comparable with this run: {named}: measure both in one setting")
    return rows


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List where two reports' settings differ, such as "threads 2, now 1"; empty if they are comparable."""
    unsaid = [name for name in SETTINGS if name not in old]
    if unsaid:
        return [f"it does not say its {', '.join(unsaid)}"]
    one, other = (dict(_leaves({name: notes[name] for name in SETTINGS if name in notes})) for notes in (old, new))
    return [
        f"{name} {one.get(name, 'unsaid')}, now {other.get(name, 'unsaid')}"
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    ]


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name nested settings with dots; their values are as they come back from a file."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.loads(json.dumps(value))


def changes(old: list[Row], new: list[Row]) -> list[str]:
    """Write one line for each figure that has changed by more than both runs' noise together.

    Rows are matched by their names; a row of one run only is left out.
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


def report(path: Path, old: list[Row], new: list[Row]) -> str:
    """Write the changes as text.

    Args:
        path: of the earlier report.
        old: its rows.
        new: rows of this run.
    """
    lines = changes(old, new)
    return "\n".join([f"changed since {path}, beyond noise:", *lines] if lines else [f"nothing changed since {path}"])
