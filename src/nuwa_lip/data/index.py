"""Samples of local shards in any order, without reading what lies between.

Where the samples of a shard lie is found by reading it once, when the order comes to it, and kept beside it in
`.index/NAME.tar.json`. So a training starts at once however many shards there are, and a resumed one need not read what
it has passed.

An epoch permutes the shards, takes some of them at a time, and permutes the samples of these: first one, so that a
training can begin soon, then twice as many each time, up to `WINDOW`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nuwa_lip.data.order import permutation
from nuwa_lip.data.shards import EncodedSample, nothing_read, parse_sample, read_placed
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.disk import parse_json, written_whole

WINDOW = 8
"""Most shards whose samples are permuted together."""


class ShardIndex(NamedTuple):
    """Where the samples of a shard lie."""

    places: np.ndarray
    """int64 [samples, 2]: bytes at which each begins and ends"""
    skipped: dict[str, Any]
    """What could not be read, as `vars` of a `Skipped`."""


class _Window(NamedTuple):
    seed: int
    first: int
    stop: int
    """Places of the endless order that are in it."""
    shards: list[int]
    starts: list[int]
    """Samples of the window before each of the shards, and all of them."""
    seeds: tuple[int, ...]


class IndexedShards:
    """The endless order of the samples of local shards, a pure function of (seed, place).

    Args:
        shards: files.
        window: most shards whose samples are permuted together.
        source: number of these shards among several sources, whose orders differ.
    """

    def __init__(self, shards: Sequence[str], window: int = WINDOW, source: int = 0) -> None:
        self.shards, self.window, self.source = [Path(shard) for shard in shards], window, source
        self.counts: list[int | None] = [None] * len(shards)
        self.held: dict[int, ShardIndex] = {}
        self.skipped = Skipped()
        """What could not be read of the shards that are counted."""
        self.at: _Window | None = None

    def read(self, seed: int, place: int) -> EncodedSample:
        """Read the sample at a place of the endless order, counted from 0.

        Raises:
            InputError: no shard has a sample, or too much of them is lost.
            ValueError: there is no sample any more, because the shard has been changed.
            OSError: the shard is not there any more.
        """
        shard, row = self.locate(seed, place)
        start, end = self._index(shard).places[row].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(start)
            return parse_sample(file.read(end - start))

    def locate(self, seed: int, place: int) -> tuple[int, int]:
        """Find the shard of the sample at a place, and its number within; see `read`."""
        window = self.at
        if window is None or seed != window.seed or not window.first <= place < window.stop:
            window = self.at = self._window(seed, place)
        row = int(permutation(window.starts[-1], *window.seeds)[place - window.first])
        number = int(np.searchsorted(window.starts, row, side="right")) - 1
        return window.shards[number], row - window.starts[number]

    def _window(self, seed: int, place: int) -> _Window:
        """Find the window of a place; shards before it are read if nobody knows how many samples they have."""
        epoch = first = 0
        while True:
            if None not in self.counts:
                total = sum(count or 0 for count in self.counts)
                if not total:
                    raise nothing_read([*map(str, self.shards)], self.skipped)
                epoch, first = place // total, place // total * total
            order = permutation(len(self.shards), seed, epoch, self.source).tolist()
            for start, stop in self._windows():
                shards = order[start:stop]
                starts = [0, *accumulate(map(self._count, shards))]
                if place < first + starts[-1]:
                    seeds = (seed, epoch, self.source, stop)
                    return _Window(seed, first, first + starts[-1], shards, starts, seeds)
                first += starts[-1]

    def _count(self, shard: int) -> int:
        count = self.counts[shard]
        if count is None:
            index = self._index(shard)
            count = self.counts[shard] = len(index.places)
            self.skipped.merge(index.skipped)
            if None not in self.counts and (total := sum(found or 0 for found in self.counts)):
                self.skipped.warn(total)
        return count

    def _windows(self) -> Iterator[tuple[int, int]]:
        """Where the windows begin and end in an epoch's order of the shards."""
        start, size = 0, 1
        while start < len(self.shards):
            yield start, min(start + size, len(self.shards))
            start, size = start + size, min(2 * size, self.window)

    def _index(self, shard: int) -> ShardIndex:
        """The index of a shard; those of the last few shards are held."""
        if shard not in self.held:
            while len(self.held) >= 2 * self.window:
                self.held.pop(next(iter(self.held)))
            self.held[shard] = index_of(self.shards[shard])
        return self.held[shard]


def index_of(shard: Path) -> ShardIndex:
    """Read the index beside a shard, or make it, if there is none of the shard as it is."""
    file = shard.parent / ".index" / f"{shard.name}.json"
    try:
        about = {"size": shard.stat().st_size, "changed": shard.stat().st_mtime_ns}
    except OSError:  # what reads the shard says so
        about = {}
    if about and (known := _read(file, about)) is not None:
        return known
    skipped = Skipped()
    found = [(start, end) for _, start, end in read_placed([str(shard)], skipped)]
    index = ShardIndex(np.array(found, np.int64).reshape(-1, 2), vars(skipped))
    if not skipped.failed:
        with suppress(OSError):  # a folder that is not to be written to: the index is made again the next time
            file.parent.mkdir(exist_ok=True)
            with written_whole(file) as part:
                part.write_text(
                    json.dumps(about | {"places": index.places.flatten().tolist(), "skipped": index.skipped})
                )
    return index


def _read(file: Path, about: dict[str, int]) -> ShardIndex | None:
    """Read an index; None if there is none, or of another shard."""
    try:
        content = parse_json(file.read_text())
        if {name: content[name] for name in about} != about:
            return None
        places = np.array(content["places"], np.int64).reshape(-1, 2)
        skipped = Skipped()
        skipped.merge(content["skipped"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    inside = (0 <= places[:, 0]).all() and (places[:, 0] < places[:, 1]).all() and (places <= about["size"]).all()
    return ShardIndex(places, content["skipped"]) if inside else None
