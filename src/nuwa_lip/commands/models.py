"""`nuwa-lip models` and `nuwa-lip pull`: which models are at hand, and fetching one."""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.disk import escaped, read_object
from nuwa_lip.errors import InputError
from nuwa_lip.hub import BUNDLED, resolve


def models(*, json: bool = False) -> None:
    """List the models that can be used at once: those that come with the package, and those in the hub's cache.

    Any folder that `train mps2s` has written can be used too, by its path.

    Example: nuwa-lip models --json

    Args:
        json: As JSON, for programs.
    """
    if json:
        print(dumps([{"name": name, "where": where, "folder": str(folder)} for name, where, folder in found()]))
        return
    for name, where, folder in found():
        print(f"{escaped(name)}  {where}, {described(folder)}")


def pull(
    name: Annotated[str, tyro.conf.Positional],
    /,
) -> None:
    """Fetch a model of the Hugging Face hub into its cache; from then on it needs no network.

    Example: nuwa-lip pull organisation/name

    Args:
        name: Hub id of the model.
    """
    if name in BUNDLED or Path(name).is_dir():
        print(f"{escaped(name)} is here already: {described(resolve(name))}")
        return
    folder = resolve(name)
    if not is_model(folder):
        raise InputError(f"{name} is no NÜWA-LIP model: its config.json has no dfvqgan; it stays in the cache, unused")
    print(f"{escaped(name)}: {described(folder)}")


def found() -> Iterator[tuple[str, str, Path]]:
    """Yield name, "bundled" or "cached", and folder of every model at hand."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    for name in BUNDLED:
        yield name, "bundled", resolve(name)
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        newest = sorted(repository.revisions, key=lambda one: one.last_modified, reverse=True)
        if repository.repo_type == "model" and newest and is_model(newest[0].snapshot_path):
            yield repository.repo_id, "cached", newest[0].snapshot_path


def is_model(folder: Path) -> bool:
    """Tell whether a folder's config.json is one of ours."""
    try:
        return "dfvqgan" in read_object(folder / "config.json")
    except InputError:
        return False


def described(folder: Path) -> str:
    """Say how large a model is, and what of."""
    config = read_object(folder / "config.json")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
    side = config["dfvqgan"].get("resolution", "?")
    stage = "" if config.get("mps2s") else ", first stage only"
    return f"{side} x {side} pixels, {size:.0f} MB{stage}, {folder}"
