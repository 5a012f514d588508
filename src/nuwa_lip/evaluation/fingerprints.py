"""What identifies a model folder: hashes of its files, and how many parameters it has."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
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


def stamp(path: str | Path) -> str:
    """Give a text that changes when a file or a folder does; by size and time."""
    folder = Path(path)
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else [folder]
    found: Mapping[str, os.stat_result] = {str(file.relative_to(folder)): file.stat() for file in files}
    text = " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in found.items())
    return f"{folder.name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
