"""What identifies a model folder: hashes of its files, and how many parameters it has."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

BLOCK = 2**20


def content_hash(folder: Path, patterns: Sequence[str]) -> str:
    """Hash the names and contents of those files of a folder that match, equally on every machine."""
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()[:32]


def parameters_of(folder: Path, pattern: str = "*.safetensors") -> dict[str, int]:
    """Count the parameters of each part of a model folder, by the headers of its files."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob(pattern)):
        part = path.stem.partition("-0")[0]  # a large one lies in several files
        with safe_open(path, "np") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]
        found[part] = found.get(part, 0) + sum(map(math.prod, shapes))
    return found


def model_hash(folder: Path) -> str:
    """Hash a model folder: weights, configuration, tokenizer; not its card."""
    return content_hash(folder, ("*.safetensors", "*.json"))
