"""Tars read as a stream, whatever they hold.

A size in a header is believed no further than the file goes, and noise costs only what it covers: reading goes on at
the next header behind it.
"""

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
MOST = 2**28
"""Largest file within a tar, in bytes."""
MOST_NAMES = 2**20
"""Most bytes of a header's long names."""
WINDOW = 2**16
"""Bytes in which the next header is looked for at a time."""
MAGIC, MAGIC_AT = b"ustar", 257
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
LONG_NAME, PAX, GLOBAL = (tarfile.GNUTYPE_LONGNAME,), (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), (tarfile.XGLTYPE,)
EMPTY = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
"""Types of entries that have a header only."""


class Member(NamedTuple):
    """A file within a tar."""

    name: str
    data: bytes
    start: int
    """Where its headers begin, in bytes."""
    end: int
    """Where the next file's headers begin."""


class Lost(NamedTuple):
    """Bytes of a tar that hold nothing that can be read; none where it ends without saying that it does."""

    size: int


class Tape:
    """A stream whose bytes can be looked at before they are taken.

    Args:
        stream: a file, or what comes from elsewhere.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.held = stream, bytearray()
        self.left = _size(stream)
        """Bytes that a file still has; None where nobody knows."""
        self.at = 0
        """Bytes that were taken."""

    def look(self, count: int) -> bytes:
        """Give the next bytes, fewer at the end, and leave them there."""
        while len(self.held) < count and (more := self.stream.read(count - len(self.held))):
            self.held += more
        return bytes(self.held[:count])

    def take(self, count: int) -> bytes:
        """Give the next bytes, fewer at the end."""
        taken = self.look(count)
        del self.held[: len(taken)]
        self.at += len(taken)
        if self.left is not None:
            self.left -= len(taken)
        return taken

    def room(self, ahead: int = 0) -> int:
        """Tell how large a file can be whose header stands so many bytes ahead."""
        return MOST if self.left is None else min(MOST, self.left - ahead - BLOCK)


def members(stream: BinaryIO) -> Iterator[Member | Lost]:
    """Read the files of a tar in their order, and between them what was lost.

    Raises:
        ValueError: the tar is compressed.
    """
    tape, name, size = Tape(stream), None, None
    start = tape.look(BLOCK)
    for magic, how in COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(f"it is compressed ({how}): unpack it")
    ended, begin = False, 0
    while block := tape.look(BLOCK):
        begin = tape.at if name is None and size is None else begin  # long names stand before the header
        ended = not any(block)
        if ended:
            tape.take(BLOCK)
            continue
        header = header_of(block, tape.room())
        if header is None or (size is not None and not 0 <= size <= tape.room()):
            name = size = None
            yield Lost(_to_next_header(tape))
            continue
        tape.take(BLOCK)
        count = 0 if header.type in EMPTY else header.size if size is None else size
        data = tape.take(count)
        tape.take(-count % BLOCK)
        if len(data) < count:
            yield Lost(BLOCK + len(data))
        elif header.type in LONG_NAME and count <= MOST_NAMES:
            name = data.rstrip(b"\0").decode("utf-8", "replace")
        elif header.type in PAX and count <= MOST_NAMES:
            name, size = _pax(data)
        elif header.type not in GLOBAL:
            if header.isreg():
                yield Member(name or header.name, data, begin, tape.at)
            name = size = None
    if not ended:
        yield Lost(0)


def header_of(block: bytes, room: int) -> tarfile.TarInfo | None:
    """Read a header.

    Args:
        block: 512 bytes.
        room: bytes that a file behind it can have.

    Returns:
        None if it is none, or claims more than there is.
    """
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError):
        return None
    return header if header.type in EMPTY or 0 <= header.size <= room else None


def _to_next_header(tape: Tape) -> int:
    """Take all up to the next header, or the end → how many bytes."""
    lost = 0
    while window := tape.look(WINDOW):
        at = MAGIC_AT  # the header at the start is no good
        while (at := window.find(MAGIC, at + 1)) >= 0:
            start = at - MAGIC_AT
            if header_of(window[start : start + BLOCK], tape.room(start)) is not None:
                tape.take(start)
                return lost + start
        # what may be the beginning of a header is looked at again
        lost += len(tape.take(WINDOW - BLOCK if len(window) == WINDOW else len(window)))
    return lost


def _pax(data: bytes) -> tuple[str | None, int | None]:
    """Read the name and the size that pax headers give to the file behind them."""
    found = dict(re.findall(rb"\d+ (path|size)=([^\n]*)\n", data))
    name, size = found.get(b"path"), found.get(b"size")
    # more digits than these are more than any file has
    count = None if size is None else int(size) if re.fullmatch(rb"\d{1,18}", size) else -1
    return None if name is None else name.decode("utf-8", "replace"), count


def _size(stream: BinaryIO) -> int | None:
    try:
        about = os.fstat(stream.fileno())
    except (OSError, AttributeError):
        return None
    return about.st_size - stream.tell() if stat.S_ISREG(about.st_mode) else None
