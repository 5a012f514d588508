"""Making a token cache: by any number of processes that need not know of one another, in as many tries as it takes.

Each shard of the data becomes a part of the cache: a function of that shard, its number and the recipe. Process r of R
makes the parts r, r + R, ... in `NAME.unfinished-HASH`, where each part appears when it is whole. The process that
finds all parts there renames the folder to NAME. So a killed run goes on with the part that it was at, and the cache is
the same to the bit, whoever made it.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from nuwa_lip.data.augment import Augmentation, augment
from nuwa_lip.data.masks import MaskRecipe, random_masks
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.shards import nothing_read
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.data.words import with_short_captions
from nuwa_lip.disk import from_json, make_folder, naming, read_object, write_json, written_folder, written_whole
from nuwa_lip.errors import InputError
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN
from nuwa_lip.training.stage import generator_for
from nuwa_lip.training.token_parts import FORMAT_VERSION, PartAbout, hash_of, pack_captions, part_name, unfinished_of
from nuwa_lip.training.tokens import pack_masks

FAR = 2**32
"""Rows of a part, as far as seeds are concerned."""


@dataclass(frozen=True, kw_only=True)
class TokenRecipe:
    """How a token cache is made; the same recipe, image tokenizer and shards give the same cache."""

    variants: int
    """Crops and holes of each photo."""
    masks: MaskRecipe
    augmentation: Augmentation
    seed: int
    batch_size: int = 32
    """Crops encoded at a time, whose random numbers are drawn together."""
    short_captions: bool = False
    """Whether sentences get short captions beside them."""


def write_cache(
    folder: Path,
    model: DFVQGAN,
    shards: Sequence[str],
    recipe: TokenRecipe,
    *,
    workers: int = 2,
    progress: Callable[[str, range], Any] = lambda _, batches: batches,
    replace: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[int, int]:
    """Make a token cache, or this process's parts of it.

    Args:
        folder: folder of the cache.
        model: the frozen model, on the device to compute on.
        shards: files or addresses (see `expand_shards`).
        recipe: how crops and holes are drawn.
        workers: threads that decode photos.
        progress: wraps the batches of a shard, to show them; takes which shard it is, and the range of batches.
        replace: replace another cache in the folder at the end, and parts that were made of other data.
        rank: index of this process.
        world_size: number of processes.

    Returns:
        Parts that are made, and photos: of the whole cache if it is finished.

    Raises:
        InputError: no photo could be read, it cannot be written there, or there is a cache of another recipe, image
            tokenizer or data, which is not to be replaced.
    """
    plan = _plan(model, shards, recipe)
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    unfinished = folder.with_name(f"{folder.name}.unfinished-{digest[:8]}")
    if folder.exists() and not (folder / "tokens.json").is_file():
        raise InputError(f"{folder} exists: it is not a token cache; name a new one")
    if not replace:
        _refuse_others(folder, unfinished, plan)
    finished = not replace and folder.exists()
    place = folder if finished else unfinished
    if not finished:
        make_folder(unfinished)
        write_json(unfinished / "plan.json", plan)
    with naming(folder):
        if not rank and not (place / "dfvqgan").is_dir():
            with written_folder(place / "dfvqgan") as written:
                save_model(written, dfvqgan=model)
        for number in range(rank, len(shards), world_size):
            part = place / part_name(number)
            if not _is_made(part, shards[number], finished=finished, replace=replace):
                show = partial(progress, f"shard {number + 1} of {len(shards)}")
                with written_folder(part) as written:
                    _write_part(written, model, shards[number], number, recipe, workers, show)
        return _finish(folder, place, plan, shards)


def _plan(model: DFVQGAN, shards: Sequence[str], recipe: TokenRecipe) -> dict[str, Any]:
    """What tokens.json says before any part is made."""
    grid = model.config.grid
    plan = {
        "format_version": FORMAT_VERSION,
        "tokenizer": hash_of(model),
        "resolution": model.config.resolution,
        "grid": [grid, grid],
        "codebook_size": model.config.codebook_size,
        **dataclasses.asdict(recipe),
        "shards": [Path(shard).name for shard in shards],
    }
    return dict(json.loads(json.dumps(plan)))  # as it is read back


def _refuse_others(folder: Path, unfinished: Path, plan: dict[str, Any]) -> None:
    """Refuse to go on beside a cache, whole or unfinished, of another plan.

    Raises:
        InputError: there is one; the line names the first thing that differs.
    """
    mend = "--overwrite replaces it, or name another folder"
    others = [(path, path / "plan.json") for path in unfinished_of(folder) if path.name != unfinished.name]
    for place, file in [(folder, folder / "tokens.json")] * folder.exists() + others:
        if file.is_file() and (changed := _difference(read_object(file), plan)):
            raise InputError(f"{place} was made with {changed}: {mend}")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Say the first thing in which two plans differ."""
    for name, value in new.items():
        found = old.get(name)
        if found == value:
            continue
        if name == "tokenizer":
            return "another image tokenizer (--model)"
        if name == "shards":
            lost = [shard for shard in (*(found or ()), *value) if (shard in value) != (shard in (found or ()))]
            return f"other shards (--data): {lost[0] if lost else 'their order'} differs"
        if isinstance(value, dict) and isinstance(found, dict):
            inner = next(key for key in value if value[key] != found.get(key))
            return f"{name}.{inner} {found.get(inner)}, not {value[inner]}"
        return f"{name} {found}, not {value}"
    return None


