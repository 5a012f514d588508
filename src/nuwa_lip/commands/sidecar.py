"""Sidecars of results: a JSON file beside each, from which `nuwa-lip inpaint --from` makes it again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nuwa_lip
from nuwa_lip.commands.folder_jobs import Job
from nuwa_lip.disk import check_writable, from_json, read_object, write_json
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import STANDARD, keep_private

ONCE: dict[str, Any] = {"num": 1, "grid": False, "save_mask": False, "json": None}
ONCE |= {"sidecar": False, "manifest": False, "overwrite": False, "force": False, "cluster": False}
ONCE |= {"credential": None, "key": None}  # a signature is never made twice
"""What does not change a candidate's bytes, or says what to do with files."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Holds everything that a result was made from; names of files are relative to the sidecar."""

    result: str
    photo: str
    mask: str | None
    prompt: str
    options: dict[str, Any]
    sha256: dict[str, str]
    """Of the files result, photo and mask."""
    made_with: dict[str, Any]


def beside(result: Path) -> Path:
    """Name the sidecar of a result."""
    return result.with_name(f"{result.name}.json")


def check_sidecars(job: Job, results: list[Path], replaces: bool) -> None:
    """Find out before the work whether sidecars can be written.

    Args:
        job: whose photo and mask they will name.
        results: whose sidecars they are.
        replaces: they may exist.

    Raises:
        InputError: they cannot.
    """
    if STANDARD in (job.photo, job.mask, job.out):
        raise InputError(
            "--sidecar names the files that a result was made from: standard input and output have no name"
        )
    for path in map(beside, results):
        check_writable(path)
        if path.exists() and not replaces:
            raise InputError(f"{path} exists; give --overwrite to replace it")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_inputs(job: Job) -> dict[str, str]:
    """Hash the photo and the mask, before a result may take the place of one."""
    files = {"photo": job.photo, "mask": job.mask}
    return {name: hash_file(path) for name, path in files.items() if path is not None}


def write_sidecar(job: Job, result: Path, options: dict[str, Any], inputs: dict[str, str]) -> None:
    """Write what one result was made from.

    Args:
        job: its photo, mask and caption.
        result: its file, which is there already.
        options: of the command, with the result's own seed.
        inputs: `hash_inputs` of the job.
    """
    path = beside(result)

    def relative(other: Path) -> str:
        return os.path.relpath(other, path.parent)

    from nuwa_lip.hub import BUNDLED

    model = options["model"]
    local = model not in BUNDLED and os.path.exists(model)
    sidecar = Sidecar(
        result=result.name,
        photo=relative(job.photo),
        mask=None if job.mask is None else relative(job.mask),
        prompt=job.prompt,
        options=options | ONCE | {"model": os.path.abspath(model) if local else model},
        sha256={"result": hash_file(result), **inputs},
        made_with=made_with(),
    )
    write_json(path, asdict(sidecar))
    keep_private(path, job.photo)


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar.

    Raises:
        InputError: it is none.
    """
    return from_json(Sidecar, read_object(path), str(path))


def made_with() -> dict[str, Any]:
    """Say what else bytes depend on."""
    import torch

    return {"nuwa-lip": nuwa_lip.__version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
