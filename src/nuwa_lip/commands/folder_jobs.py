"""What a folder job consists of: photos, each with its mask, caption and result."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nuwa_lip.errors import InputError
from nuwa_lip.images.files import READABLE
from nuwa_lip.json_files import parse_json
from nuwa_lip.text_files import lines_of

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
    """Whether a prompt is the name of a captions file.

    Raises:
        InputError: it looks like one, but there is no such file.
    """
    if not prompt.lower().endswith(CAPTION_FILES):
        return False
    try:
        if Path(prompt).is_file():
            return True
    except (OSError, ValueError):  # too long for a name
        return False
    if len(prompt.split()) == 1:
        raise InputError(f"there is no captions file {prompt}")
    return False


def plan(photos: Path, mask: Path | None, prompt: str, out: Path) -> list[Job | InputError]:
    """The jobs for a folder of photos, in the order of their names, or why one of them cannot be done.

    Args:
        photos: the folder.
        mask: a folder with a mask of the same stem for each photo, one mask for all, or None.
        prompt: one caption for all, or a captions file.
        out: folder for the results, STEM.png each.

    Raises:
        InputError: none can be done.
    """
    files = _pictures(photos)
    if not files:
        raise InputError(f"there are no photos in {photos}")
    if mask is not None and not mask.exists():
        raise InputError(f"there is no file or folder {mask}")
    captions = read_captions(Path(prompt)) if is_captions_file(prompt) else None
    masks: dict[str, list[Path]] | None = None
    if mask is not None and mask.is_dir():
        masks = {}
        for path in _pictures(mask):
            masks.setdefault(path.stem, []).append(path)
    jobs: list[Job | InputError] = []
    seen: dict[str, Path] = {}
    for photo in files:
        caption = prompt if captions is None else caption_for(photo, captions)
        own_masks = [mask] if masks is None else masks.get(photo.stem, [])
        first = seen.setdefault(photo.stem, photo)
        if first is not photo:
            problem = f"its result would replace that of {first.name}; rename one of them"
        elif caption is None:
            problem = f"there is no caption for it in {prompt}"
        elif not own_masks:
            problem = f"there is no mask {photo.stem}.* in {mask}"
        elif len(own_masks) > 1:
            names = " and ".join(path.name for path in own_masks if path)
            problem = f"it has several masks in {mask}, {names}; leave one of them"
        else:
            jobs.append(Job(photo=photo, mask=own_masks[0], prompt=caption, out=out / f"{photo.stem}.png"))
            continue
        jobs.append(InputError(f"{photo}: {problem}"))
    return jobs


def _pictures(folder: Path) -> list[Path]:
    """The picture files in a folder by name; a computer's own hidden files are none."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {(error.strerror or str(error)).lower()}") from error
    return [path for path in files if path.suffix.lower() in READABLE and not path.name.startswith(".")]


def caption_for(photo: Path, captions: Mapping[str, str]) -> str | None:
    """The caption under a photo's name, or under its name without the ending."""
    return captions.get(photo.name, captions.get(photo.stem))


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
        rows = _rows(text, path.suffix.lower())
        return dict(_caption(row, number) for number, row in enumerate(rows, 1))
    except (ValueError, csv.Error, OSError) as error:
        raise InputError(f"{path} holds no captions that can be read: {error}") from error


def _rows(text: str, kind: str) -> Iterable[object]:
    """The entries of a captions file, each with the fields `file` and `caption`."""
    if kind == ".json":
        content = parse_json(text)
        if isinstance(content, dict):
            return [{"file": name, "caption": caption} for name, caption in content.items()]
        if not isinstance(content, list):
            raise ValueError("neither {name: caption} nor a list of entries")
        return content
    if kind == ".jsonl":
        return (parse_json(line) for line in lines_of(text))
    if kind == ".csv":
        return csv.DictReader(io.StringIO(text))
    parts = (line.partition("\t") for line in lines_of(text))
    return ({"file": name.strip(), "caption": text.strip() if tab else None} for name, tab, text in parts)


def _caption(row: object, number: int) -> tuple[str, str]:
    """(name of the photo, its caption) of an entry."""
    if isinstance(row, Mapping):
        name = next((row[key] for key in NAME_KEYS if key in row), None)
        caption = next((row[key] for key in CAPTION_KEYS if key in row), None)
        if isinstance(caption, list) and caption:
            caption = caption[0]
        if isinstance(name, str) and isinstance(caption, str):
            return Path(name).name, caption
    raise ValueError(f"entry {number} has no text for {NAME_KEYS[0]!r} and {CAPTION_KEYS[0]!r}")