def _is_made(part: Path, shard: str, *, finished: bool, replace: bool) -> bool:
    """Tell whether a part is there, of the shard as it is now.

    Raises:
        InputError: it is of a shard of this name with another content, and is not to be replaced.
    """
    if not part.is_dir():
        return False
    about = _about(part)
    if about.skipped.get("failed"):  # a cache that is not finished may get it yet
        return finished
    if about.sha256 == _sha256(shard):
        return True
    if replace:
        return False
    mend = "--overwrite makes it anew, or name another folder"
    raise InputError(f"{part.parent} was made with another {about.shard} (--data): {mend}")


def _about(part: Path) -> PartAbout:
    """Read what part.json says of a part.

    Raises:
        InputError: it is damaged.
        FileNotFoundError: it is not there, perhaps because another process has renamed the folder of the parts.
    """
    file = part / "part.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing")
    return from_json(PartAbout, read_object(file), str(file))


def _sha256(shard: str) -> str | None:
    """Hash a shard; None for one that lies elsewhere, which would have to be fetched, or cannot be read."""
    try:
        with open(shard, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _finish(folder: Path, place: Path, plan: dict[str, Any], shards: Sequence[str]) -> tuple[int, int]:
    """Make a cache of the parts, if all of them are there → how many there are, and their photos."""
    try:
        found = _parts_of(place, len(shards))
        if place == folder or len(found) < len(shards) or not (place / "dfvqgan").is_dir():
            return len(found), sum(about.photos for about in found)
        _check_enough(found, shards, place)
        with written_whole(place / "tokens.json") as file:
            file.write_text(json.dumps(plan | {"parts": [dataclasses.asdict(about) for about in found]}))
        (place / "plan.json").unlink(missing_ok=True)
        # of several processes that have found all parts one renames the folder, and the others find none to rename
        if folder.exists():
            folder.rename(place / "replaced")
        place.rename(folder)
    except FileNotFoundError:
        if place.exists() or not (folder / "tokens.json").is_file():
            raise
    for left in (folder / "replaced", *unfinished_of(folder)):
        shutil.rmtree(left, ignore_errors=True)
    found = _parts_of(folder, len(shards))
    return len(found), sum(about.photos for about in found)


def _parts_of(place: Path, count: int) -> list[PartAbout]:
    """Read what is said of the parts that are there."""
    return [_about(part) for part in (place / part_name(number) for number in range(count)) if part.is_dir()]


def _check_enough(parts: Sequence[PartAbout], shards: Sequence[str], place: Path) -> None:
    """Warn of what could not be read.

    Raises:
        InputError: it is too much, or everything.
    """
    skipped, photos = Skipped(), sum(about.photos for about in parts)
    for about in parts:
        skipped.merge(about.skipped)
    if not photos:
        shutil.rmtree(place)
        raise nothing_read(shards, skipped)
    skipped.warn(photos)


def _write_part(
    folder: Path,
    model: DFVQGAN,
    shard: str,
    number: int,
    recipe: TokenRecipe,
    workers: int,
    progress: Callable[[range], Any],
) -> None:
    """Encode the photos of a shard."""
    skipped, size, grid = Skipped(), model.config.resolution, model.config.grid
    digest = _sha256(shard)
    # a little larger than the model's photos, so that crops keep their sharpness
    photos, _ = PhotoSet.read([[shard]], size * 5 // 4, skipped, workers=workers)
    if recipe.short_captions:
        photos = dataclasses.replace(photos, captions=[with_short_captions(texts) for texts in photos.captions])
    count = len(photos) * recipe.variants
    with (
        torch.inference_mode(),
        _new(folder / "images.npy", np.uint8, (count, 3, size, size)) as images,
        _new(folder / "masks.npy", np.uint8, (count, -(-size * size // 8))) as bits,
        _new(folder / "tokens.npy", np.int32, (count, grid, grid)) as tokens,
        _new(folder / "whole.npy", np.int32, (count, grid, grid)) as whole,
    ):
        for start in progress(range(0, count, recipe.batch_size)):
            rows = range(start, min(start + recipe.batch_size, count))
            image, mask = _crops(photos, rows, size, recipe, number * FAR)
            images.write(_to_bytes(image).numpy().tobytes())
            bits.write(pack_masks(mask).tobytes())
            for file, found in zip((tokens, whole), encode_pair(model, image, mask), strict=True):
                file.write(found.cpu().numpy().astype(np.int32).tobytes())
    for name, array in zip(("captions", "ends"), pack_captions(photos.captions), strict=True):
        np.save(folder / f"{name}.npy", array)
    about = PartAbout(shard=Path(shard).name, sha256=digest, photos=len(photos), skipped=vars(skipped))
    write_json(folder / "part.json", dataclasses.asdict(about))


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


def _crops(photos: PhotoSet, rows: range, size: int, recipe: TokenRecipe, first: int) -> tuple[Tensor, Tensor]:
    """Crops and holes of some rows of a part, on the CPU; `first` tells parts apart in their seeds."""
    index = torch.tensor([row // recipe.variants for row in rows])
    captions = [" ".join(photos.captions[i]) for i in index.tolist()]  # any that names a side forbids the flip
    generator = generator_for("cpu", 5, recipe.seed, first + rows.start)
    image = augment(photos.images[index], photos.aspects[index], size, recipe.augmentation, generator, captions)
    mask = random_masks(
        len(rows), size, size, recipe.masks, np.random.default_rng([6, recipe.seed, first + rows.start])
    )
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
