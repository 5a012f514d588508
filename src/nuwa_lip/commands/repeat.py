"""`nuwa-lip inpaint --from`: a result made again from its sidecar, to the byte on the same machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nuwa_lip.commands.folder_jobs import Job
from nuwa_lip.commands.inpaint import repaint_one
from nuwa_lip.commands.inpaint_options import Options
from nuwa_lip.commands.options import Operand, OptionalOut
from nuwa_lip.commands.sidecar import ONCE, hash_file, made_with, read_sidecar
from nuwa_lip.disk import from_json
from nuwa_lip.errors import InputError


def repeat(
    sidecar: Operand,
    /,
    *,
    out: OptionalOut = None,
    overwrite: bool = False,
) -> None:
    """Make a result again from the sidecar that `inpaint --sidecar` has written; the exit code is 1 if bytes differ.

    Example: nuwa-lip inpaint --from result.png.json -o again.png

    Args:
        sidecar: Written by `inpaint --sidecar`.
        out: Result, of the same ending; by default where it was.
        overwrite: Replace a result that exists.
    """
    made = read_sidecar(sidecar)
    options = from_json(Options, made.options, f"{sidecar}: options")
    options = replace(options, **(ONCE | {"overwrite": overwrite}))  # a stranger's names no other files to write
    out = sidecar.parent / Path(made.result).name if out is None else out
    if out.suffix.lower() != Path(made.result).suffix.lower():
        raise InputError(f"{out} would have other bytes than {made.result}: give it the same ending")
    photo, mask = sidecar.parent / made.photo, None if made.mask is None else sidecar.parent / made.mask
    for name, path in (("photo", photo), ("mask", mask)):
        if path is not None and not path.is_file():
            raise InputError(f"there is no file {path}, the {name} of {sidecar}")
        if path is not None and hash_file(path) != made.sha256.get(name):
            raise InputError(f"{path} is not the {name} that it was when {sidecar} was written")
    repaint_one(Job(photo=photo, mask=mask, prompt=made.prompt, out=out), options)
    if hash_file(out) != made.sha256.get("result"):
        raise OtherBytesError(f"{out} is not what it was: made with {made.made_with}, here with {made_with()}")
    print("the same bytes as before")


class OtherBytesError(Exception):
    """A result came out differently."""
