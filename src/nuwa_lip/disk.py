"""Files and folders, written whole or not at all; text and JSON, read with errors of one line.

Whatever is written gets a temporary name in the same file system first, and its own name when it is complete. So a
full disk, an error or Ctrl-C leaves what was there before, and a reader never meets half a file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nuwa_lip.errors import InputError, first_line

NUMBERS = {float: Real, int: Integral}
SHOWN = 80  # characters of a value that an error shows

Kind = TypeVar("Kind")


@contextmanager
def written_whole(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary name to write a file to, which replaces `path` at the end, or goes away after an error.

    Args:
        path: of the file.
        replace: replace a file that has appeared at `path` meanwhile, too.

    Raises:
        InputError: a file has appeared there, and is not to be replaced.
    """
    part = _beside(path)
    try:
        yield part
        if replace:
            os.replace(part, path)
        else:
            _put_new(part, path)
    finally:
        part.unlink(missing_ok=True)


def _put_new(part: Path, path: Path) -> None:
    """Give a file its name, which only one of several processes gets."""
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise InputError(f"{path} exists by now: another process has written it; name another file") from error
    except OSError:  # a file system without links
        path.touch(exist_ok=False)
        os.replace(part, path)


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


def lines_of(text: str) -> list[str]:
    """Return the lines that hold something, as they are.

    Lines end as in files alone: `str.splitlines` would cut captions at U+2028, U+0085 and their like too.
    """
    return [line for line in text.split("\n") if line.strip()]


def parse_json(text: str | bytes) -> Any:
    """Parse as `json.loads` does.

    Raises:
        ValueError: it is not valid, or nested so deeply that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object that a file holds.

    Raises:
        InputError: the file cannot be read, is not valid, or holds something else.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, not an object")
    return content


def from_json(kind: type[Kind], values: Any, where: str) -> Kind:
    """Build a dataclass from what JSON makes of it: objects stand for dataclasses within it, lists for tuples.

    Args:
        kind: the dataclass.
        values: parsed JSON.
        where: what it is and in which file, which errors begin with.

    Raises:
        InputError: a field is unknown, missing, of another type, or out of range.
    """
    if not isinstance(values, Mapping):
        found = "missing" if values is None else f"{values!r:.{SHOWN}}"
        raise InputError(f"{where} is {found}; it must be an object with fields")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}: update nuwa-lip, or remove it")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_json(hints[name], value, f"{where}: {name}")
        elif not fits(value, hints[name]):
            wanted = hints[name].__name__ if isinstance(hints[name], type) else str(hints[name]).replace("typing.", "")
            raise InputError(f"{where}: {name} is {value!r:.{SHOWN}}; it must be {wanted}")
        built[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**built)
    except Exception as error:  # of many kinds: a field is missing, a value is out of range
        raise InputError(f"{where} cannot be used: {first_line(error)}") from error


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of an annotated type; lists stand for tuples, and a bool is no number."""
    kind, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is tuple:
        parts = parts[:1] * len(value) if parts[-1:] == (...,) and isinstance(value, list) else parts
        return isinstance(value, list) and len(value) == len(parts) and all(map(fits, value, parts))
    if kind in (dict, Mapping):
        return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, NUMBERS.get(hint, hint))


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {folder}: {error.strerror}; name another folder")


def _beside(path: Path) -> Path:
    """Return a temporary name in the same folder that no other process or thread has, here or on another machine."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
