"""What a folder holds, to compare before with after."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its path within."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
