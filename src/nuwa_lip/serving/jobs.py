"""Jobs: what was asked for, how far it is, what came of it; and the one worker that does them in turn.

The event loop puts jobs into a bounded queue and waits for their changes; a thread takes them out, one at a time,
because a device serves one painting at a time best. Nothing else is shared between the two.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from nuwa_lip.errors import InputError
from nuwa_lip.serving.limits import Limits
from nuwa_lip.serving.previews import Shot

State = Literal["waiting", "running", "done", "failed", "cancelled"]
log = logging.getLogger(__name__)


class Full(Exception):
    """As many jobs wait as may; `seconds` tells after how long one of them may be done."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"as many requests wait as this server takes: try again in {seconds} s")
        self.seconds = seconds


class Closed(Exception):
    """The server takes no more jobs: it is shutting down, or could not load its model."""


class Stopped(Exception):
    """Raised within a job between two steps: it was cancelled, or its time is over."""


@dataclass(frozen=True)
class Painted:
    """Holds one candidate, as a file."""

    content: bytes
    """PNG."""
    seed: int
    score: float
    """Mean log-probability of the repainted tokens, at most 0."""


@dataclass
class Job:
    """Holds one request until its results are forgotten; `report` and `run` are the worker's, the rest the loop's."""

    paint: Callable[[Job], list[Painted]]
    """The work itself. It calls `report` after each step, which raises `Stopped` when there is to be no next one."""
    limit: float
    """Seconds that it may take."""
    order: Any = None
    """What is painted."""
    at_its_end: Callable[[Job], None] = lambda job: None
    """Called once, in the event loop, when it is over."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    progress: float = 0.0
    """Share of the steps that are done, 0 to 1."""
    error: str | None = None
    """Why it failed, for the user."""
    fault: bool = False
    """It failed by a fault of the server, not of the request."""
    results: list[Painted] = field(default_factory=list)
    started: float | None = None
    seconds: float | None = None
    """Time that the work took."""
    watchers: int = 0
    """How many listen to it who want previews."""
    shot: Shot | None = None
    """The last preview."""

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._stop = threading.Event()

    @property
    def over(self) -> bool:
        """Return whether nothing more will change."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def seconds_left(self) -> float | None:
        """Estimate the time that is left of a running job, from what its steps took."""
        if self.state != "running" or self.started is None or self.progress <= 0:
            return None
        return (time.monotonic() - self.started) * (1 - self.progress) / self.progress

    def cancel(self) -> None:
        """Ask for the end: at once where it waits, after the running step where it runs."""
        self._stop.set()
        if self.state == "waiting":
            self.change(state="cancelled")

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    async def finished(self) -> None:
        """Wait until the job is over."""
        while not self.over:
            await self.changed()

    def change(self, **values: object) -> None:
        """Set attributes, and wake whoever waits for changes; from any thread."""

        def apply() -> None:
            if self.over:  # a job that was cancelled stays so
                return
            for name, value in values.items():
                setattr(self, name, value)
            if self.over:
                self.at_its_end(self)
            before, self._changed = self._changed, asyncio.Event()
            before.set()

        self._loop.call_soon_threadsafe(apply)

    def report(self, progress: float, shot: Shot | None = None) -> None:
        """Say how far the work is, and show it if there is a new preview.

        Raises:
            Stopped: it should not go on.
        """
        if self._stop.is_set():
            raise Stopped("cancelled")
        if self.started is not None and time.monotonic() - self.started > self.limit:
            raise Stopped(f"the request took longer than the {self.limit:.0f} s that this server gives one")
        self.change(progress=progress, **({} if shot is None else {"shot": shot}))

    def run(self) -> None:
        """Do the work, in the worker's thread; whatever happens becomes a state."""
        if self._stop.is_set():
            return self.change(state="cancelled")
        self.started = time.monotonic()
        self.change(state="running")
        try:
            results = self.paint(self)
        except Stopped as reason:
            state = "cancelled" if self._stop.is_set() else "failed"
            self.change(state=state, error=None if state == "cancelled" else str(reason))
        except InputError as error:
            self.change(state="failed", error=str(error))
        except Exception:
            log.exception("job %s failed", self.id)
            self.change(state="failed", error="the server failed at this request; its log says why", fault=True)
        else:
            self.change(state="done", progress=1.0, results=results, seconds=time.monotonic() - self.started)


class Worker:
    """Does jobs one after another in a thread, and remembers the finished ones for a while.

    Args:
        limits: how many may wait, and what is remembered.
        prepare: called first in the thread, such as to load the model.
    """

    def __init__(self, limits: Limits, prepare: Callable[[], object] = lambda: None) -> None:
        self.limits = limits
        self.jobs: dict[str, Job] = {}
        self.ready = False
        """The preparation is over, and went well."""
        self.failure: str | None = None
        """Why it did not."""
        self._prepare = prepare
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._closing = False
        self._prepared = threading.Event()
        self._pace = 2.0  # seconds a job, as far as known
        self._thread = threading.Thread(target=self._work, name="painter", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def prepared(self) -> None:
        """Wait until the preparation is over.

        Raises:
            InputError: it has failed.
        """
        self._prepared.wait()
        if self.failure is not None:
            raise InputError(self.failure)

    @property
    def waiting(self) -> int:
        """Count the jobs that wait."""
        return sum(job.state == "waiting" for job in self.jobs.values())

    def check(self) -> None:
        """Find out whether a job would be taken.

        Raises:
            Full: as many wait as may.
            Closed: the server takes none.
        """
        if self.failure is not None:
            raise Closed(f"the model could not be loaded: {self.failure}")
        if self._closing:
            raise Closed("the server is shutting down")
        if self.waiting >= self.limits.queue:
            raise Full(max(1, math.ceil(self._pace)))

    def submit(self, job: Job) -> Job:
        """Put a job into the queue.

        Raises:
            Full: as many wait as may.
            Closed: the server takes none.
        """
        self.check()
        self.jobs[job.id] = job
        self._forget()
        self._queue.put(job)
        return job

    def close(self, grace: float) -> None:
        """Take no more jobs, drop those that wait, and give the running one `grace` seconds."""
        self._closing = True
        for job in self.jobs.values():
            if job.state == "waiting":
                job.cancel()
        self._queue.put(None)
        self._thread.join(grace)
        for job in self.jobs.values():
            job.cancel()

    def _work(self) -> None:
        try:
            self._prepare()
        except Exception as error:
            log.exception("the model could not be loaded")
            self.failure = str(error)
            self._prepared.set()
            for waiting in list(self.jobs.values()):
                waiting.change(state="failed", error=f"the model could not be loaded: {error}", fault=True)
            return
        self.ready = True
        self._prepared.set()
        while (job := self._queue.get()) is not None:
            job.run()
            if job.started is not None:
                self._pace += 0.2 * (time.monotonic() - job.started - self._pace)

    def _forget(self) -> None:
        """Drop the oldest finished jobs beyond what is kept."""
        over = [job for job in self.jobs.values() if job.over]
        sizes = [sum(len(result.content) for result in job.results) for job in over]
        newest_first = list(itertools.accumulate(reversed(sizes)))[::-1]  # what a job and all newer ones hold
        for i, job in enumerate(over):
            if len(over) - i > self.limits.kept or newest_first[i] > self.limits.kept_megabytes * 1e6:
                del self.jobs[job.id]
