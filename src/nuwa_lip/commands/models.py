"""`nuwa-lip models` and `nuwa-lip pull`: which models are at hand or known by name, and fetching one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import tyro

from nuwa_lip.disk import escaped, read_object
from nuwa_lip.errors import InputError
from nuwa_lip.hub import BUNDLED, MODEL_FILES, at_hand, fetch, resolve
from nuwa_lip.painters.folders import INDEX, kind_of
from nuwa_lip.painters.known import COPIES, KNOWN, TOKENIZERS, WHOLE, Known, find_known

CONFIG = "config.json"
OTHERS = KNOWN | TOKENIZERS
WEIGHTS = (".safetensors", ".onnx", ".pt", ".bin")


def models(*, known: bool = False, json: bool = False) -> None:
    """List the models that can be used at once: those that come with the package, and those in the hub's cache.

    Any folder that `train mps2s` has written can be used too, by its path. With --known those of others follow that
    `nuwa-lip pull` fetches by name: painters, erasers, and tokenizers for `nuwa-lip convert`.

    Example: nuwa-lip models --known

    Args:
        known: List the models of others too, with licence, size and needs.
        json: As JSON, for programs.
    """
    others, cached = OTHERS if known else {}, snapshots()
    if json:
        listed: list[dict[str, Any]] = [
            {"name": name, "where": where, "folder": str(folder)} for name, where, folder in found(cached)
        ]
        for short, one in others.items():
            fields = {"id": one.id, "licence": one.licence, "size": one.size, "needs": one.needs}
            listed.append({"name": short, "where": state(one, cached), "use": use(short), **fields})
        print(dumps(listed))
        return
    for name, where, folder in found(cached):
        print(f"{escaped(name)}  {where}, {described(folder)}")
    for short, one in others.items():
        print(f"{short}  {state(one, cached)}, {use(short)}, {one.id}, {one.licence}, {one.size}; needs {one.needs}")


def pull(
    name: Annotated[str, tyro.conf.Positional],
    /,
) -> None:
    """Fetch a model of the Hugging Face hub into its cache; from then on it needs no network.

    Its licence is shown first. What was fetched in part is gone on with, and every file is checked by its hash.

    Example: nuwa-lip pull organisation/name

    Example: nuwa-lip pull migan

    Args:
        name: Hub id of the model (one of NÜWA-LIP's kind, or a pipeline of diffusers), or a short name of those that
            `nuwa-lip models --known` lists.
    """
    one = find_known(name, OTHERS)
    here = at_hand(name) if one is None else None
    if here is not None:
        print(f"{escaped(name)} is here already: {described(here)}")
        return
    if one is not None:
        return pull_known(one)
    head = fetch(name, ["README.md", CONFIG, INDEX])
    print(f"{escaped(name)}: licence {licence_of(head)}, as its card says", flush=True)
    if is_model(head):
        print(f"{escaped(name)}: {described(fetch(name, MODEL_FILES))}")
    elif (head / INDEX).is_file():
        print(f"{escaped(name)}: {kind_of(head)} of diffusers, {fetch(name, WHOLE, COPIES)}")
    else:
        raise InputError(
            f"{name} is neither a NÜWA-LIP model, whose {CONFIG} has a dfvqgan, nor a pipeline of diffusers, which has "
            f"a {INDEX}: its weights were not fetched"
        )


def pull_known(one: Known) -> None:
    """Show the licence of a known model, and fetch it.

    Raises:
        InputError: it cannot be fetched; the line says what to put where.
    """
    print(f"{one.id}: licence {one.licence}, see {one.address}", flush=True)
    print(f"{one.size}; needs {one.needs}", flush=True)
    try:
        folder = fetch(one.id, one.patterns, COPIES)
    except InputError as error:
        raise InputError(
            f"{error}. What is missing: {', '.join(one.patterns)} of {one.address}. On a machine with network 'hf "
            f"download {one.id} --local-dir FOLDER' fetches them, after its licence is accepted there if it asks for "
            "that; copy FOLDER here and give its path in place of the name"
        ) from error
    print(f"{one.id}: {folder}")


def use(short: str) -> str:
    """Say what a known model is for."""
    if short in TOKENIZERS:
        return "tokenizer"
    return "painter" if KNOWN[short].file is None else "eraser"


def state(one: Known, cached: Mapping[str, Path]) -> str:
    """Tell whether a known model is among the repositories of the cache, with a file of weights."""
    paths = cached[one.id].rglob("*") if one.id in cached else ()
    names = [path.name for path in paths if path.suffix in WEIGHTS and path.is_file()]
    wanted = [pattern.rsplit("/", 1)[-1] for pattern in one.patterns]
    return "cached" if any(fnmatch(name, pattern) for name in names for pattern in wanted) else "to be fetched"


def licence_of(folder: Path) -> str:
    """Read the licence that a model card states at its head."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    stated = re.search(r"^license(?:_name)?:\s*['\"]?([^\s'\"#]+)", head, flags=re.MULTILINE)
    return escaped(stated[1]) if stated else "not stated"


def found(cached: Mapping[str, Path]) -> Iterator[tuple[str, str, Path]]:
    """Yield name, "bundled" or "cached", and folder of every model of ours at hand; `cached`: of `snapshots`."""
    for name in BUNDLED:
        yield name, "bundled", resolve(name)
    for name, folder in cached.items():
        if is_model(folder):
            yield name, "cached", folder


def snapshots() -> dict[str, Path]:
    """Find the newest state of every model in the hub's cache, by their ids."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return {}
    newest = {}
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        if repository.repo_type == "model" and repository.revisions:
            newest[repository.repo_id] = max(repository.revisions, key=lambda one: one.last_modified).snapshot_path
    return newest


def is_model(folder: Path) -> bool:
    """Tell whether a folder's config.json is one of ours."""
    try:
        return "dfvqgan" in read_object(folder / CONFIG)
    except InputError:
        return False


def described(folder: Path) -> str:
    """Say how large a model is, and what of."""
    config = read_object(folder / CONFIG)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
    side = config["dfvqgan"].get("resolution", "?")
    stage = "" if config.get("mps2s") else ", first stage only"
    return f"{side} x {side} pixels, {size:.0f} MB{stage}, {folder}"
