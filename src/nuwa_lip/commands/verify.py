"""`nuwa-lip verify`: what a picture says of its repainting, and what of its original was changed, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.disk import escaped
from nuwa_lip.errors import InputError
from nuwa_lip.images.compare import differences, region
from nuwa_lip.images.credentials import read_credential
from nuwa_lip.images.files import read_image, read_photo
from nuwa_lip.images.hole import read_hole
from nuwa_lip.images.photo import Photo
from nuwa_lip.images.provenance import hash_known, read_statement, source_type


def verify(
    result: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    original: Path | None = None,
    mask: Path | None = None,
    invert: bool = False,
    trust: Path | None = None,
) -> None:
    """Compare a result with its original, pixel by pixel, and say what is not the same.

    With a mask (or an original with a transparent region) nothing outside of it may differ; else the exit code is 1.
    Without the original, say what the file states of its repainting; the exit code is 1 if that is nothing, or if the
    pixels outside the mask are not those that it states. The signature of a Content Credential is checked in any case.

    Example: nuwa-lip verify result.png --original photo.jpg --mask mask.png

    Example: nuwa-lip verify result.png

    Args:
        result: The repainted photo.
        original: The photo that it was made from; without it the result's own statement is read.
        mask: What was to be repainted, as it was given to inpaint.
        invert: Black in the mask was to be repainted.
        trust: Certificates that you trust to vouch for signers, PEM.
    """
    after = read_photo(result)
    signed = _check_signature(result, trust)
    if original is None:
        return _read(result, after, mask, invert, signed)
    before = read_photo(original)
    changed = differences(before, after)
    height, width = changed.shape
    found = f"{changed.sum()} of {changed.size} pixels differ"
    box = region(changed)
    print(f"{width}x{height} {before.mode}: {found}" + (f", all within {box}" if box else ""))
    transparent = before.alpha is not None and bool((before.alpha < before.scale / 2).any())
    if mask is None and not transparent:
        return
    hole = read_hole(None if mask is None else read_image(mask), before, invert=invert).mask
    outside = changed & ~hole
    print(f"outside the hole: {outside.sum()} of {(~hole).sum()} pixels changed")
    if outside.any():
        raise ChangedOutsideError(f"{result} differs from {original} outside the hole, at {region(outside)}")


def _check_signature(path: Path, trust: Path | None) -> bool:
    """Say what the credential of a picture is worth, if it carries one."""
    try:
        credential = read_credential(path, trust)
    except InputError as error:
        if trust is not None:
            raise
        print(f"it carries a Content Credential, which was not checked: {error}")
        return False
    if credential is None:
        if trust is not None:
            raise NothingStatedError(f"{path} carries no Content Credential")
        return False
    if credential.state == "Invalid" or (trust is not None and credential.state != "Trusted"):
        wrong = ", ".join(credential.problems) or f"nobody in {trust} vouches for {credential.signer}"
        raise BrokenSignatureError(f"{path}: the signature of its Content Credential does not hold: {wrong}")
    known = "trusted" if credential.state == "Trusted" else "the name is not vouched for: --trust ROOTS.pem checks it"
    print(f"{escaped(path)}: signature of its Content Credential holds: {escaped(credential.signer)} ({known})")
    for place in credential.edited:
        print(f"it states to be edited within {escaped(place)}")
    return True


def _read(path: Path, photo: Photo, mask: Path | None, invert: bool, signed: bool) -> None:
    """Say what a picture states of itself, and compare its pixels outside the mask with the hash that it states."""
    statement, source = read_statement(photo.info), source_type(photo.info.get("xmp", b""))
    if statement is None and source is None and not signed:
        raise NothingStatedError(f"{path} states nothing of its origin, which proves nothing: anybody can cut it out")
    if source is not None:
        print(f"{escaped(path)}: IPTC digital source type {escaped(str(source).rpartition('/')[-1])}")
    if statement is not None:
        print(f"it states to be repainted by {escaped(statement.model)}, seed {statement.seed}")
        print(f"known pixels of its original: SHA-256 {escaped(statement.known)}")
    if mask is None:
        return
    if statement is None:
        raise InputError(f"{path} does not state what its known pixels were: give --original to compare them")
    if hash_known(photo, read_hole(read_image(mask), photo, invert=invert).mask) != statement.known:
        raise ChangedOutsideError(
            f"{path} does not have the pixels outside the hole that it states, or {mask} is not its mask; "
            "a JPEG never has them"
        )
    print("outside the hole: all pixels are as stated")


class NothingStatedError(Exception):
    """A picture does not say where it comes from."""


class BrokenSignatureError(Exception):
    """A signature does not fit its picture, or nobody who is trusted vouches for it."""


class ChangedOutsideError(Exception):
    """Known pixels are not what they were."""
