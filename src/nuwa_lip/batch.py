"""What a folder job consists of: photos, each with its mask, caption and result."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nuwa_lip.errors import InputError
from nuwa_lip.files import READABLE

CAPTION_FILES = (".json", ".jsonl", ".csv", ".tsv", ".txt")
NAME_KEYS = ("file", "name", "image", "file_name", "filename", "key")
CAPTION_KEYS = ("caption", "prompt", "text")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One photo to repaint."""

    photo: Path
    mask: Path | None
    """None: the photo's transparent part."""
    prompt: str
    out: Path


def is_captions_file(prompt: str) -> bool:
    """Whether a prompt is the name of a captions file."""
    path = Path(prompt)
    return path.suffix.lower() in CAPTION_FILES and len(prompt) < 1000 and path.is_file()


def plan(photos: Path, mask: Path | None, prompt: str, out: Path) -> Iterator[Job | InputError]:
    """The jobs for a folder of photos, in the order of their names, or why one of them cannot be done.

    Args:
        photos: the folder.
        mask: a folder with a mask of the same stem for each photo, one mask for all, or None.
        prompt: one caption for all, or a captions file.
        out: folder for the results, STEM.png each.
    """
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in READABLE)
    if not files:
        raise InputError(f"there are no photos in {photos}")
    if mask is not None and not mask.exists():
        raise InputError(f"there is no file or folder {mask}")
    captions = read_captions(Path(prompt)) if is_captions_file(prompt) else None
    masks = (
        {path.stem: path for path in sorted(mask.iterdir())} if mask is not None and mask.is_dir() else None
    )
    seen: dict[str, Path] = {}
    for photo in files:
        caption = prompt if captions is None else captions.get(photo.name, captions.get(photo.stem))
        own_mask = mask if masks is None else masks.get(photo.stem)
        first = seen.setdefault(photo.stem, photo)
        if first is not photo:
            yield InputError(f"{photo}: its result would replace that of {first.name}; rename one of them")
        elif caption is None:
            yield InputError(f"{photo}: there is no caption for it in {prompt}")
        elif masks is not None and own_mask is None:
            yield InputError(f"{photo}: there is no mask {photo.stem}.* in {mask}")
        else:
            yield Job(photo=photo, mask=own_mask, prompt=caption, out=out / f"{photo.stem}.png")


def read_captions(path: Path) -> dict[str, str]:
    """Captions by file name or stem.

    Args:
        path: JSON {name: caption}, JSON lines or CSV with the fields `file` and `caption`, or lines
            name TAB caption.

    Raises:
        InputError: it is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        kind = path.suffix.lower()
        if kind == ".json":
            content = json.loads(text)
            rows = (
                content
                if isinstance(content, list)
                else [{"file": k, "caption": v} for k, v in content.items()]
            )
            return _captions(rows)
        if kind == ".jsonl":
            return _captions(json.loads(line) for line in text.splitlines() if line.strip())
        if kind == ".csv":
            return _captions(csv.DictReader(text.splitlines()))
    except (ValueError, AttributeError, csv.Error, KeyError, OSError) as error:
        raise InputError(f"{path} holds no captions that can be read: {error}") from error
    captions = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            name, tab, caption = line.partition("\t")
            if not tab:
                raise InputError(f"{path}, line {number}: there is no tab between name and caption")
            captions[name.strip()] = caption.strip()
    return captions


def _captions(rows: Iterable[Mapping[str, object]]) -> dict[str, str]:
    captions = {}
    for number, row in enumerate(rows, 1):
        name = next((row[key] for key in NAME_KEYS if key in row), None)
        caption = next((row[key] for key in CAPTION_KEYS if key in row), None)
        if isinstance(caption, list) and caption:
            caption = caption[0]
        if not isinstance(name, str) or not isinstance(caption, str):
            raise ValueError(
                f"entry {number} has no text in the fields {NAME_KEYS[0]!r} and {CAPTION_KEYS[0]!r}"
            )
        captions[name] = caption
    return captions
