"""Checks files of the hub's cache against their hashes, by which it names what they link to."""

import hashlib
import re
from pathlib import Path

from nuwa_lip.errors import InputError

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""git's SHA-1 of a small file, the SHA-256 of a large one."""


def check_hashes(folder: Path) -> None:
    """Read every file below a folder of the cache, and remove one that is not what its name says.

    Files that are no links are left alone: a file system may have none.

    Raises:
        InputError: a file is damaged.
    """
    for path in sorted(folder.rglob("*")):
        name = path.resolve().name if path.is_symlink() else ""
        if not path.is_file() or not HASH.fullmatch(name):
            continue
        digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        with open(path, "rb") as file:
            while piece := file.read(2**22):
                digest.update(piece)
        if digest.hexdigest() != name:
            path.resolve().unlink()
            path.unlink()
            raise InputError(f"{path.name} came damaged and was removed: fetch it again")
