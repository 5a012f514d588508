"""Captions files: captions of photos by name, as JSON, JSON lines, CSV or lines of name and caption."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from nuwa_lip.disk import clean, lines_of, parse_json, read_text
from nuwa_lip.errors import InputError

CAPTION_FILES = (".json", ".jsonl", ".csv", ".tsv", ".txt")
NAME_KEYS = ("file", "name", "image", "file_name", "filename", "key")
CAPTION_KEYS = ("caption", "prompt", "text")


def is_captions_file(prompt: str) -> bool:
    """Say whether a prompt is the name of a captions file.

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


def caption_for(photo: Path, captions: Mapping[str, str]) -> str | None:
    """Find the caption under a photo's name, or under its name without the ending; None if there is none."""
    found = captions.get(photo.name, captions.get(photo.stem))
    if found is None and not all(map(str.isascii, captions)):  # accents may be letters of their own, or not
        captions = {unicodedata.normalize("NFC", name): caption for name, caption in captions.items()}
        name, stem = (unicodedata.normalize("NFC", text) for text in (photo.name, photo.stem))
        found = captions.get(name, captions.get(stem))
    return found


def read_captions(path: Path) -> dict[str, str]:
    """Read captions by file name or stem.

    Args:
        path: JSON {name: caption}, JSON lines or CSV with the fields `file` and `caption`, or lines name TAB caption.

    Raises:
        InputError: the file has none of these forms, or cannot be read.
    """
    try:
        text = read_text(path, "utf-8-sig")
        rows = _rows(text, path.suffix.lower())
        return dict(_caption(row, number) for number, row in enumerate(rows, 1))
    except (ValueError, csv.Error, OSError) as error:
        raise InputError(f"{path} holds no captions that can be read: {error}") from error


def _rows(text: str, kind: str) -> Iterable[object]:
    """Take the entries out of a captions file, each with the fields `file` and `caption`."""
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
    """Take the photo's name and its caption out of an entry."""
    if isinstance(row, Mapping):
        name = next((row[key] for key in NAME_KEYS if key in row), None)
        caption = next((row[key] for key in CAPTION_KEYS if key in row), None)
        if isinstance(caption, list) and caption:
            caption = caption[0]
        if isinstance(name, str) and isinstance(caption, str):
            return Path(name).name, clean(caption)
    raise ValueError(f"entry {number} has no text for {NAME_KEYS[0]!r} and {CAPTION_KEYS[0]!r}")
