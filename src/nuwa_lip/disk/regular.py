"""Opens nothing but files: a pipe would be waited for without end, and a device never ends."""

import stat
from pathlib import Path

from nuwa_lip.errors import InputError

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def regular(path: Path) -> Path:
    """Return a path that may be opened; whoever opens it says if it is a folder, or is not there.

    Raises:
        InputError: it is a pipe, a device or a socket.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return path
    if kind in KINDS:
        raise InputError(f"{path} is {KINDS[kind]}, not a file: save what comes out of it, and give that")
    return path


def inside(folder: Path, path: Path) -> Path:
    """Return a path that a stranger's file has named, if it stays below a folder, wherever links lead.

    Raises:
        InputError: it leads elsewhere.
    """
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name with a zero byte
        stays = False
    if not stays:
        raise InputError(f"{str(path)!r} is not within {folder}: put the file there, and name it as it lies there")
    return path
