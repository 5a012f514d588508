"""Shards that lie elsewhere: on a web server, or in an object store (fsspec).

A shard is fetched whole before anything of it is read, so that a connection that breaks is tried again from the start
and no sample comes twice. A server that says nothing for `STALLED` seconds counts as broken.
"""

import re
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import webdataset as wds

from nuwa_lip.disk import regular
from nuwa_lip.errors import InputError, first_line

STALLED = 30.0
"""Seconds without a byte after which a connection is given up."""
PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further try."""
IN_MEMORY = 2**27
"""Bytes of a shard that are held in memory; a larger one goes to a temporary file."""
CHUNK = 2**20
WEB = ("http", "https")
STORES = ("s3", "gs", "gcs", "az", "abfs", "hf", "memory")
"""Of fsspec."""
URL = re.compile(r"([a-z][a-z0-9+.-]+):(//)?")


def fetch(address: str) -> BinaryIO:
    """Fetch a file, in several tries.

    Args:
        address: http, https, or what fsspec knows (s3, gs, hf, ...).

    Raises:
        OSError: the last try has failed, too; the message says why.
    """
    why: Exception
    for pause in (*PAUSES, None):
        try:
            return _fetch(address)
        except FileNotFoundError:
            raise
        except urllib.error.HTTPError as error:
            if 400 <= error.code < 500 and error.code not in (408, 429):  # it will not be there the next time either
                raise OSError(f"the server says {error.code} {error.reason}") from error
            why = error
        except Exception as error:  # stores raise anything
            why = error
        if pause is not None:
            time.sleep(pause)
    raise OSError(f"given up after {len(PAUSES) + 1} tries: {first_line(why)}") from why


def _fetch(address: str) -> BinaryIO:
    scheme = address.split(":", 1)[0]
    held = cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY))
    try:
        with closing(_open(scheme, address)) as stream:
            wanted = getattr(stream, "length", None)  # of a web server's answer: what is still to come
            while chunk := stream.read(CHUNK):
                held.write(chunk)
        if isinstance(wanted, int) and held.tell() < wanted:
            raise OSError(f"it broke off after {held.tell()} of {wanted} bytes")
        held.seek(0)
        return held
    except BaseException:
        held.close()
        raise


def _open(scheme: str, address: str) -> Any:
    if scheme in WEB:
        return urllib.request.urlopen(address, timeout=STALLED)
    import fsspec  # type: ignore[import-untyped]

    return fsspec.open(address, "rb").open()


def check_scheme(scheme: str) -> bool:
    """Tell whether files are fetched from such addresses here.

    Raises:
        InputError: they would be, but its package is not installed.
    """
    if scheme in STORES:
        import fsspec  # type: ignore[import-untyped]

        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise InputError(f"{scheme}:// is not to be read yet: {first_line(error)}") from error
    return scheme in (*WEB, *STORES)


def open_shard(shard: str) -> BinaryIO:
    """Open a file of this machine, or of another one.

    Raises:
        OSError: it is not there, or cannot be fetched.
        InputError: it is a folder, a pipe or the like.
    """
    scheme = URL.match(shard)
    if not scheme or Path(shard).exists():
        return open(regular(Path(shard)), "rb")
    return fetch(shard) if check_scheme(scheme[1]) else wds.gopen(shard)
