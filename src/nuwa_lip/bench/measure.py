"""Time and memory, and how they are reported.

Times are medians of interleaved repeats, so that a machine that slows down slows all candidates down. Memory
is the peak of a fresh process each (VmHWM, Linux), so that no candidate profits from what another has freed.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

CPU = torch.device("cpu")
EVERY = 0.05
"""Seconds between two looks at the memory of a measured process's workers."""


@dataclass(frozen=True)
class Row:
    """One line of a report."""

    what: str
    value: float
    """NaN where the system does not say."""
    unit: str
    """"x" for ratios, else s, MB, photos/s or GFLOP/s."""
    bar: float | None = None
    """What `value` must not exceed, or, with `at_least`, must reach."""
    at_least: bool = False
    noise: float = 0.0
    """Half of the range of the repeats, as a share of `value`."""
    divergence: float | None = None
    """What this form of the weights costs: nats a token, see `bench.quality`."""

    @property
    def missed(self) -> bool:
        """Say whether there is a bar and `value` is not known to be on its right side."""
        if self.bar is None:
            return False
        return not (self.value >= self.bar if self.at_least else self.value <= self.bar)


class Timing(NamedTuple):
    """The median of several repeats."""

    seconds: float
    noise: float
    """Half of their range, as a share of the median."""

    def row(self, what: str, unit: str = "s") -> Row:
        """Make a line of a report, in s or ms."""
        return Row(what, self.seconds * (1000 if unit == "ms" else 1), unit, noise=self.noise)


def times(what: str, slow: Timing, fast: Timing, bar: float | None = None, *, at_least: bool = True) -> Row:
    """Divide two times.

    Args:
        what: the line's name.
        slow: the numerator.
        fast: the denominator.
        bar: of the ratio.
        at_least: whether the ratio must reach the bar, or must not exceed it.
    """
    value, noise = slow.seconds / fast.seconds, slow.noise + fast.noise
    return Row(what, value, "x", bar=bar, at_least=at_least and bar is not None, noise=noise)


class Child(NamedTuple):
    """Time and memory of a finished process."""

    seconds: float
    peak_mb: float
    """MB = 10^6 bytes; NaN where the system does not say."""
    output: str


def now() -> float:
    """Read a clock, in seconds, once a GPU, if one is in use, has finished its work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def timings(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: bool = True,
    least: float = 0.0,
    clock: Callable[[], float] = now,
) -> dict[str, Timing]:
    """Time each case: one warm-up, then `rounds` times all of them in turn.

    Args:
        cases: what to call.
        rounds: repeats, 1 or more.
        warm_up: leave it out for what takes minutes, where it would not show.
        least: seconds; a case that is shorter is called several times in a repeat.
        clock: gives seconds; `time.process_time` gives those of the CPU, all threads of this process together.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    calls = dict.fromkeys(cases, 1)
    for lap in range(-1 if warm_up else 0, rounds):
        for name, run in cases.items():
            if lap < 0 and least:
                run()  # a first call takes longer, and would make the number of calls too small
            start = clock()
            for _ in range(calls[name]):
                run()
            passed = (clock() - start) / calls[name]
            if lap >= 0:
                seconds[name].append(passed)
            else:
                calls[name] = max(1, round(least / max(passed, 1e-6)))
    return {name: timing(values) for name, values in seconds.items()}


def timing(seconds: list[float]) -> Timing:
    """Take the median and the noise of repeats, in seconds."""
    middle = statistics.median(seconds)
    return Timing(middle, (max(seconds) - min(seconds)) / 2 / middle if middle else 0.0)


REPORT_PEAK = """
import atexit, os
def _report():
    with open('/proc/self/status') as status, open(os.environ['NUWA_LIP_BENCH_PEAK'], 'w') as out:
        out.write(status.read())
if os.path.exists('/proc/self/status'):
    atexit.register(_report)
"""


