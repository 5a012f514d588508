"""`nuwa-lip tokenize`: a trained DF-VQGAN and captioned photos → the token cache of stage 2."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.progress import track

from nuwa_lip.commands.options import Out, Paths
from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.errors import InputError
from nuwa_lip.fast.allocator import keep_freed_memory

MASKS = MaskRecipe(rectangles=0.7, strokes=0.1, border=0.15, everything=0.05)
AUGMENTATION = Augmentation()


def tokenize(
    *,
    model: str,
    data: Paths,
    out: Out,
    variants: int = 2,
    masks: MaskRecipe = MASKS,
    augmentation: Augmentation = AUGMENTATION,
    short_captions: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    workers: int = 2,
    overwrite: bool = False,
) -> None:
    """Make the token cache that stage 2 trains on; a killed run goes on, by the same words, where it stopped.

    Example: nuwa-lip tokenize --model runs/dfvqgan/model --data shards/ -o tokens/

    Example: torchrun --nproc-per-node 8 -m nuwa_lip tokenize --model runs/dfvqgan/model --data shards/ -o tokens/

    Args:
        model: Model folder with a DF-VQGAN.
        data: Shards: files, folders, patterns.
        out: Folder for the cache.
        variants: Crops and holes of each photo; more for small sets.
        masks: How holes are drawn; 40 to 60 % of the photo.
        augmentation: How crops are drawn.
        short_captions: Give photos that have several sentences short captions of fixed form beside them, from a closed
            list of words (`nuwa_lip.data.words`).
        seed: Of all that is random.
        batch_size: Crops encoded at a time.
        workers: Threads that decode photos.
        overwrite: Replace the cache in the folder, and what was begun with other options or data.
    """
    for flag, value in (("variants", variants), ("batch-size", batch_size), ("workers", workers)):
        if value < 1:
            raise InputError(f"--{flag} is {value}; it must be 1 or more")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or more")
    import torch

    from nuwa_lip.data.shards import expand_shards
    from nuwa_lip.hub import load_model
    from nuwa_lip.training.tokenizing import TokenRecipe, write_cache

    keep_freed_memory()
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # as torchrun says
    card = int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count())
    shards = expand_shards(data)
    dfvqgan = load_model(model, need_mps2s=False).dfvqgan.to(f"cuda:{card}" if torch.cuda.is_available() else "cpu")
    console = Console(stderr=True)
    parts, photos = write_cache(
        out,
        dfvqgan,
        shards,
        TokenRecipe(
            variants=variants,
            masks=masks,
            augmentation=augmentation,
            seed=seed,
            batch_size=batch_size,
            short_captions=short_captions,
        ),
        workers=workers,
        progress=lambda shard, batches: track(batches, f"encoding {shard}", console=console, transient=True),
        replace=overwrite,
        rank=rank,
        world_size=count,
    )
    if parts == len(shards):
        print(f"{out}: {photos} photos, {variants} variants of each")
    else:
        print(f"process {rank} of {count} is done; {len(shards) - parts} shards are left to others", file=sys.stderr)
