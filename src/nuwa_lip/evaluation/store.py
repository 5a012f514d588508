"""Measured arrays of each photo on disk: one file a photo, written whole or not at all.

So a run that was stopped goes on where it was, any number of processes can share a folder, and no set of photos
or features is held in memory while measuring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nuwa_lip.disk import write_text, written_whole
from nuwa_lip.errors import InputError

NOTE = "run.json"


class Store:
    """Arrays by name of each photo, which goes by its number.

    Args:
        folder: made if missing.
        run: what the figures depend on.
        fresh: throw away what another run has left; otherwise it is refused.

    Raises:
        InputError: the folder holds something else.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        self.run = run
        self._text = json.dumps(run, indent=1, sort_keys=True) + "\n"
        self._noted = False
        if not folder.exists():
            return  # it is made for the first photo: bad input leaves nothing behind
        note = folder / NOTE
        strange = not folder.is_dir() or any(not _ours(path) for path in folder.iterdir())
        if strange or (not note.exists() and any(folder.glob("*.safetensors"))):
            raise InputError(f"{folder} holds other things than figures of photos; name another folder")
        if note.exists() and note.read_text(encoding="utf-8") != self._text:
            if not fresh:
                raise InputError(f"{folder} holds figures of another run (see {note}); name another folder")
            self.clear()

    def has(self, index: int, stamps: Mapping[str, np.ndarray] | None = None) -> bool:
        """Say whether a photo was measured, with the results that have these stamps."""
        try:
            with safe_open(self._path(index), "np") as file:
                return all(np.array_equal(file.get_tensor(key), stamp) for key, stamp in (stamps or {}).items())
        except (SafetensorError, OSError):
            return False  # not there, or torn: measured again

    def missing(self, n: int) -> list[int]:
        """List those of the first n photos that were not measured yet."""
        return [i for i in range(n) if not self.has(i)]

    def save(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what was measured of one photo."""
        if not self._noted:
            write_text(self.folder / NOTE, self._text)
            self._noted = True
        with written_whole(self._path(index)) as part:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, part)

    def fill(self, items: Iterable[int], measure: Callable[[int], Mapping[str, np.ndarray]]) -> None:
        """Measure photos and keep what comes out, except those that are there already."""
        for index in items:
            if not self.has(index):
                self.save(index, measure(index))

    def load(self, n: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Load arrays of the first n photos, stacked: key → [N, ...]."""
        found: dict[str, np.ndarray] = {}
        for i in range(n):
            with safe_open(self._path(i), "np") as file:
                for key in keys:
                    value = file.get_tensor(key)
                    if key not in found:
                        found[key] = np.empty((n, *value.shape), value.dtype)
                    found[key][i] = value
        return found

    def clear(self) -> None:
        """Remove the folder with its figures."""
        if not self.folder.exists():
            return
        for path in self.folder.iterdir():
            if _ours(path):
                path.unlink()
        self.folder.rmdir()

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.safetensors"


def _ours(path: Path) -> bool:
    return path.suffix in (".safetensors", ".part") or path.name == NOTE
