"""Captioned photos as batches for training: a decoded set in memory; `streamed` is for sets that do not fit.

Photos are held as squares, uint8 [3, S, S]. A photo that is not square is squeezed into one, and its true
aspect (width / height) is kept beside it, so that augmentation can crop from all of the photo without distortion.
Aspect 0 means unknown: the only copy was already squeezed.

Both sources give the same kind of batch, as a pure function of (seed, step): a resumed run goes on with the photos
that it would have seen, and a global batch does not depend on the number of processes that share it.

Shapes: N photos of the set, B batch of this process, S side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from typing_extensions import override

from nuwa_lip.data.order import Order
from nuwa_lip.data.shards import EncodedSample, decode_picture, expand_sources, nothing_read, read_encoded
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.errors import InputError

SQUEEZED_SOURCES = ("flickr8k",)
"""Values of `source` in a sample's JSON that mean: a square picture is a photo squeezed from an unknown shape."""
WIDEST = 2.0
"""Longest side over shortest; a longer photo is cropped to it at both ends."""

Urls = str | Path | Sequence[str | Path]
Batch = TypeVar("Batch")


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


class Batches(ABC, Generic[Batch]):
    """Batches that are a pure function of (seed, step); epochs are permutations."""

    @abstractmethod
    def batch(self, step: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Give the batch of one step, which may reach into the next epoch.

        Args:
            step: step of the training, counted from 0.
            batch_size: samples of one step, over all processes together; a multiple of `world_size`.
            seed: seed of the order and of the choice of captions.
            rank: index of this process.
            world_size: number of processes.

        Raises:
            InputError: the batch size is not a multiple of the number of processes, or a sample is damaged.
        """

    def batches(
        self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Yield `batch(step, ...)` for ever, from `start_step` on.

        Args:
            batch_size, seed, rank, world_size: as for `batch`.
            start_step: first step to give, counted from 0.
        """
        for step in count(start_step):
            yield self.batch(step, batch_size, seed=seed, rank=rank, world_size=world_size)


@dataclass(frozen=True, kw_only=True)
class PhotoSet(Batches[PhotoBatch]):
    """A whole set decoded in memory."""

    images: torch.Tensor  # [N, 3, S, S] uint8
    captions: list[list[str]]  # N lists, each maybe empty
    aspects: torch.Tensor  # [N] float32, true width / height; 0 = unknown
    keys: list[str]
    order: Order | None = None
    """Order of the photos; None: all of them equally often."""

    @classmethod
    def load(cls, urls: Urls, size: int, *, workers: int = 2, weights: Sequence[float] = ()) -> PhotoSet:
        """Decode shards into memory. Damaged photos are skipped with one warning.

        Args:
            urls: see `nuwa_lip.data.shards.expand_shards`.
            size: side S of the squares, in pixels.
            workers: number of threads.
            weights: how often the photos of each of `urls` come; empty: all photos equally often.

        Raises:
            InputError: a path is missing, or no photo of a source could be read.
        """
        sources, skipped = expand_sources(urls, weights), Skipped()
        photos, counts = cls.read(sources, size, skipped, workers=workers)
        for shards, found in zip(sources, counts, strict=True):
            if not found:
                raise nothing_read(shards, skipped)
        skipped.warn(len(photos))
        return replace(photos, order=Order(tuple(counts), tuple(weights))) if weights else photos

    @classmethod
    def read(
        cls, sources: Sequence[Sequence[str]], size: int, skipped: Skipped, *, workers: int = 2
    ) -> tuple[PhotoSet, list[int]]:
        """Decode the shards of one or several sources into memory, perhaps without any photo.

        Args:
            sources: local files or addresses.
            size: side S of the squares, in pixels.
            skipped: collects what could not be read.
            workers: number of threads.

        Returns:
            The set, and the number of photos of each source.
        """
        encoded: list[EncodedSample] = []
        ends = []
        for shards in sources:
            encoded += read_encoded(shards, skipped)  # small beside the decoded set, whose size it gives
            ends.append(len(encoded))
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
        photos = cls(
            images=images,
            captions=[encoded[row].captions for row in good],
            aspects=aspects,
            keys=[encoded[row].key for row in good],
        )
        return photos, np.diff([0, *(bisect_left(good, end) for end in ends)]).tolist()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def size(self) -> int:
        """Side S of the squares, in pixels."""
        return self.images.shape[-1]

    def to(self, device: torch.device | str) -> PhotoSet:
        """Copy the set with its pixels to a device, where batches are then cut."""
        return replace(self, images=self.images.to(device), aspects=self.aspects.to(device))

    @override
    def batch(self, step: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> PhotoBatch:
        part = part_of(batch_size, rank, world_size)
        first = step * batch_size
        positions = range(first + part.start, first + part.stop)
        rows = (self.order or Order((len(self),))).rows(seed, positions)
        picks = caption_picks(seed, step, batch_size)[part]
        index = torch.tensor(rows, device=self.images.device)
        return PhotoBatch(
            images=self.images[index],
            captions=[pick(self.captions[row], u) for row, u in zip(rows, picks, strict=True)],
            aspects=self.aspects[index],
            keys=[self.keys[row] for row in rows],
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


def part_of(batch_size: int, rank: int, world_size: int) -> slice:
    """Find a process's part of a batch.

    Args:
        batch_size: photos of one step, over all processes together.
        rank: index of this process.
        world_size: number of processes.

    Raises:
        InputError: the batch size is not a positive multiple of the number of processes.
    """
    if batch_size < 1 or batch_size % world_size:
        raise InputError(f"batch size {batch_size} is not a positive multiple of the {world_size} processes")
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def caption_picks(seed: int, step: int, batch_size: int) -> np.ndarray:
    """Draw the numbers in [0, 1) that choose each photo's caption, on every process for the whole batch.

    Args:
        seed: seed of the order.
        step: step of the training, counted from 0.
        batch_size: photos of one step, over all processes together.
    """
    return np.random.default_rng([seed, step, 1]).random(batch_size)


def pick(captions: list[str], u: float) -> str:
    """Choose a caption by a number in [0, 1); "" if there is none."""
    return captions[int(u * len(captions))] if captions else ""
