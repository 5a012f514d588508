"""Files and folders, written whole or not at all.

Whatever is written gets a temporary name in the same file system first, and its own name when it is complete. So a
full disk, an error or Ctrl-C leaves what was there before, and a reader never meets half a file.
"""

import functools
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nuwa_lip.errors import InputError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

LEFT_AFTER = 3600.0
"""Seconds without a change after which a temporary file is of a process that was killed."""


@contextmanager
def written_whole(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary name to write a file to, which replaces `path` at the end, or goes away after an error.

    Args:
        path: of the file.
        replace: replace a file that has appeared at `path` meanwhile, too.

    Raises:
        InputError: a file has appeared there, and is not to be replaced.
        OSError: it cannot be written; a note names `path`.
    """
    _sweep_files(path.parent)
    part = _beside(path)
    try:
        yield part
        if replace:
            os.replace(part, path)
        else:
            _appear(part, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # as of a full disk
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def written_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give an empty folder to write into, which replaces `folder` at the end, or goes away after an error.

    Args:
        folder: its name at the end.
        replace: replace a folder that has appeared there meanwhile, too.

    Raises:
        InputError: no folder can be made there, another process writes the same one, or one has appeared there and is
            not to be replaced.
        OSError: it cannot be written; a note names `folder`.
    """
    with temporary_folder(folder) as part:
        yield part
        make_folder(folder.parent)
        if replace:
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            raise InputError(f"{folder} exists already: another process has made it")
        part.rename(folder)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder from which `path` can be moved into place; it goes away at the end, with what is left in it.

    It is in the nearest folder above `path` that exists, so that an error leaves no new folder behind. What a killed
    process has left of the same `path` goes, too.

    Raises:
        InputError: no folder can be made there, or another process makes one for the same `path`.
        OSError: it cannot be written; a note names `path`.
    """
    path = path.absolute()
    near = next(folder for folder in path.parents if folder.exists())
    for left in _parts_of(near, path.name):
        _remove_unless_busy(left, path)
    try:
        part, lock = _new_part(near / path.name)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with naming(path):
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, as long as its files are written one by one; a process that ends holds nothing any more.

    Raises:
        InputError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if fcntl and handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is writing to {folder}: wait for its end") from None
            except OSError:  # a file system without locks
                pass
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give errors that name no file, such as that of a full disk, a note with the name of this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None and not hasattr(error, "__notes__"):
            error.add_note(f"{path} could not be written")
        raise


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


def _parts_of(folder: Path, name: str) -> list[Path]:
    """List temporary folders of one name, and those that earlier versions have named."""
    form = re.compile(rf"\.{re.escape(name)}(\.[0-9a-f]{{8}})?\.part")
    try:
        return [path for path in folder.iterdir() if form.fullmatch(path.name) and path.is_dir()]
    except OSError:
        return []


@functools.lru_cache(maxsize=64)
def _sweep_files(folder: Path) -> None:
    """Remove temporary files that killed processes have left long ago; once, for folders may hold many files."""
    form = re.compile(r"\..+\.[0-9a-f]{8}\.part")
    with suppress(OSError):
        for entry in os.scandir(folder):
            if form.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                if time.time() - entry.stat().st_mtime > LEFT_AFTER:
                    os.unlink(entry.path)


def _new_part(path: Path) -> tuple[Path, int]:
    """Make a temporary folder and lock it → the folder, and what to close; a lock ends with its process, however."""
    while True:
        part = path.with_name(f".{path.name}.part")
        try:
            part.mkdir()
        except FileExistsError:  # of another process, on a file system without locks
            part = _beside(path)
            part.mkdir()
        handle = os.open(part, os.O_RDONLY) if fcntl else os.open(os.devnull, os.O_RDONLY)
        if fcntl:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        if part.exists():
            return part, handle
        os.close(handle)  # who looks for what killed processes have left was faster


def _remove_unless_busy(part: Path, path: Path) -> None:
    """Remove a temporary folder for `path` that no process holds.

    Raises:
        InputError: a process holds it.
    """
    try:
        handle = os.open(part, os.O_RDONLY) if fcntl else None
    except OSError:  # it has gone
        return
    try:
        if fcntl and handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(part, ignore_errors=True)
    except BlockingIOError:
        raise InputError(f"another process is writing {path}: wait for its end, or name another place") from None
    except OSError:  # a file system without locks: whose it is cannot be told
        pass
    finally:
        if handle is not None:
            os.close(handle)


def _appear(part: Path, path: Path) -> None:
    """Give a whole file its name, unless there is one of this name.

    Raises:
        InputError: there is.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        raise InputError(f"{path} exists already: another process has made it") from None
    except OSError:  # a file system without links
        if path.exists():
            raise InputError(f"{path} exists already: another process has made it") from None
        os.replace(part, path)
