"""Captioned photos as batches for training: a decoded set in memory, or a stream for sets that do not fit.

Photos are held as squares, uint8 [3, S, S]. A photo that is not square is squeezed into one, and its true
aspect (width / height) is kept beside it, so that augmentation can crop from all of the photo without distortion.
Aspect 0 means unknown: the only copy was already squeezed.

Both sources give the same kind of batch, as a pure function of (seed, step): a resumed run goes on with the photos
that it would have seen, and a global batch does not depend on the number of processes that share it.

Shapes: N photos of the set, B batch of this process, S side.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nuwa_lip.data.shards import EncodedSample, decode_picture, expand_shards, nothing_read, read_encoded
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.errors import InputError

SQUEEZED_SOURCES = ("flickr8k",)
"""Values of `source` in a sample's JSON that mean: a square picture is a photo squeezed from an unknown shape."""
WIDEST = 2.0
"""Longest side over shortest; a longer photo is cropped to it at both ends."""

Urls = str | Path | Sequence[str | Path]


class PhotoBatch(NamedTuple):
    """One process's part of a batch."""

    images: torch.Tensor  # [B, 3, S, S] uint8
    captions: list[str]  # one of each photo's captions; "" for a photo without any
    aspects: torch.Tensor  # [B] float32, true width / height; 0 = unknown
    keys: list[str]


