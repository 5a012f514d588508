"""`nuwa-lip inpaint` for a folder: one photo after another, whatever happens to one of them; a stopped run goes on."""

from __future__ import annotations

import errno
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nuwa_lip.commands.folder_jobs import Job, check_names, plan, results_folder
from nuwa_lip.commands.manifest import NAME, Manifest
from nuwa_lip.disk import escaped
from nuwa_lip.errors import InputError, first_line

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
"""What is the matter with the disk, and so with every photo that follows."""


class Runner(Protocol):
    """Repaints jobs."""

    records: list[dict[str, Any]]
    replaces: bool
    manifest: bool
    device: str
    """cpu, cuda, or auto."""

    def files(self, job: Job) -> list[Path]:
        """Name what a job writes."""

    def load(self) -> Any:
        """Load the model."""

    def repaint(self, job: Job) -> None:
        """Repaint one photo."""

    def report(self) -> None:
        """Write what was done."""


Attempt = tuple[Job | InputError, InputError | None]
"""A job, or why there is none, and what was the matter with it, if anything was."""


def attempt(job: Job | InputError, runner: Runner) -> InputError | None:
    """Repaint one photo → None, or what is the matter with it."""
    try:
        if isinstance(job, InputError):
            raise job
        with named(job.photo), warnings_named(job.photo):
            runner.repaint(job)
    except InputError as error:
        return error
    return None


def attempts_here(todo: Sequence[Job | InputError], runner: Runner) -> Iterator[Attempt]:
    """Repaint one photo after another, with the model that is loaded."""
    for job in todo:
        yield job, attempt(job, runner)


def repaint_folder(
    photos: Path,
    mask: Path | None,
    prompt: str,
    out: Path,
    runner: Runner,
    attempts: Callable[[Sequence[Job | InputError], Runner], Iterator[Attempt]] = attempts_here,
) -> None:
    """Repaint what can be repainted and has no result yet; name the rest, and fail at the end if something failed.

    Args:
        photos: folder of photos.
        mask: as for `plan`.
        prompt: as for `plan`.
        out: folder for the results.
        runner: repaints each.
        attempts: lets it do so, here or elsewhere.

    Raises:
        InputError: nothing could be repainted; nothing was written.
        SystemExit: with 1, some photos could not.
    """
    jobs = plan(photos, mask, prompt, out)
    check_names([(job, runner.files(job)) for job in jobs if isinstance(job, Job)])
    kept = {job for job in jobs if isinstance(job, Job) and not runner.replaces and _is_done(job, runner)}
    todo, failed = [job for job in jobs if job not in kept], 0
    if kept:
        print(f"{escaped(out)}: {len(kept)} of {len(jobs)} photos have a result already; --overwrite repaints them too")
    if attempts is attempts_here and any(isinstance(job, Job) for job in todo):
        runner.load()  # first, because every photo would complain about the same model
    start = time.monotonic()
    with results_folder(out):
        manifest = Manifest(out / NAME if runner.manifest else None)
        for job in jobs:
            if isinstance(job, Job) and job in kept and str(job.photo) not in manifest.inputs:
                manifest.add(job.photo, "kept", results=[str(name) for name in runner.files(job)])
        for number, (job, error) in enumerate(attempts(todo, runner), 1):
            if error is None and isinstance(job, Job):
                made = runner.records[-1]
                manifest.add(job.photo, "done", results=made["results"], seeds=made["seeds"])
            elif error is not None:
                failed += 1
                manifest.add(getattr(job, "photo", None), "failed", error=str(error))
                runner.records.append(_record(job, error))
                print(f"nuwa-lip: {escaped(error)}", file=sys.stderr)
            if number < len(todo) and isinstance(job, Job):
                left = (time.monotonic() - start) / number * (len(todo) - number)
                print(f"{number} of {len(todo)}, {_duration(left)} left", flush=True)
    if failed == len(jobs):
        raise InputError(f"none of {failed} photos could be repainted")
    runner.report()
    if todo:
        print(f"{escaped(out)}: {len(todo) - failed} of {len(todo)} photos repainted")
    if failed:
        raise SystemExit(1)


def _is_done(job: Job, runner: Runner) -> bool:
    """Whether all results of a job are there; the photo itself, in its own folder, is none."""
    return all(name.is_file() and not name.samefile(job.photo) for name in runner.files(job))


def _record(job: Job | InputError, error: InputError) -> dict[str, Any]:
    return {"photo": str(job.photo) if isinstance(job, Job) else None, "error": str(error)}


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put a file's name before an error that does not say what it is about; whatever a file causes is its own."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        if not isinstance(error, InputError):
            raise InputError(f"{path}: {type(error).__name__}: {first_line(error)}") from error
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


@contextmanager
def warnings_named(path: Path | None) -> Iterator[None]:
    """Say each warning but once; put a file's name before one that does not say what it is about."""
    show = warnings.showwarning
    said: set[str] = set()

    def once(message: Warning | str, *more: Any) -> None:
        text = str(message) if path is None or str(path) in str(message) else f"{path}: {message}"
        if text not in said:
            said.add(text)
            show(text, *more)

    with warnings.catch_warnings():
        warnings.showwarning = once  # type: ignore[assignment]
        yield
