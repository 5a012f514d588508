"""Files and folders, written whole or not at all.

Whatever is written gets a temporary name in the same file system first, and its own name when it is complete. So a
full disk, an error or Ctrl-C leaves what was there before, and a reader never meets half a file.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nuwa_lip.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name to write a file to, which replaces `path` at the end, or goes away after an error."""
    part = _beside(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which replaces `folder` at the end, or goes away after an error.

    Raises:
        InputError: no folder can be made there.
    """
    with temporary_folder(folder) as part:
        yield part
        make_folder(folder.parent)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder from which `path` can be moved into place; it goes away at the end, with what is left in it.

    It is in the nearest folder above `path` that exists, so that an error leaves no new folder behind, and has one name
    for each `path`, so that what a killed process has left is replaced.

    Raises:
        InputError: no folder can be made there.
    """
    path = path.absolute()
    near = next(folder for folder in path.parents if folder.exists())
    part = near / f".{path.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it exists.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be written there, once the folders that are missing are made.

    Raises:
        InputError: it cannot; nothing is left behind.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file for the result")
        folder = next(folder for folder in path.parents if folder.exists())
        part = _beside(folder / path.name)
        part.touch()
        part.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all; folders that are missing are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Write JSON as `write_text` does.

    Args:
        path: of the file.
        content: what `json.dumps` takes.
        indent: spaces a level; None puts it on one line.
    """
    write_text(path, json.dumps(content, indent=indent) + "\n")


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {folder}: {error.strerror}; name another folder")


def _beside(path: Path) -> Path:
    """Return a temporary name in the same folder that no other process or thread has, here or on another machine."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