class Photos(Protocol):
    """The interface between training and a source of photos."""

    @property
    def size(self) -> int:
        """Side S of the squares, in pixels."""
        ...

    def batches(
        self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[PhotoBatch]:
        """Yield batches for ever, from `start_step` on.

        Args:
            batch_size: photos of one step, over all processes together; a multiple of `world_size`.
            seed: seed of the order and of the choice of captions.
            start_step: first step to give, counted from 0.
            rank: index of this process.
            world_size: number of processes.
        """
        ...


def open_photos(
    urls: Urls,
    size: int,
    *,
    cache: Literal["ram", "device", "none"] = "ram",
    device: torch.device | str = "cpu",
    workers: int = 2,
) -> Photos:
    """Open shards for training.

    Args:
        urls: see `nuwa_lip.data.shards.expand_shards`.
        size: side S of the squares, in pixels.
        cache: hold all photos decoded in memory ("ram"), on the GPU ("device"), or read them when they are
            needed ("none").
        device: the device that computes with the batches.
        workers: threads that fill the cache, or processes that read and decode.

    Raises:
        InputError: a path is missing or no photo could be read.
    """
    if cache == "none":
        return StreamedPhotos(urls, size, workers=workers, pin=torch.device(device).type == "cuda")
    photos = PhotoSet.load(urls, size, workers=workers)
    return photos.to(device) if cache == "device" else photos


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """A whole set decoded in memory."""

    images: torch.Tensor  # [N, 3, S, S] uint8
    captions: list[list[str]]  # N lists, each maybe empty
    aspects: torch.Tensor  # [N] float32, true width / height; 0 = unknown
    keys: list[str]

    @classmethod
    def load(cls, urls: Urls, size: int, *, workers: int = 2) -> PhotoSet:
        """Decode shards into memory. Damaged photos are skipped with one warning.

        Args:
            urls: see `nuwa_lip.data.shards.expand_shards`.
            size: side S of the squares, in pixels.
            workers: number of threads.

        Raises:
            InputError: a path is missing or no photo could be read.
        """
        shards, skipped = expand_shards(urls), Skipped()
        photos = cls.read(shards, size, skipped, workers=workers)
        if not len(photos):
            raise nothing_read(shards, skipped)
        skipped.warn(len(photos))
        return photos

    @classmethod
    def read(cls, shards: Sequence[str], size: int, skipped: Skipped, *, workers: int = 2) -> PhotoSet:
        """Decode shards into memory, perhaps without any photo.

        Args:
            shards: local files or addresses.
            size: side S of the squares, in pixels.
            skipped: collects what could not be read.
            workers: number of threads.
        """
        encoded = list(read_encoded(shards, skipped))  # small beside the decoded set, whose size it gives
        images = torch.empty(len(encoded), 3, size, size, dtype=torch.uint8)
        aspects = torch.zeros(len(encoded))

        def fill(row: int) -> bool:
            try:
                picture, aspects[row] = to_square(encoded[row], size)
            except ValueError as error:
                skipped.add(encoded[row].key, error)
                return False
            images[row] = picture
            return True

        with ThreadPoolExecutor(workers) as pool:
            good = [row for row, ok in enumerate(pool.map(fill, range(len(encoded)))) if ok]
        if len(good) < len(encoded):
            images, aspects = images[good], aspects[good]
        return cls(
            images=images,
            captions=[encoded[row].captions for row in good],
            aspects=aspects,
            keys=[encoded[row].key for row in good],
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size(self) -> int:
        """Side S of the squares, in pixels."""
        return self.images.shape[-1]

    def to(self, device: torch.device | str) -> PhotoSet:
        """Copy the set with its pixels to a device, where batches are then cut."""
        return replace(self, images=self.images.to(device), aspects=self.aspects.to(device))

    def batch(self, step: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> PhotoBatch:
        """Give the batch of one step. Epochs are permutations, and a batch may reach into the next epoch.

        Args:
            step: step of the training, counted from 0.
            batch_size: photos of one step, over all processes together; a multiple of `world_size`.
            seed: seed of the order and of the choice of captions.
            rank: index of this process.
            world_size: number of processes.

        Raises:
            InputError: the batch size is not a multiple of the number of processes.
        """
        part = _part(batch_size, rank, world_size)
        first = step * batch_size
        positions = range(first + part.start, first + part.stop)
        rows = [int(_permutation(len(self), seed, p // len(self))[p % len(self)]) for p in positions]
        picks = _caption_picks(seed, step, batch_size)[part]
        index = torch.tensor(rows, device=self.images.device)
        return PhotoBatch(
            images=self.images[index],
            captions=[_pick(self.captions[row], u) for row, u in zip(rows, picks, strict=True)],
            aspects=self.aspects[index],
            keys=[self.keys[row] for row in rows],
        )

    def batches(
        self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[PhotoBatch]:
        """Yield `batch(step, ...)` for step = start_step, start_step + 1, ... for ever.

        Args:
            batch_size: photos of one step, over all processes together; a multiple of `world_size`.
            seed: seed of the order and of the choice of captions.
            start_step: first step to give, counted from 0.
            rank: index of this process.
            world_size: number of processes.
        """
        step = start_step
        while True:
            yield self.batch(step, batch_size, seed=seed, rank=rank, world_size=world_size)
            step += 1


class StreamedPhotos:
    """Photos that worker processes read from the shards and decode when they are needed.

    Every epoch shuffles the shards and then the samples within a buffer. Each worker reads all shards and decodes
    only its own batches, which keeps the order independent of the numbers of workers and processes.

    Args:
        urls: see `nuwa_lip.data.shards.expand_shards`.
        size: side S of the squares, in pixels.
        workers: processes that read and decode; 0 reads in this process.
        buffer: number of samples, still compressed, that are shuffled at a time.
        pin: put batches into page-locked memory, from which a GPU can copy while it computes.
    """

    def __init__(self, urls: Urls, size: int, *, workers: int = 2, buffer: int = 2000, pin: bool = False) -> None:
        self.shards, self.size, self.workers, self.buffer = expand_shards(urls), size, workers, buffer
        self.pin = pin

    def batches(
        self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[PhotoBatch]:
        """Yield batches for ever. Skipping the batches before `start_step` costs at most two epochs of reading.

        Args:
            batch_size: photos of one step, over all processes together; a multiple of `world_size`.
            seed: seed of the order and of the choice of captions.
            start_step: first step to give, counted from 0.
            rank: index of this process.
            world_size: number of processes.

        Raises:
            InputError: no photo could be read, or the batch size is not a multiple of the number of processes.
        """
        part = _part(batch_size, rank, world_size)
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
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        samples = self._samples(self.start_step * self.batch_size)
        step = self.start_step
        while batch := list(islice(samples, self.batch_size)):
            if (step - self.start_step) % count == index:
                yield self._decode(batch, _caption_picks(self.seed, step, self.batch_size))
            step += 1

    def _samples(self, skip: int) -> Iterator[EncodedSample]:
        """Yield the endless shuffled sequence without its first `skip` samples."""
        skipped, epoch = Skipped(), 0
        while True:
            length = 0
            for sample in self._epoch(epoch, skipped):
                length += 1
                if skip:
                    skip -= 1
                else:
                    yield sample
            if not length:
                raise nothing_read(self.photos.shards, skipped)
            if epoch == 0:
                skipped.warn(length)
            epoch += 1 + skip // length  # the length is known now: skip whole epochs
            skip %= length

    def _epoch(self, epoch: int, skipped: Skipped) -> Iterator[EncodedSample]:
        rng = np.random.default_rng([self.seed, epoch])
        shards = [self.photos.shards[i] for i in rng.permutation(len(self.photos.shards))]
        held: list[EncodedSample] = []
        for sample in read_encoded(shards, skipped):
            if len(held) < self.photos.buffer:
                held.append(sample)
            else:
                row = int(rng.integers(len(held)))
                yield held[row]
                held[row] = sample
        yield from (held[row] for row in rng.permutation(len(held)))

    def _decode(self, batch: list[EncodedSample], picks: np.ndarray) -> PhotoBatch:
        """Decode this process's part of a batch, in whose whole another takes the place of a photo that is damaged."""
        chosen, images, aspects = [], [], []
        for row in range(len(batch))[self.part]:
            for sample in batch[row:] + batch[:row]:
                try:
                    image, aspect = to_square(sample, self.photos.size)
                    break
                except ValueError as error:
                    warnings.warn(f"skipped {sample.key}: {error}", UserWarning, stacklevel=2)
            else:
                raise InputError(f"none of {len(batch)} photos could be read, {batch[0].key} for one")
            chosen.append(sample)
            images.append(image)
            aspects.append(aspect)
        return PhotoBatch(
            images=torch.stack(images),
            captions=[_pick(sample.captions, u) for sample, u in zip(chosen, picks[self.part], strict=True)],
            aspects=torch.tensor(aspects),
            keys=[sample.key for sample in chosen],
        )


def to_square(sample: EncodedSample, size: int) -> tuple[torch.Tensor, float]:
    """Decode a sample's picture into a square.

    Returns:
        uint8 [3, size, size] and the true aspect (width / height) of what it shows, 0 where unknown.

    Raises:
        ValueError: the picture is damaged.
    """
    image = decode_picture(sample.picture, least_side=size)
    width, height = image.size
    aspect = width / height
    if not 1 / WIDEST <= aspect <= WIDEST:
        side = round(WIDEST * min(width, height))
        left, top = max(width - side, 0) // 2, max(height - side, 0) // 2
        image = image.crop((left, top, min(left + side, width), min(top + side, height)))
        aspect = image.width / image.height
    if width == height and _squeezed(sample.meta):
        aspect = 0.0
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), aspect


def _squeezed(meta: dict[str, Any]) -> bool:
    return bool(meta.get("squeezed", meta.get("source") in SQUEEZED_SOURCES))


def _part(batch_size: int, rank: int, world_size: int) -> slice:
    if batch_size < 1 or batch_size % world_size:
        raise InputError(f"batch size {batch_size} is not a positive multiple of the {world_size} processes")
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


@functools.lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _caption_picks(seed: int, step: int, batch_size: int) -> np.ndarray:
    """Draw the numbers in [0, 1) that choose each photo's caption, on every process for the whole batch."""
    return np.random.default_rng([seed, step, 1]).random(batch_size)


def _pick(captions: list[str], u: float) -> str:
    return captions[int(u * len(captions))] if captions else ""
