"""The order of training samples: a pure function of (seed, position), so that nothing of it needs to be saved.

A position counts samples of the whole training, over all steps and processes. So a run can be resumed, shared by
another number of processes and cut into other parts, and sees the same samples.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from nuwa_lip.errors import InputError

BLOCK = 4096
"""Positions after which every source has exactly its share, up to one sample."""
LEAST_SHARE = 0.001
"""Smallest share of a source: a block must have a few of its samples."""


@dataclass(frozen=True)
class Mixture:
    """Sources mixed by weight: which one gives the sample at a position, and how many it has given before.

    Each block of positions has the sources' shares exactly (up to one sample, which is made up for in later blocks), in
    random order.

    Raises:
        InputError: a weight is not positive, or too small beside the others.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        for weight in self.weights:
            if not 0 < weight < float("inf"):
                raise InputError(f"a weight is {weight:g}; it must be above 0")
        for weight in self.weights:
            if weight < LEAST_SHARE * sum(self.weights):
                raise InputError(f"weight {weight:g} of {sum(self.weights):g} is too small: {LEAST_SHARE:.1%} at least")

    def taken(self, seed: int, position: int) -> list[int]:
        """Count the samples of each source before a position."""
        block, within = divmod(position, BLOCK)
        drawn = np.bincount(self._block(seed, block)[:within], minlength=len(self.weights))
        return [int(before + more) for before, more in zip(self._before(block), drawn, strict=True)]

    def sources(self, seed: int, positions: Sequence[int]) -> list[tuple[int, int]]:
        """Give each position's source, and the number of samples that this source has given before it.

        Args:
            seed: seed of the order.
            positions: increasing by one.
        """
        taken, found = self.taken(seed, positions[0]), []
        for position in positions:
            block, within = divmod(position, BLOCK)
            source = int(self._block(seed, block)[within])
            found.append((source, taken[source]))
            taken[source] += 1
        return found

    def _before(self, block: int) -> np.ndarray:
        """Samples of each source before a block, int64 [sources]; together they are block * BLOCK."""
        edges = np.array([0, *accumulate(self.weights)]) / sum(self.weights)
        return np.diff(np.floor(edges * block * BLOCK + 1e-6).astype(np.int64))

    def _block(self, seed: int, block: int) -> np.ndarray:
        return _shuffled_block(self, seed, block)


def check_weights(urls: Sequence[object], weights: Sequence[float]) -> None:
    """Check that there is a weight for each source.

    Raises:
        InputError: there are more or fewer, or one is too small.
    """
    if len(urls) != len(weights):
        mend = "give one for each, and quote patterns, so that each is one"
        raise InputError(f"--weights has {len(weights)} numbers for {len(urls)} of --data: {mend}")
    Mixture(tuple(weights))


@functools.lru_cache(maxsize=4)
def _shuffled_block(mixture: Mixture, seed: int, block: int) -> np.ndarray:
    """The source of each position of a block, int64 [BLOCK]."""
    counts = mixture._before(block + 1) - mixture._before(block)
    return np.random.default_rng([seed, block, 7]).permutation(np.repeat(np.arange(len(counts)), counts))


@dataclass(frozen=True)
class Order:
    """The endless order of samples that can be read in any order: epochs are permutations.

    Args:
        sizes: number of samples of each source; their rows follow one another.
        weights: the sources' shares of the positions; each source then has epochs of its own. Without weights all
            samples come equally often.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def rows(self, seed: int, positions: Sequence[int]) -> list[int]:
        """Give the rows at some positions, which increase by one."""
        if not self.weights:
            count = sum(self.sizes)
            return [_row(count, seed, position) for position in positions]
        starts = [0, *accumulate(self.sizes)]
        found = Mixture(self.weights).sources(seed, positions)
        return [starts[source] + _row(self.sizes[source], seed, place, source) for source, place in found]


def _row(count: int, seed: int, position: int, source: int = 0) -> int:
    """Row at a place in the endless sequence of permuted epochs of one source."""
    epoch, place = divmod(position, count)
    return int(permutation(count, seed, epoch, source)[place])


@functools.lru_cache(maxsize=8)
def permutation(count: int, *seeds: int) -> np.ndarray:
    """Permute the numbers below `count`, a function of the seeds; 4 bytes a number."""
    dtype = np.int32 if count < 2**31 else np.int64
    return np.random.default_rng(seeds).permutation(np.arange(count, dtype=dtype))
