"""`nuwa-lip data shards` and `data shapes`: shards from published layouts, and the synthetic set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from nuwa_lip.commands.options import Out, check_least
from nuwa_lip.data.shapes import Difficulty, Split, shape_samples
from nuwa_lip.data.shards import Sample, write_shards
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.data.sources import SourceKind, list_source, load_entries, shuffled
from nuwa_lip.errors import InputError


def shards(
    photos: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")] = None,
    *,
    out: Out,
    source: SourceKind = "folder",
    images: Path | None = None,
    captions: Path | None = None,
    size: int = 256,
    quality: int = 90,
    prefix: str = "photos",
    shard_mb: int = 48,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 2,
    overwrite: bool = False,
) -> None:
    """Turn captioned photos into WebDataset shards, in random order; photos that cannot be read are skipped.

    Example: nuwa-lip data shards photos/ -o shards/

    Example: nuwa-lip data shards val2017 --source coco --captions captions_val2017.json -o shards/

    Args:
        photos: Folder of photos (the same as --images).
        out: Folder for the shards.
        source: Layout. folder: NAME.txt beside each photo (one caption a line), or --captions with a CSV,
            TSV or JSONL file that has the columns `file` and `caption`.
        images: Folder of photos.
        captions: The captions' file of the layout.
        size: Short side in pixels to which larger photos are reduced; 0 keeps them as they are.
        quality: Of JPEG, 1 to 95.
        prefix: Of the shards' names.
        shard_mb: Size of a shard in MiB.
        limit: Take only N photos, chosen by the seed.
        seed: Of the order.
        workers: Threads that decode.
        overwrite: Replace shards of the same prefix.
    """
    if photos is not None and images is not None:
        raise InputError(f"the folder of photos is given twice, {photos} and --images {images}; give it once")
    folder = photos or images
    if folder is None:
        raise InputError("which photos? nuwa-lip data shards FOLDER -o OUT")
    check_least(0, size=size, seed=seed)
    check_least(1, shard_mb=shard_mb, workers=workers, limit=limit)
    if not 1 <= quality <= 95:
        raise InputError(f"--quality {quality} is not within 1..95")
    entries = shuffled(list_source(source, folder, captions), seed)[:limit]
    skipped, counts = Skipped(), Counter[str]()
    samples = _counted(load_entries(entries, skipped, size=size or None, workers=workers), counts)
    try:
        written = write_shards(
            track(samples, "writing", total=len(entries), console=Console(stderr=True), transient=True),
            out,
            prefix=prefix,
            quality=quality,
            max_bytes=shard_mb * 2**20,
            overwrite=overwrite,
        )
    except InputError as error:
        if skipped and not counts["photos"]:
            raise InputError(f"not one of {len(skipped)} photos could be read: {skipped}") from error
        raise
    skipped.warn()
    _report(out, written, counts, len(skipped))


def shapes(
    *,
    out: Out,
    count: int = 4000,
    size: int = 64,
    seed: int = 0,
    split: Split = "train",
    difficulty: Difficulty = "easy",
    overwrite: bool = False,
) -> None:
    """Draw the synthetic captioned set: coloured shapes at named places, as shards of PNG.

    Example: nuwa-lip data shapes -o shapes/ --count 4000 --size 64

    Example: nuwa-lip data shapes -o shapes/ --count 200 --size 64 --split test

    Args:
        out: Folder for the shards, named shapes-SPLIT-NNNNNN.tar.
        count: Number of photos.
        size: Their side in pixels.
        seed: Names the set.
        split: test has only combinations of colour, shape and place that train never has.
        difficulty: easy: one shape on plain grey; hard: up to three on plain, shaded or noisy grounds.
        overwrite: Replace shards of the same split.
    """
    check_least(0, seed=seed)
    counts = Counter[str]()
    samples = _counted(shape_samples(count, size=size, seed=seed, split=split, difficulty=difficulty), counts)
    written = write_shards(samples, out, prefix=f"shapes-{split}", image_format="png", overwrite=overwrite)
    _report(out, written, counts, 0)


def _counted(samples: Iterable[Sample], counts: Counter[str]) -> Iterator[Sample]:
    for sample in samples:
        counts.update(photos=1, captions=len(sample.captions), mute=not sample.captions)
        yield sample


def _report(out: Path, written: Sequence[Path], counts: Counter[str], skipped: int) -> None:
    mute = f" ({counts['mute']} photos without)" if counts["mute"] else ""
    lost = f", {skipped} skipped" if skipped else ""
    shards = f"{len(written)} shard{'s' if len(written) > 1 else ''}"
    print(f"{out}: {counts['photos']} photos, {counts['captions']} captions{mute}, {shards}{lost}")
