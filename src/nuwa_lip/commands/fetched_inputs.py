"""Photos in WebDataset shards or in an object store: fetched beside their results, they are a folder like any other.

What a command fetched stays there: every machine that repaints sees it, a command that goes on fetches nothing again,
and `verify` and `repeat` find what was repainted. The folder appears when it is whole.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from shutil import copyfileobj
from typing import Any, NamedTuple

from nuwa_lip.data.tars import Lost, members
from nuwa_lip.disk import lines_of, make_folder, parse_json, read_text, write_json, write_text, written_folder
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images.files import readable_endings

INPUTS, MASKS = "inputs", "masks"
"""Folders of what was fetched, in that of the results."""
SOURCE, CAPTIONS = ".source", ".captions.json"
"""In these folders: whence it was fetched, and the captions of shards."""
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")
"""An address as a `Path` has it, which makes one slash of two."""
TOGETHER = 16
"""Files of a store that are fetched at a time."""


class Inputs(NamedTuple):
    """What a folder of photos is repainted from."""

    photos: Path
    mask: Path | None
    prompt: str


def place_of(path: Path | None) -> str | None:
    """Return the shards or the address that a path stands for; None: a file or folder of this machine."""
    if path is None:
        return None
    if found := ADDRESS.fullmatch(str(path)):
        return f"{found[1]}://{found[2]}"
    return str(path) if path.suffix == ".tar" else None


def fetch_inputs(photos: Path, mask: Path | None, prompt: str, out: Path, *, drawn: bool = False) -> Inputs:
    """Fetch photos and masks that are not in folders of this machine.

    Args:
        photos: a folder; or shards (.tar: a file, a pattern, an address), or the address of a store's folder.
        mask: as for `plan`, or another such place. Without it, the masks that lie beside the photos, if there are any.
        prompt: as for `plan`; the name of the shards again: the captions in them.
        out: folder for the results.
        drawn: the hole is drawn, so that masks beside the photos are not for this command.

    Raises:
        InputError: it cannot be fetched, or what was fetched is from elsewhere.
    """
    place, mask_place = place_of(photos), place_of(mask)
    if mask_place is not None:
        mask = fetched(mask_place, out / MASKS)
    if place is None:
        return Inputs(photos, mask, prompt)
    folder = fetched(place, out / INPUTS)
    if mask is None and not drawn and any(folder.glob("*_mask.*")):
        mask = folder
    if prompt == str(photos) or place_of(Path(prompt)) == place:
        prompt = str(folder / CAPTIONS)
    return Inputs(folder, mask, prompt)


def fetched(place: str, folder: Path) -> Path:
    """Fetch pictures and captions into a folder, unless they are there → the folder.

    Args:
        place: shards or the address of a folder.
        folder: where to.

    Raises:
        InputError: something cannot be fetched, two pictures have one name, or the folder is of another place.
    """
    if folder.is_dir():
        source = folder / SOURCE
        if not source.is_file() or read_text(source) != place:
            raise InputError(f"{folder} holds what was fetched from elsewhere than {place}: choose another -o")
        return folder
    with written_folder(folder, replace=False) as part:
        make_folder(part)
        if place.endswith(".tar"):
            _unpack(place, part)
        else:
            _copy(place, part)
        write_text(part / SOURCE, place)
    return folder


def _unpack(place: str, folder: Path) -> None:
    """Write the pictures of shards into a folder, and the captions beside them into one file."""
    from nuwa_lip.data.shards import expand_shards  # webdataset takes a second

    captions: dict[str, str] = {}
    for shard in expand_shards(place):
        try:
            for name, data in _members(shard):
                path = folder / _flat(name)
                if path.suffix.lower() in readable_endings():
                    if path.exists():
                        raise InputError(f"{shard}: a second {path.name}; give each photo a name of its own")
                    path.write_bytes(data)
                elif path.suffix in (".json", ".txt") and (caption := _caption(path.suffix, data)):
                    captions.setdefault(path.stem, caption)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{shard} cannot be read: {first_line(error)}") from error
    write_json(folder / CAPTIONS, captions)


def _members(shard: str) -> Iterator[tuple[str, bytes]]:
    """Read the names and contents of a shard's files."""
    from nuwa_lip.data.remote import open_shard

    lost = 0
    with closing(open_shard(shard)) as stream:
        for member in members(stream):
            if isinstance(member, Lost):
                lost += 1
                continue
            yield member.name, member.data
    if lost:
        warnings.warn(f"{shard} is damaged in {lost} places: what is left of it is repainted", stacklevel=2)


def _copy(place: str, folder: Path) -> None:
    """Write the pictures of a store's folder into one of this machine, several at a time."""
    from nuwa_lip.data.remote import STORES, check_scheme, fetch

    scheme = place.split(":", 1)[0]
    if scheme not in STORES or not check_scheme(scheme):
        raise InputError(f"{place} is no folder that can be listed: give {'://, '.join(STORES)}://, or shards (.tar)")
    import fsspec  # type: ignore[import-untyped]

    try:
        store, root = fsspec.core.url_to_fs(place)
        names: list[Any] = sorted(store.ls(root, detail=False))
    except Exception as error:  # stores raise anything
        raise InputError(f"{place} cannot be listed: {first_line(error)}") from error
    pictures = [name for name in names if Path(name).suffix.lower() in readable_endings()]

    def one(name: str) -> None:
        with fetch(store.unstrip_protocol(name)) as source, open(folder / _flat(Path(name).name), "xb") as file:
            copyfileobj(source, file)

    with ThreadPoolExecutor(TOGETHER) as pool:
        try:
            for _ in pool.map(one, pictures):
                pass
        except FileExistsError as error:
            raise InputError(f"{place}: two masks of one photo would be {Path(error.filename).name}") from error
        except OSError as error:
            raise InputError(f"{place} cannot be fetched: {first_line(error)}") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _flat(name: str) -> str:
    """Make one file name of a member's path; NAME.mask.png is NAME_mask.png."""
    return re.sub(r"\.mask(?=\.\w+$)", "_mask", re.sub(r"[^\w. -]+", "-", name.lstrip("./")))


def _caption(ending: str, data: bytes) -> str:
    """Take the first caption of a sample, "" if there is none: text, or JSON with `captions` or `caption`."""
    try:
        text = data.decode("utf-8")
        fields = parse_json(text) if ending == ".json" else {"caption": next(iter(lines_of(text)), "")}
    except ValueError:
        return ""
    values = [fields.get(name) for name in ("captions", "caption")] if isinstance(fields, dict) else []
    firsts = [value[0] if isinstance(value, list) and value else value for value in values]
    return next((value for value in firsts if isinstance(value, str) and value), "")
