"""`nuwa-lip tokenize`: a trained DF-VQGAN and captioned photos → the token cache of stage 2."""

from __future__ import annotations

from dataclasses import replace

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
    """Make the token cache that stage 2 trains on.

    Example: nuwa-lip tokenize --model runs/dfvqgan/model --data shards/ -o tokens/

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
        overwrite: Replace the cache in the folder.
    """
    for flag, value in (("variants", variants), ("batch-size", batch_size), ("workers", workers)):
        if value < 1:
            raise InputError(f"--{flag} is {value}; it must be 1 or more")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must be 0 or more")
    if out.exists() and not (overwrite and (out / "tokens.json").is_file()):
        mend = (
            "--overwrite replaces it" if (out / "tokens.json").is_file() else "it is not a token cache; name a new one"
        )
        raise InputError(f"{out} exists: {mend}")
    import torch

    from nuwa_lip.data.photos import PhotoSet
    from nuwa_lip.hub import load_model
    from nuwa_lip.training.tokens import write_cache

    keep_freed_memory()
    dfvqgan = load_model(model, need_mps2s=False).dfvqgan
    photos = PhotoSet.load(data, dfvqgan.config.resolution * 5 // 4, workers=workers)
    if short_captions:
        from nuwa_lip.data.words import with_short_captions

        photos = replace(photos, captions=[with_short_captions(texts) for texts in photos.captions])
    console = Console(stderr=True)
    write_cache(
        out,
        dfvqgan.to("cuda" if torch.cuda.is_available() else "cpu"),
        photos,
        variants=variants,
        masks=masks,
        augmentation=augmentation,
        seed=seed,
        batch_size=batch_size,
        replace=overwrite,
        progress=lambda batches: track(batches, "encoding", console=console, transient=True),
    )
    print(f"{out}: {len(photos)} photos, {variants} variants of each")
