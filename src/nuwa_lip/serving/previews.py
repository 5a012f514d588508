"""Live previews of a job: the hole as far as it is painted, as small pictures, for a tenth of the job's time at most.

A preview needs the model's decoder, which takes a small model longer than several of its steps. Hence none is made
unless somebody watches, and each one must fit into what the job, by the pace of its steps, may spend.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nuwa_lip.images.preview import Preview

SHARE = 0.1
"""Of a job's time."""
PAUSE = 0.3
"""Seconds between two at least: more than that nobody can look at."""
LONGEST = 384
"""Pixels of the longer side."""


@dataclass(frozen=True)
class Shot:
    """Holds a small picture of a hole, to be laid over its place in the upright photo."""

    box: tuple[int, int, int, int]
    """Left, top, width and height, in the photo's pixels."""
    webp: bytes
    """Transparent outside the hole."""


class Previews:
    """Makes the previews of one job.

    Args:
        seconds: what one may take; afterwards, what the last one took.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = self._next = time.monotonic()
        self._first: tuple[float, float] | None = None  # when the first step was over, and the progress then
        self._spent = 0.0

    def take(self, preview: Preview, progress: float) -> Shot | None:
        """Make one, if there is time for it.

        Args:
            preview: what to show.
            progress: share of the job's steps that are done, 0 to 1.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = now, progress
            return None
        begun, share = self._first
        if progress <= share or now < self._next:
            return None
        pace = (now - begun - self._spent) / (progress - share)
        whole = now - self._start + (1 - progress) * pace
        if self._spent + self.seconds > SHARE * whole:
            return None
        stream = io.BytesIO()
        preview.small(LONGEST).save(stream, "WEBP", quality=75, method=0)
        self.seconds = time.monotonic() - now
        self._spent += self.seconds
        self._next = time.monotonic() + max(PAUSE, self.seconds / SHARE)
        return Shot(preview.box, stream.getvalue())
