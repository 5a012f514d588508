"""Folder jobs: photos, each with its mask, caption and result, and where the results go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nuwa_lip.commands.captions import caption_for, is_captions_file, read_captions
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import readable_endings


@dataclass(frozen=True, kw_only=True)
class Job:
    """Holds the names of one photo to repaint and of what goes with it."""

    photo: Path
    mask: Path | None
    """None: the photo's transparent part."""
    prompt: str
    out: Path


def plan(photos: Path, mask: Path | None, prompt: str, out: Path) -> list[Job | InputError]:
    """List the jobs for a folder of photos in the order of their names; for one that cannot be done, the reason.

    Args:
        photos: folder of photos.
        mask: a folder with a mask of the same stem for each photo, one mask for all, or None.
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
        masks = {}
        for path in _pictures(mask):
            masks.setdefault(path.stem, []).append(path)
    jobs: list[Job | InputError] = []
    seen: dict[str, Path] = {}
    for photo in files:
        caption = prompt if captions is None else caption_for(photo, captions)
        own_masks = [mask] if masks is None else masks.get(photo.stem, [])
        first = seen.setdefault(photo.stem, photo)
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
        jobs.append(InputError(f"{photo}: {problem}"))
    return jobs


def _pictures(folder: Path) -> list[Path]:
    """List the picture files in a folder by name, without hidden ones."""
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {(error.strerror or str(error)).lower()}") from error
    endings = readable_endings()
    return [path for path in files if path.suffix.lower() in endings and not path.name.startswith(".")]


def check_names(jobs: Sequence[tuple[Job, Sequence[Path]]]) -> None:
    """Find out before the work whether a file to be written is an input, or is written for another job too.

    The name that the user gave, OUT itself, may replace the job's own photo and mask.

    Args:
        jobs: each with the files that it writes.

    Raises:
        InputError: one of the names is taken.
    """
    readers = {path.resolve(): job for job, _ in jobs for path in (job.mask, job.photo) if path is not None}
    writers: dict[Path, Job] = {}
    for job, names in jobs:
        for name in names:
            path = name.resolve()
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
