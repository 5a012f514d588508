"""`nuwa-lip inpaint DIR --cluster`: the photos of a folder by many processes on Ray Data, one for each device.

The same jobs with the same names, masks and seeds as without, so that the files are the same to the byte. Ray spreads
them in blocks; that of a process which has died is given to another one, which replaces what there is of it. Photos,
masks and results are files that every machine sees under the same names; what lies in shards or in an object store
becomes such files first (`fetched_inputs`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nuwa_lip.commands.folder_jobs import Job
from nuwa_lip.commands.inpaint_folder import Attempt, Runner, attempt
from nuwa_lip.commands.on_ray import on_ray, through_actors
from nuwa_lip.disk import escaped
from nuwa_lip.errors import InputError


class Painters:
    """Repaints jobs in a process of its own.

    Args:
        make_runner: makes what repaints them.
        folder: in which the command was given.
    """

    def __init__(self, make_runner: Callable[[], Runner], folder: str) -> None:
        with suppress(OSError):  # another machine may have no such folder
            os.chdir(folder)  # for names that are relative to it
        warnings.showwarning = _say_warning  # type: ignore[assignment]
        self.runner = make_runner()
        self.replaces = self.runner.replaces

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Repaint the jobs of a batch, each as JSON → what became of each, as JSON."""
        return {"done": [json.dumps(self.repaint(json.loads(one))) for one in batch["job"]]}

    def repaint(self, given: dict[str, Any]) -> dict[str, Any]:
        """Repaint one job; what it prints comes back with the rest."""
        job = Job(
            photo=Path(given["photo"]),
            mask=None if given["mask"] is None else Path(given["mask"]),
            prompt=given["prompt"],
            out=Path(given["out"]),
        )
        done: dict[str, Any] = {"number": given["number"], "error": None}
        # what was not there when the command began is of a process that has died
        self.runner.replaces = self.replaces or given["fresh"]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                self.runner.load()
            except InputError as problem:
                return done | {"fatal": str(problem)}
            try:
                failed = attempt(job, self.runner)
            except OSError as problem:  # of the disk, and so of every photo that follows
                return done | {"fatal": f"{job.photo}: {problem}"}
        records, self.runner.records[:] = list(self.runner.records), []
        return done | {
            "error": failed and str(failed),
            "records": records,
            "out": out.getvalue(),
            "err": err.getvalue(),
        }


def attempts_on_cluster(todo: Sequence[Job | InputError], runner: Runner) -> Iterator[Attempt]:
    """Repaint what is to do, and yield what became of each as soon as it is known.

    Args:
        todo: jobs, and why some photos have none.
        runner: of its kind and with its options each process makes one of its own; it gets their records.

    Raises:
        InputError: Ray or the model cannot be used.
    """
    for one in todo:
        if isinstance(one, InputError):
            yield one, one
    jobs = [(number, job) for number, job in enumerate(todo) if isinstance(job, Job)]
    if not jobs:
        return
    with on_ray() as ray:
        rows = [{"job": json.dumps(_row(number, job, runner))} for number, job in jobs]
        kind: Callable[..., Runner] = type(runner)  # not itself, for it may hold what cannot be sent
        arguments = partial(kind, replace(runner.options, seed=runner.seed)), os.getcwd()
        for row in through_actors(ray, rows, Painters, arguments, runner.options.device):
            done = json.loads(row["done"])
            if "fatal" in done:
                raise InputError(done["fatal"])
            print(done["out"], end="", flush=True)
            print(done["err"], end="", file=sys.stderr, flush=True)
            runner.records += done["records"]
            yield todo[done["number"]], None if done["error"] is None else InputError(done["error"])


def _row(number: int, job: Job, runner: Runner) -> dict[str, Any]:
    names = {"photo": str(job.photo), "mask": job.mask and str(job.mask), "prompt": job.prompt, "out": str(job.out)}
    return {"number": number, **names, "fresh": not any(os.path.lexists(name) for name in runner.files(job))}


def _say_warning(message: Warning | str, *_: Any) -> None:
    print(f"nuwa-lip: warning: {escaped(' '.join(str(message).split()))}", file=sys.stderr)
