"""The names of what `nuwa-lip inpaint` writes for one photo."""

from __future__ import annotations

from pathlib import Path

from nuwa_lip.commands.folder_jobs import Job
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import STANDARD


def pictures_of(job: Job, num: int, *, grid: bool, save_mask: bool) -> list[Path]:
    """Name the pictures that a job writes.

    Args:
        job: what is repainted.
        num: of candidates.
        grid: a sheet takes the name OUT itself.
        save_mask: the mask is written, too.

    Raises:
        InputError: OUT, from which their names are made, has no name itself, or takes one picture only.
    """
    if not job.out.name:
        raise InputError(f"cannot write {job.out}: it is a folder; name a file in it")
    if job.out == STANDARD and (num > 1 or grid or save_mask):
        raise InputError("standard output takes one picture: name a file, or leave out -n, --grid and --save-mask")
    if num == 1 and not grid:
        return [job.out]
    return [job.out.with_stem(f"{job.out.stem}-{i}") for i in range(1, num + 1)]


def mask_of(job: Job) -> Path:
    """Name the mask that a job writes."""
    return job.out.with_name(f"{job.out.stem}-mask.png")
