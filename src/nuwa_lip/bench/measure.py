"""How time and memory are taken.

Times are medians of interleaved repeats, so that a machine that slows down slows all candidates down. Memory
is the peak of a fresh process each (VmHWM, Linux), so that no candidate profits from what another has freed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a report."""

    what: str
    value: float
    unit: str
    """"x" for ratios, else s, MB or GFLOP/s."""
    bar: float | None = None
    """What `value` must not exceed."""


class Child(NamedTuple):
    """What a process took."""

    seconds: float
    peak_mb: float
    """MB = 10^6 bytes; NaN where the system does not tell."""
    output: str


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each case: one warm-up, then `rounds` times all of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for lap in range(rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if lap > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


REPORT_PEAK = """
import atexit, os
def _report():
    with open('/proc/self/status') as status, open(os.environ['NUWA_LIP_BENCH_PEAK'], 'w') as out:
        out.write(next(line.split()[1] for line in status if line.startswith('VmHWM')))
if os.path.exists('/proc/self/status'):
    atexit.register(_report)
"""


def child(code: str, *args: str) -> Child:
    """Run Python code in a fresh interpreter; its arguments are `sys.argv[1:]`.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        peak_file = Path(folder) / "peak"
        environment = {**os.environ, "NUWA_LIP_BENCH_PEAK": str(peak_file)}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", REPORT_PEAK + code, *args], capture_output=True, text=True, env=environment
        )
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip() or "a measured process failed").splitlines()[-1])
        peak = int(peak_file.read_text()) * 1024 / 1e6 if peak_file.exists() else float("nan")
    return Child(seconds, peak, done.stdout)


def children(cases: Mapping[str, tuple[str, ...]], rounds: int) -> dict[str, Child]:
    """Medians over interleaved fresh processes; each case is (code, arguments ...)."""
    runs: dict[str, list[Child]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            runs[name].append(child(*call))
    return {
        name: Child(
            statistics.median(r.seconds for r in done),
            statistics.median(r.peak_mb for r in done),
            done[-1].output,
        )
        for name, done in runs.items()
    }


def machine() -> dict[str, Any]:
    """What the figures depend on, for the record."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def matmul_gflops(dtype: torch.dtype, size: int = 2048) -> float:
    """The machine's limit: rate of a square matrix product."""
    a = torch.randn(size, size).to(dtype)
    seconds = interleaved({"product": lambda: a @ a}, 3)["product"]
    return 2 * size**3 / seconds / 1e9


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | measured | bar |", "|---|---:|---:|"]
    for row in rows:
        bar = "" if row.bar is None else f"≤ {row.bar:g}{' missed' if row.value > row.bar else ''}"
        lines.append(f"| {row.what} | {row.value:.4g} {row.unit} | {bar} |")
    return "\n".join(lines) + "\n"


def as_json(stage: str, rows: list[Row], notes: dict[str, Any]) -> dict[str, Any]:
    """The report's content."""
    return {"stage": stage, **notes, "rows": [asdict(row) for row in rows]}
