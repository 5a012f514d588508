"""The token cache between the stages: photos with holes, encoded once by a frozen DF-VQGAN.

    tokens.json      sizes, counts, the mask recipe, captions of each photo
    images.npy       uint8 [N, 3, S, S], complete; N = photos x variants, a photo's variants in a row
    masks.npy        uint8 [N, S * S / 8], the holes as bits
    tokens.npy       int32 [N, h, w]: ζ^x where known, the targets ζ^y where defective
    whole.npy        int32 [N, h, w]: ζ^y everywhere, the targets if all of the photo is hidden
    dfvqgan/         the model folder it was made with

A variant is another crop and another hole of the same photo. The folder appears when it is whole.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nuwa_lip.data.augment import Augmentation, augment
from nuwa_lip.data.masks import MaskRecipe, random_masks
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.disk import clean, from_json, parse_json, read_text, regular, write_text, written_folder
from nuwa_lip.disk.fields import Bounds, check_bounds
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, MPS2SConfig
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.training.stage import generator_for

FORMAT_VERSION = 2
ARRAYS = ("images", "masks", "tokens", "whole")
BOUNDS: Bounds = {"resolution": (1, 2**16), "grid": (1, 2**10), "codebook_size": (1, 2**24), "variants": (1, 10**6)}


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
class About:
    """What tokens.json says of the arrays beside it."""

    resolution: int
    grid: tuple[int, int]
    codebook_size: int
    variants: int
    captions: list[list[str]]

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        if self.resolution % self.grid[0]:
            raise InputError(f"resolution {self.resolution} is not a multiple of grid {self.grid}")


@dataclass(frozen=True)
class TokenCache:
    """A cache, memory-mapped (`open`) or held in memory (`load`)."""

    folder: Path
    images: Tensor
    masks: Tensor
    tokens: Tensor
    whole: Tensor
    captions: list[list[str]]
    variants: int
    factor: int
    """Pixels on a token's side."""

    @classmethod
    def open(cls, folder: Path, model: MPS2SConfig) -> TokenCache:
        """Open a cache for a model.

        Args:
            folder: of the cache.
            model: whose sizes it must have.

        Raises:
            InputError: it is missing, damaged, of a newer version, or of other sizes than the model's.
        """
        about = _read_about(folder)
        found = (about.resolution, about.grid, about.codebook_size)
        wanted = (model.image_size, tuple(model.grid), model.codebook_size)
        if found != wanted:
            raise InputError(
                f"{folder} has pictures of {found[0]} pixels, {found[1][0]} x {found[1][1]} tokens and "
                f"{found[2]} codes; the recipe's model has {wanted[0]}, {wanted[1][0]} x {wanted[1][1]} and {wanted[2]}"
            )
        arrays = {name: _map(folder / f"{name}.npy") for name in ARRAYS}
        captions, variants = [[clean(text) for text in texts] for texts in about.captions], about.variants
        if any(len(array) != len(captions) * variants for array in arrays.values()):
            raise InputError(
                f"{folder} is a damaged token cache: its files do not hold {len(captions)} x {variants} rows"
            )
        _check_arrays(folder, arrays, about)
        return cls(folder, **arrays, captions=captions, variants=variants, factor=found[0] // found[1][0])

    @classmethod
    def join(cls, caches: Sequence[TokenCache]) -> TokenCache:
        """Join several caches into one, held in memory.

        Raises:
            InputError: they have not equally many variants of a photo.
        """
        first = caches[0]
        for cache in caches:
            if cache.variants != first.variants:
                raise InputError(
                    f"{cache.folder} has {cache.variants} variants of each photo, {first.folder} has {first.variants}: "
                    "make them with the same --variants"
                )
        arrays: dict[str, Any] = {name: torch.cat([getattr(cache, name) for cache in caches]) for name in ARRAYS}
        captions = [texts for cache in caches for texts in cache.captions]
        return dataclasses.replace(first, **arrays, captions=captions)

    def load(self, device: torch.device | str) -> TokenCache:
        """Copy the cache into the memory of a device."""
        held = {name: getattr(self, name).to(device, copy=True) for name in ARRAYS}
        return dataclasses.replace(self, **held)

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, step: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> TokenBatch:
        """Give the batch of one step, a pure function of (seed, step). Epochs are permutations.

        Args:
            step: step of the training, counted from 0.
            batch_size: samples of one step, over all processes together.
            seed: seed of the order and of the choice of captions.
            rank: index of this process.
            world_size: number of processes.

        Raises:
            InputError: the batch size is not a multiple of the number of processes.
        """
        if batch_size % world_size:
            raise InputError(f"batch size {batch_size} is not a multiple of the {world_size} processes")
        share = batch_size // world_size
        positions = range(step * batch_size + rank * share, step * batch_size + (rank + 1) * share)
        rows = [_row(len(self), seed, position) for position in positions]
        picks = np.random.default_rng([seed, step, 4]).random(batch_size)[rank * share : (rank + 1) * share]
        choices = [self.captions[row // self.variants] for row in rows]
        index = torch.tensor(rows, device=self.tokens.device)
        return TokenBatch(
            images=self.images[index].float().mul_(2 / 255).sub_(1),
            masks=unpack_masks(self.masks[index], self.images.shape[-1]),
            tokens=self.tokens[index].long(),
            whole=self.whole[index].long(),
            captions=[c[int(u * len(c))] if c else "" for c, u in zip(choices, picks, strict=True)],
        )

    def batches(
        self, batch_size: int, *, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[TokenBatch]:
        """Yield `batch(step, ...)` for ever.

        Args:
            batch_size: samples of one step, over all processes together.
            seed: seed of the order and of the choice of captions.
            start_step: first step to give, counted from 0.
            rank: index of this process.
            world_size: number of processes.
        """
        step = start_step
        while True:
            yield self.batch(step, batch_size, seed=seed, rank=rank, world_size=world_size)
            step += 1


@torch.inference_mode()
def write_cache(
    folder: Path,
    model: DFVQGAN,
    photos: PhotoSet,
    *,
    variants: int,
    masks: MaskRecipe,
    augmentation: Augmentation,
    seed: int,
    batch_size: int = 32,
    progress: Callable[[range], Any] = iter,
    replace: bool = True,
) -> None:
    """Make a token cache.

    Args:
        folder: folder of the cache.
        model: the frozen model, on the device to compute on.
        photos: photos a little larger than the model's resolution, so that crops keep their sharpness.
        variants: number of crops and holes of each photo.
        masks: how holes are drawn.
        augmentation: how crops are drawn.
        seed: of all of it; the same arguments give the same cache.
        batch_size: crops encoded at a time.
        progress: wraps the range of batches, to show it.
        replace: replace what is in the folder at the end.

    Raises:
        InputError: it cannot be written there, or there is something that is not to be replaced.
    """
    size, grid = model.config.resolution, model.config.grid
    count = len(photos) * variants
    with written_folder(folder, replace=replace) as part:
        with (
            _new(part / "images.npy", np.uint8, (count, 3, size, size)) as images,
            _new(part / "masks.npy", np.uint8, (count, -(-size * size // 8))) as bits,
            _new(part / "tokens.npy", np.int32, (count, grid, grid)) as tokens,
            _new(part / "whole.npy", np.int32, (count, grid, grid)) as whole,
        ):
            for start in progress(range(0, count, batch_size)):
                rows = range(start, min(start + batch_size, count))
                image, mask = _crops(photos, rows, variants, size, masks, augmentation, seed)
                images.write(_to_bytes(image).numpy().tobytes())
                bits.write(pack_masks(mask).tobytes())
                for file, found in zip((tokens, whole), encode_pair(model, image, mask), strict=True):
                    file.write(found.cpu().numpy().astype(np.int32).tobytes())
        about = {
            "format_version": FORMAT_VERSION,
            "resolution": size,
            "grid": [grid, grid],
            "codebook_size": model.config.codebook_size,
            "variants": variants,
            "seed": seed,
            "masks": dataclasses.asdict(masks),
            "augmentation": dataclasses.asdict(augmentation),
            "captions": photos.captions,
        }
        write_text(part / "tokens.json", json.dumps(about))
        save_model(part / "dfvqgan", dfvqgan=model)


def encode_pair(model: DFVQGAN, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Encode ζ^x of the photo with its hole where known and ζ^y of the complete photo where defective, and ζ^y.

    Args:
        model: the tokenizer.
        image: complete photos, float32 [B, 3, H, W] in [-1, 1].
        mask: holes, bool [B, 1, H, W].

    Returns:
        Both, int64 [B, h, w] on the model's device.
    """
    device = model.last_layer.device
    if mask.all():  # nothing is known: one pass will do
        whole = model.encode(image.to(device)).tokens
        return whole, whole
    pair = model.encode_pair(image.to(device), mask.to(device))
    return pair.tokens, pair.whole.tokens


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


def _crops(
    photos: PhotoSet,
    rows: range,
    variants: int,
    size: int,
    masks: MaskRecipe,
    augmentation: Augmentation,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Crops and holes of some rows of the cache, on the CPU."""
    index = torch.tensor([row // variants for row in rows])
    captions = [" ".join(photos.captions[i]) for i in index.tolist()]  # any that names a side forbids the flip
    generator = generator_for("cpu", 5, seed, rows.start)
    image = augment(photos.images[index], photos.aspects[index], size, augmentation, generator, captions)
    mask = random_masks(len(rows), size, size, masks, np.random.default_rng([6, seed, rows.start]))
    # what the model sees must be what the cache gives back
    return _to_bytes(image).float().mul_(2 / 255).sub_(1), mask


def _to_bytes(image: Tensor) -> Tensor:
    return ((image + 1) * 127.5).round().clamp(0, 255).byte()


def _new(path: Path, dtype: type, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file whose rows are to follow; written, not mapped: a mapped file kills the process on a full disk."""
    file = path.open("wb")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _check_arrays(folder: Path, arrays: dict[str, Tensor], about: About) -> None:
    """Refuse arrays of other shapes and types than tokens.json tells, and tokens that are no codes."""
    size = about.resolution
    rows = {"images": (3, size, size), "masks": (-(-size * size // 8),), "tokens": about.grid, "whole": about.grid}
    for name, array in arrays.items():
        dtype = torch.uint8 if name in ("images", "masks") else torch.int32
        if array.dtype != dtype or array.shape[1:] != rows[name]:
            found = f"{array.dtype} {[*array.shape[1:]]} a row, not {dtype} {[*rows[name]]}"
            raise InputError(f"{folder} is a damaged token cache: {name}.npy has {found}")
        if dtype == torch.int32 and len(array) and not 0 <= int(array.min()) <= int(array.max()) < about.codebook_size:
            raise InputError(f"{folder} is a damaged token cache: {name}.npy has tokens beyond its codes")


def _read_about(folder: Path) -> About:
    """tokens.json, with all of its fields there.

    Raises:
        InputError: it is missing, damaged, or of a newer version.
    """
    path = folder / "tokens.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a token cache (it has no tokens.json): make one with nuwa-lip tokenize")
    try:
        about = parse_json(read_text(path))
        version = int(about["format_version"])
        missing = [
            name for name in ("resolution", "grid", "codebook_size", "variants", "captions") if name not in about
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is a damaged token cache: {path.name}: {error}") from error
    if version > FORMAT_VERSION:
        raise InputError(f"{folder} is a token cache of version {version}: update nuwa-lip")
    if version < FORMAT_VERSION:
        raise InputError(f"{folder} is a token cache of version {version}: make it anew with nuwa-lip tokenize")
    if missing:
        raise InputError(f"{folder} is a damaged token cache: {path.name} has no {missing[0]}")
    known = {field.name: about[field.name] for field in dataclasses.fields(About)}
    return from_json(About, known, f"{folder} is a damaged token cache: {path.name}")


def _map(path: Path) -> Tensor:
    try:
        # copy-on-write, because torch wants writable memory
        return torch.from_numpy(np.load(regular(path), mmap_mode="c", allow_pickle=False))
    except (OSError, EOFError, ValueError, TypeError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else first_line(error)
        raise InputError(f"{path.parent} is a damaged token cache: {path.name}: {reason}") from error


def _row(count: int, seed: int, position: int) -> int:
    """Row at a place in the endless sequence of permuted epochs."""
    epoch, place = divmod(position, count)
    return int(_permutation(count, seed, epoch)[place])


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
