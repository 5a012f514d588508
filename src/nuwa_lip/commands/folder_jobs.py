"""Folder jobs: photos, each with its mask, caption and result, and where the results go."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nuwa_lip.commands.captions import caption_for, is_captions_file, read_captions
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import readable_endings

MASK_ENDS = ("_mask", "-mask")
SHOWN = 10  # names of files that are passed over


@dataclass(frozen=True, kw_only=True)
class Job:
    """Holds the names of one photo to repaint and of what goes with it."""

    photo: Path
    mask: Path | None
    """None: the photo's transparent part."""
    prompt: str
    out: Path


class UnplannedError(InputError):
    """Says why there is no job for a photo."""

    def __init__(self, photo: Path, problem: str) -> None:
        super().__init__(f"{photo}: {problem}")
        self.photo = photo


def plan(photos: Path, mask: Path | None, prompt: str, out: Path) -> list[Job | InputError]:
    """List the jobs for a folder of photos in the order of their names; for one that cannot be done, the reason.

    Args:
        photos: folder of photos.
        mask: a folder with a mask for each photo, of the same stem or one that ends in `_mask` or `-mask`; one mask for
            all; or None. It may be the folder of the photos, where masks are those that end so.
        prompt: one caption for all, or a captions file.
        out: folder for the results, which are called STEM.png.

    Raises:
        InputError: none of them can be done.
    """
    files = _pictures(photos)
    if not files:
        raise InputError(f"there are no photos in {photos}")
    if mask is not None and not mask.exists():
        raise InputError(f"there is no file or folder {mask}")
    captions = read_captions(Path(prompt)) if is_captions_file(prompt) else None
    masks: dict[str, list[Path]] | None = None
    if mask is not None and mask.is_dir():
        here = mask.samefile(photos)  # masks beside their photos are told by their names
        masks = _masks(photos if here else mask, here)
        files = [path for path in files if not here or path not in {m for own in masks.values() for m in own}]
    jobs: list[Job | InputError] = []
    seen: dict[str, Path] = {}
    for photo in files:
        caption = prompt if captions is None else caption_for(photo, captions)
        own_masks = [mask] if masks is None else masks.get(same_name(photo.stem), [])
        first = seen.setdefault(same_name(photo.stem), photo)
        if first is not photo:
            problem = f"its result would replace that of {first.name}; rename one of them"
        elif caption is None:
            problem = f"there is no caption for it in {prompt}"
        elif not own_masks:
            problem = f"there is no mask {photo.stem}.* in {mask}"
        elif len(own_masks) > 1:
            names = " and ".join(path.name for path in own_masks if path)
            problem = f"it has several masks in {mask}, {names}; leave one of them"
        else:
            jobs.append(Job(photo=photo, mask=own_masks[0], prompt=caption, out=out / f"{photo.stem}.png"))
            continue
        jobs.append(UnplannedError(photo, problem))
    return jobs


def same_name(name: str) -> str:
    """Return one form of a name, whose accents may be letters of their own or not, as on a Mac's disk."""
    return unicodedata.normalize("NFC", name)


def _masks(folder: Path, beside: bool) -> dict[str, list[Path]]:
    """Find masks by the stem of their photo; `beside` photos only those whose names say what they are."""
    plain: dict[str, list[Path]] = {}
    marked: dict[str, list[Path]] = {}
    files = _pictures(folder)
    stems = {same_name(path.stem) for path in files}
    for path in files:
        stem = same_name(path.stem)
        name = next((stem.removesuffix(end) for end in MASK_ENDS if stem.endswith(end)), None)
        plain.setdefault(stem, []).append(path)
        if name and (not beside or name in stems):
            marked.setdefault(name, []).append(path)
    return marked if beside else marked | plain


def _pictures(folder: Path) -> list[Path]:
    """List the picture files in a folder by name, without hidden ones; a warning names what else there is."""
    try:
        files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and not path.is_dir()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {(error.strerror or str(error)).lower()}") from error
    endings = readable_endings()
    others = [path.name for path in files if path.suffix.lower() not in endings]
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        names = ", ".join(others[:SHOWN]) + more
        warnings.warn(
            f"{folder}: passed over, for their endings are of no picture that can be read: {names}", stacklevel=3
        )
    return [path for path in files if path.suffix.lower() in endings]


def check_names(jobs: Sequence[tuple[Job, Sequence[Path]]]) -> None:
    """Find out before the work whether a file to be written is an input, or is written for another job too.

    The name that the user gave, OUT itself, may replace the job's own photo and mask.

    Args:
        jobs: each with the files that it writes.

    Raises:
        InputError: one of the names is taken.
    """
    readers = {os.path.realpath(path): job for job, _ in jobs for path in (job.mask, job.photo) if path is not None}
    writers: dict[str, Job] = {}
    for job, names in jobs:
        for name in names:
            path = os.path.realpath(name)  # which takes links to themselves as they are
            reader, writer = readers.get(path, job), writers.setdefault(path, job)
            if reader is not job or (path in readers and name != job.out):
                raise InputError(f"{name}, to be written for {job.photo}, is an input; rename it, or choose another -o")
            if writer is not job:
                raise InputError(f"{name} would be written for {writer.photo} and for {job.photo}; rename one of them")


@contextmanager
def results_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and those above it; at the end, those that are new and still empty are removed.

    Raises:
        InputError: it cannot be made.
    """
    made: list[Path] = []
    try:
        try:
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder} is a file; the results of a folder need a folder")
            for path in reversed([folder, *folder.parents]):
                if not path.exists():
                    path.mkdir()
                    made.append(path)
        except OSError as error:
            raise InputError(f"cannot make the folder {folder}: {(error.strerror or '?').lower()}") from error
        yield
    finally:
        with suppress(OSError):  # one that is not empty
            for path in reversed(made):
                path.rmdir()
