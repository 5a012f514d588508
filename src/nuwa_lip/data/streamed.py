"""Photos for training that are read when they are needed, for sets that do not fit into memory.

Local shards are read sample by sample (`index`). Shards that lie elsewhere are fetched one after another, and their
samples are shuffled within a buffer.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nuwa_lip.data.index import WINDOW, IndexedShards
from nuwa_lip.data.order import Mixture
from nuwa_lip.data.photos import PhotoBatch, Photos, PhotoSet, Urls, caption_picks, part_of, pick, to_square
from nuwa_lip.data.shards import EncodedSample, expand_sources, nothing_read, read_encoded
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.errors import InputError


def open_photos(
    urls: Urls,
    size: int,
    *,
    cache: Literal["ram", "device", "none"] = "ram",
    device: torch.device | str = "cpu",
    workers: int = 2,
    weights: Sequence[float] = (),
) -> Photos:
    """Open shards for training.

    Args:
        urls: see `nuwa_lip.data.shards.expand_shards`.
        size: side S of the squares, in pixels.
        cache: hold all photos decoded in memory ("ram"), on the GPU ("device"), or read them when they are
            needed ("none").
        device: the device that computes with the batches.
        workers: threads that fill the cache, or processes that read and decode.
        weights: how often the photos of each of `urls` come; empty: all photos equally often.

    Raises:
        InputError: a path is missing or no photo could be read.
    """
    if cache == "none":
        return StreamedPhotos(urls, size, workers=workers, pin=torch.device(device).type == "cuda", weights=weights)
    photos = PhotoSet.load(urls, size, workers=workers, weights=weights)
    return photos.to(device) if cache == "device" else photos


class StreamedPhotos:
    """Photos that worker processes read from the shards and decode when they are needed.

    Every epoch shuffles the shards and then the samples of a few of them. Each worker decodes only its own batches, and
    of local shards reads only these, which keeps the order independent of the numbers of workers and processes.

    Args:
        urls: see `nuwa_lip.data.shards.expand_shards`.
        size: side S of the squares, in pixels.
        workers: processes that read and decode; 0 reads in this process.
        window: number of local shards whose samples are shuffled at a time.
        buffer: number of samples of other shards, still compressed, that are shuffled at a time.
        pin: put batches into page-locked memory, from which a GPU can copy while it computes.
        weights: how often the photos of each of `urls` come; empty: all photos equally often.
    """

    def __init__(
        self,
        urls: Urls,
        size: int,
        *,
        workers: int = 2,
        window: int = WINDOW,
        buffer: int = 2000,
        pin: bool = False,
        weights: Sequence[float] = (),
    ) -> None:
        self.sources, self.size, self.workers = expand_sources(urls, weights), size, workers
        self.window, self.buffer, self.pin = window, buffer, pin
        self.mixture = Mixture(tuple(weights)) if weights else None

    @property
    def shards(self) -> list[str]:
        """All shards."""
        return [shard for source in self.sources for shard in source]

    def batches(
        self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[PhotoBatch]:
        """Yield batches for ever.

        Skipping the batches before `start_step` costs nothing with local shards that were read before, and at most two
        epochs of reading with others.

        Args:
            batch_size: photos of one step, over all processes together; a multiple of `world_size`.
            seed: seed of the order and of the choice of captions.
            start_step: first step to give, counted from 0.
            rank: index of this process.
            world_size: number of processes.

        Raises:
            InputError: no photo could be read, or the batch size is not a multiple of the number of processes.
        """
        part = part_of(batch_size, rank, world_size)
        stream = _Stream(self, batch_size, seed, start_step, part)
        # a loader without a generator of its own draws from everybody's when it starts, and so when a run is resumed
        own = torch.Generator()
        yield from DataLoader(stream, batch_size=None, num_workers=self.workers, pin_memory=self.pin, generator=own)


class _Stream(IterableDataset[PhotoBatch]):
    """The batches of one process; worker w of W makes every W-th batch."""

    def __init__(self, photos: StreamedPhotos, batch_size: int, seed: int, start_step: int, part: slice):
        self.photos, self.batch_size, self.seed = photos, batch_size, seed
        self.start_step, self.part = start_step, part

    def __iter__(self) -> Iterator[PhotoBatch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first, mixture = self.start_step * self.batch_size, self.photos.mixture
        taken = mixture.taken(self.seed, first) if mixture else [first]
        local: dict[int, IndexedShards] = {}
        streams: dict[int, Iterator[EncodedSample]] = {}
        for source, shards in enumerate(self.photos.sources):
            if all(Path(shard).is_file() for shard in shards):
                local[source] = IndexedShards(shards, self.photos.window, source)
            else:
                streams[source] = self._samples(source, taken[source])
        for step in count(self.start_step):
            mine = (step - self.start_step) % workers == index
            if not mine and not streams:
                continue
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)
            batch: list[Callable[[], EncodedSample]] = []
            places = mixture.sources(self.seed, positions) if mixture else [(0, place) for place in positions]
            for source, place in places:
                if source in local:
                    batch.append(partial(local[source].read, self.seed, place))
                else:  # every worker takes every sample, in their order
                    batch.append(partial(_itself, next(streams[source])))
            if mine:
                yield self._decode(batch, caption_picks(self.seed, step, self.batch_size))

    def _samples(self, source: int, skip: int) -> Iterator[EncodedSample]:
        """Yield the endless shuffled sequence of a source without its first `skip` samples."""
        skipped, epoch = Skipped(), 0
        while True:
            length = 0
            for sample in self._epoch(source, epoch, skipped):
                length += 1
                if skip:
                    skip -= 1
                else:
                    yield sample
            if not length:
                raise nothing_read(self.photos.sources[source], skipped)
            if epoch == 0:
                skipped.warn(length)
            epoch += 1 + skip // length  # the length is known now: skip whole epochs
            skip %= length

    def _epoch(self, source: int, epoch: int, skipped: Skipped) -> Iterator[EncodedSample]:
        rng = np.random.default_rng([self.seed, epoch, source])
        shards = self.photos.sources[source]
        held: list[EncodedSample] = []
        for sample in read_encoded([shards[i] for i in rng.permutation(len(shards))], skipped):
            if len(held) < self.photos.buffer:
                held.append(sample)
            else:
                row = int(rng.integers(len(held)))
                yield held[row]
                held[row] = sample
        yield from (held[row] for row in rng.permutation(len(held)))

    def _decode(self, batch: Sequence[Callable[[], EncodedSample]], picks: np.ndarray) -> PhotoBatch:
        """Decode this process's part of a batch, in whose whole another takes the place of a photo that is damaged."""
        chosen, images, aspects = [], [], []
        for row in range(len(batch))[self.part]:
            name = "a sample"
            for read in [*batch[row:], *batch[:row]]:
                try:
                    sample = read()
                    name = sample.key
                    image, aspect = to_square(sample, self.photos.size)
                    break
                except ValueError as error:
                    if isinstance(error, InputError):
                        raise
                    warnings.warn(f"skipped {name}: {error}", UserWarning, stacklevel=2)
            else:
                raise InputError(f"none of {len(batch)} photos could be read, {name} for one")
            chosen.append(sample)
            images.append(image)
            aspects.append(aspect)
        return PhotoBatch(
            images=torch.stack(images),
            captions=[pick(sample.captions, u) for sample, u in zip(chosen, picks[self.part], strict=True)],
            aspects=torch.tensor(aspects),
            keys=[sample.key for sample in chosen],
        )


def _itself(sample: EncodedSample) -> EncodedSample:
    return sample