def child(code: str, *args: str, workers: bool = False) -> Child:
    """Run Python code in a fresh interpreter and measure its time and peak memory.

    Args:
        code: what to run.
        args: its `sys.argv[1:]`.
        workers: add the peaks of all processes that it starts, as last seen by looking every `EVERY` seconds. The sum
            errs upwards: they need not peak at once, and pages that they share count for each.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    others: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "peak"
        command = [sys.executable, "-c", REPORT_PEAK + code, *args]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        start = time.perf_counter()
        with subprocess.Popen(command, env=os.environ | {"NUWA_LIP_BENCH_PEAK": str(report)}, **pipes) as process:
            try:
                while True:
                    with suppress(subprocess.TimeoutExpired):
                        output, errors = process.communicate(timeout=EVERY if workers else None)
                        break
                    # the last look counts, not the largest: before its own program starts, a process shows its
                    # parent's memory
                    looks = {worker: peak_mb(worker) for worker in started_by(process.pid)}
                    others |= {worker: peak for worker, peak in looks.items() if not math.isnan(peak)}
            except BaseException:
                process.kill()
                raise
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            raise RuntimeError((errors.strip() or "a measured process failed").splitlines()[-1])
        known = not workers or Path("/proc/thread-self/children").exists()
        peak = _peak_in(report) if known else math.nan
    return Child(seconds, peak + sum(others.values()), output)


def call_apart(function: Callable[..., object], *args: str | int | None) -> Child:
    """Call a function of a module in a fresh interpreter.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    return child(f"from {function.__module__} import {function.__name__} as call; call(*{args!r})")


def started_by(process: int) -> list[int]:
    """List the running processes that a process has started, and those that these have started."""
    found: list[int] = []
    with suppress(OSError):  # any of them may end while it is looked at
        for children in Path(f"/proc/{process}/task").glob("*/children"):  # Linux
            found += map(int, children.read_text().split())
    return found + [further for worker in found for further in started_by(worker)]


def peak_mb(process: int | str = "self") -> float:
    """Read a process's peak memory so far, in MB; NaN where the system does not say, or the process has ended."""
    return _peak_in(Path(f"/proc/{process}/status"))  # Linux


def _peak_in(status: Path) -> float:
    with suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    return math.nan


def children(cases: Mapping[str, tuple[str, ...]], rounds: int) -> dict[str, Child]:
    """Take medians over interleaved fresh processes; each case is (code, arguments ...)."""
    runs: dict[str, list[Child]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            runs[name].append(child(*call))
    medians = {}
    for name, done in runs.items():
        seconds, peaks, outputs = zip(*done, strict=True)
        medians[name] = Child(statistics.median(seconds), statistics.median(peaks), outputs[-1])
    return medians


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """Describe the machine that the figures depend on."""
    return {
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_name() -> str:
    """Name the processor's model and the instruction set that torch uses."""
    info = Path("/proc/cpuinfo")  # Linux
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def gflop(run: Callable[[], object], device: torch.device = CPU) -> float:
    """Count the operations in the matrix products and convolutions of a call, in billions."""
    # the counter does not see the fused attention of the CPU: take it apart
    apart = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with apart, FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def markdown(rows: list[Row]) -> str:
    """Write rows as a Markdown table, with a column for the weights' divergence if any row has one."""
    lossy = any(row.divergence is not None for row in rows)
    lines = ["| what | measured | bar |", "|---|---:|---:|"]
    if lossy:
        lines = [lines[0] + " divergence, nats a token |", lines[1] + "---:|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        bar = "" if row.bar is None else f"{sign} {row.bar:g}{' missed' if row.missed else ''}"
        value = f"{row.value:.4g} {row.unit}" if math.isfinite(row.value) else "not measured"
        line = f"| {row.what} | {value} | {bar} |"
        if lossy:
            line += " |" if row.divergence is None else f" {row.divergence:.2g} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def as_json(stage: str, rows: list[Row], notes: dict[str, Any]) -> dict[str, Any]:
    """Make the report's content, with null for a value that is not known.

    Args:
        stage: its name.
        rows: what was measured.
        notes: what the figures depend on, beside the rows.
    """
    known = [asdict(row) | {"value": row.value if math.isfinite(row.value) else None} for row in rows]
    return {"stage": stage, **notes, "rows": known}
