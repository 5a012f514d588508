"""Processes that torchrun has started to measure together: each its photos, into the folder of the first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from nuwa_lip.errors import InputError, first_line
from nuwa_lip.evaluation.job import open_store
from nuwa_lip.evaluation.store import Store

WAIT = timedelta(hours=2)
"""How much later than the first the last process may be, for machines are of unequal speed."""


@dataclass(frozen=True)
class Group:
    """This process's place among those that measure together."""

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[int]) -> Sequence[int]:
        """Return the part of the photos that this process measures."""
        return items[self.rank :: self.size]

    @contextmanager
    def open_store(self, run: Mapping[str, Any], work: Path | None, json: Path | None) -> Iterator[Store]:
        """Open the store of a measurement as `job.open_store` does; all processes get that of the first.

        Args:
            run, work, json: as for `job.open_store`.

        Raises:
            InputError: the folder cannot be used.
            RuntimeError: another process has ended.
        """
        if self.rank:
            yield Store(Path(self._from_first("")), run)
            return
        with open_store(run, work, json) as store:
            self._from_first(str(store.folder.absolute()))
            yield store

    def wait(self, store: Store, n: int) -> None:
        """Wait until all photos are measured.

        Args:
            store: where what is measured is kept.
            n: number of photos.

        Raises:
            InputError: another process has measured into a folder that this one does not see.
            RuntimeError: another process has ended.
        """
        if self.size == 1:
            return
        with _told():
            dist.barrier()
        if missing := store.missing(n):
            raise InputError(
                f"{store.folder} lacks photo {missing[0]}, which another process has measured: give --work DIR, "
                "a folder that all machines see"
            )

    def _from_first(self, text: str) -> str:
        """Return the first process's text in all of them."""
        texts = [text]
        if self.size > 1:
            with _told():
                dist.broadcast_object_list(texts, src=0)
        return texts[0]


def group_size() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined_group() -> Iterator[Group]:
    """Join the group that torchrun has started; without it a process is alone."""
    if group_size() == 1:
        yield Group()
        return
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("gloo", timeout=WAIT)
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()


@contextmanager
def _told() -> Iterator[None]:
    """Say in one line that another process no longer answers."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"another process has ended, or has not answered for {WAIT} ({first_line(error):.90}); what was measured "
            "is kept where there is --json or --work, and the same words go on from there"
        ) from error
