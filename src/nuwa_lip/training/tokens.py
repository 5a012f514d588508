"""The token cache between the stages: photos with holes, encoded once by a frozen DF-VQGAN.

`token_parts` says how it lies on disk, `tokenizing` makes it.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from nuwa_lip.data.order import Order, check_weights
from nuwa_lip.data.photos import Batches, part_of
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2SConfig
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.training.token_parts import ARRAYS, Part, open_parts, read_about, tokenizer_of


class TokenBatch(NamedTuple):
    """One process's part of a batch."""

    images: Tensor
    """y, float32 [B, 3, S, S] in [-1, 1]"""
    masks: Tensor
    """m, bool [B, 1, S, S]"""
    tokens: Tensor
    """int64 [B, h, w]: ζ^x where known, ζ^y where defective."""
    whole: Tensor
    """int64 [B, h, w]: ζ^y everywhere."""
    captions: list[str]
    """One of each photo's captions; "" for a photo without any."""


@dataclass(frozen=True, kw_only=True)
class TokenCache(Batches[TokenBatch]):
    """A cache, read from disk row by row (`open`) or held in memory (`load`), or several of them (`join`)."""

    folder: Path
    parts: tuple[Part, ...]
    variants: int
    factor: int
    """Pixels on a token's side."""
    codebook_size: int
    tokenizer: str = ""
    """Hash of the image tokenizer (`token_parts.hash_of`)."""
    checked: bool = False
    """Whether all tokens are known to be codes; else those of each batch are looked at."""
    order: Order | None = None
    """Order of the rows; None: all of them equally often."""

    @classmethod
    def open(cls, folder: Path, model: MPS2SConfig) -> TokenCache:
        """Open a cache for a model.

        Args:
            folder: of the cache.
            model: whose sizes it must have.

        Raises:
            InputError: it is missing, damaged, of a newer version, of other sizes than the model's, or of another
                image tokenizer than the one that lies in it.
        """
        about, content = read_about(folder)
        found = (about.resolution, about.grid, about.codebook_size)
        wanted = (model.image_size, tuple(model.grid), model.codebook_size)
        if found != wanted:
            raise InputError(
                f"{folder} has pictures of {found[0]} pixels, {found[1][0]} x {found[1][1]} tokens and "
                f"{found[2]} codes; the recipe's model has {wanted[0]}, {wanted[1][0]} x {wanted[1][1]} and {wanted[2]}"
            )
        parts, tokenizer = open_parts(folder, about, content), tokenizer_of(folder)
        if tokenizer != content.get("tokenizer", tokenizer):
            raise InputError(
                f"{folder} was made by another image tokenizer than lies in {folder / 'dfvqgan'}: "
                "make it anew with nuwa-lip tokenize"
            )
        return cls(
            folder=folder,
            parts=parts,
            variants=about.variants,
            factor=about.resolution // about.grid[0],
            codebook_size=about.codebook_size,
            tokenizer=tokenizer,
        )

    @classmethod
    def join(cls, caches: Sequence[TokenCache], weights: Sequence[float] = ()) -> TokenCache:
        """Join several caches into one.

        Args:
            caches: of one image tokenizer, with equally many variants of a photo.
            weights: how often each one's rows come; empty: all rows equally often.

        Raises:
            InputError: they have not equally many variants of a photo, other image tokenizers, or not a weight each.
        """
        first = caches[0]
        if weights:
            check_weights(caches, weights)
        for cache in caches:
            if cache.variants != first.variants:
                raise InputError(
                    f"{cache.folder} has {cache.variants} variants of each photo, {first.folder} has {first.variants}: "
                    "make them with the same --variants"
                )
            if cache.tokenizer != first.tokenizer:
                raise InputError(
                    f"{cache.folder} was made by another image tokenizer than {first.folder}: "
                    "make them with the same --model"
                )
        parts = tuple(part for cache in caches for part in cache.parts)
        order = Order(tuple(map(len, caches)), tuple(weights)) if weights else None
        return dataclasses.replace(first, parts=parts, order=order)

    def load(self, device: torch.device | str) -> TokenCache:
        """Copy the cache into the memory of a device.

        Raises:
            InputError: it holds tokens that are no codes.
        """
        held = {name: self.array(name).to(device) for name in ARRAYS}
        for name in ("tokens", "whole"):
            self._check(name, held[name])
        captions = [texts for part in self.parts for texts in part.captions]
        return dataclasses.replace(self, parts=(Part(**held, captions=captions),), checked=True)

    def array(self, name: str) -> Tensor:
        """Copy one array of all parts."""
        return torch.cat([part.array(name) for part in self.parts])

    def captions(self, most: int | None = None) -> Iterator[list[str]]:
        """Iterate over the captions of each photo, or of at most so many photos, evenly spread."""
        photos = len(self) // self.variants
        every = 1 if most is None else max(1, -(-photos // most))
        return chain.from_iterable(part.captions[::every] for part in self.parts)

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(map(len, self.parts))]

    @override
    def batch(self, step: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> TokenBatch:
        part = part_of(batch_size, rank, world_size)
        positions = range(step * batch_size + part.start, step * batch_size + part.stop)
        rows = (self.order or Order((len(self),))).rows(seed, positions)
        places = [(number, row - self._starts[number]) for number, row in zip(map(self._part, rows), rows, strict=True)]
        picks = np.random.default_rng([seed, step, 4]).random(batch_size)[part]
        choices = [self.parts[number].captions[row // self.variants] for number, row in places]
        images = self._gather("images", places)
        return TokenBatch(
            images=images.float().mul_(2 / 255).sub_(1),
            masks=unpack_masks(self._gather("masks", places), images.shape[-1]),
            tokens=self._gather("tokens", places).long(),
            whole=self._gather("whole", places).long(),
            captions=[c[int(u * len(c))] if c else "" for c, u in zip(choices, picks, strict=True)],
        )

    def _part(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _gather(self, name: str, places: Sequence[tuple[int, int]]) -> Tensor:
        """Rows of an array, by part and row within."""
        if len(self.parts) == 1:
            found = self.parts[0].rows(name, [row for _, row in places])
        else:
            found = torch.cat([self.parts[number].rows(name, [row]) for number, row in places])
        if not self.checked and name in ("tokens", "whole"):
            self._check(name, found)
        return found

    def _check(self, name: str, found: Tensor) -> None:
        if len(found) and not 0 <= int(found.min()) <= int(found.max()) < self.codebook_size:
            raise InputError(f"{self.folder} is a damaged token cache: {name}.npy has tokens beyond its codes")


def token_mask(masks: Tensor, factor: int) -> Tensor:
    """Reduce masks, bool [B, 1, S, S], to m': a token is defective if any pixel under it is (Eq. 8)."""
    return pool_mask(masks, factor)


def pack_masks(masks: Tensor) -> np.ndarray:
    """Pack masks, bool [B, 1, S, S], into bits, uint8 [B, S * S / 8], rounded up."""
    return np.packbits(masks.flatten(1).cpu().numpy(), axis=1)


def unpack_masks(bits: Tensor, size: int) -> Tensor:
    """Unpack bits, uint8 [B, S * S / 8], into masks, bool [B, 1, S, S]."""
    weights = 2 ** torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    flat = (bits[:, :, None] & weights).bool().flatten(1)
    return flat[:, : size * size].reshape(len(bits), 1, size, size)
