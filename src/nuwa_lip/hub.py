"""Model folders: the only place that reads or writes them, and the only one that may touch the network.

    config.json            {"format_version": 1, "dfvqgan": {...}, "mps2s": {...} | null, "sampling": {...}}
    dfvqgan.safetensors    or, split, dfvqgan-00001-of-0000N.safetensors and dfvqgan.safetensors.index.json
    mps2s.safetensors      the same; missing after stage 1
    tokenizer.json         missing after stage 1
    README.md              the model card, if there is one

Weights are memory-mapped when they are read, so that loading costs no second copy of them.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from nuwa_lip.assets import asset
from nuwa_lip.disk import from_json, make_folder, read_object, temporary_folder, write_json, write_text
from nuwa_lip.disk.hashes import check_hashes
from nuwa_lip.disk.tensors import read_tensors
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.fast import speed_up
from nuwa_lip.models import DFVQGAN, MPS2S, DFVQGANConfig, MPS2SConfig
from nuwa_lip.models.uninitialised import Uninitialised
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer

BUNDLED = ("nuwa-lip-mini",)
FORMAT_VERSION = 1
MODEL_FILES = ("*.safetensors", "*.json", "README.md")
HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
"""organisation/name"""
REPLACED = ("dfvqgan*.safetensors*", "mps2s*.safetensors*", "tokenizer.json")
"""Files of an earlier model, perhaps split otherwise, that must not stay where another one is put."""

Model = TypeVar("Model", bound=nn.Module)


class ModelParts(NamedTuple):
    """What a model folder holds; after stage 1 there is only the first."""

    dfvqgan: DFVQGAN
    mps2s: MPS2S | None
    tokenizer: CaptionTokenizer | None
    sampling: Sampling
    card: str | None
    """README.md, which carries the licence wherever the model goes."""


def resolve(name: str | Path) -> Path:
    """Find the folder of a bundled model, a local folder, or one in the hub's cache; nothing is fetched.

    Raises:
        InputError: there is no such model, or it must be fetched first (`fetch`, `nuwa-lip pull`).
    """
    if (folder := at_hand(name)) is not None:
        return folder
    config = cached(str(name), "config.json")
    if config is None:
        raise InputError(
            f"model {str(name)!r} is not in the hub's cache: fetch it by 'nuwa-lip pull {name}', or give a folder"
        )
    return config.parent


def at_hand(name: str | Path) -> Path | None:
    """Find the folder of a bundled model or a local folder; None for a hub id.

    Raises:
        InputError: it is none of these.
    """
    if name in BUNDLED:
        return asset(str(name))
    path = Path(name)
    if str(name) and path.is_dir():
        return path
    local = path.exists() or path.parent != Path(".") and path.parent.is_dir()
    if local or not re.fullmatch(HUB_ID, str(name)):
        raise InputError(
            f"there is no model {str(name)!r}: give a bundled name ({', '.join(BUNDLED)}), a model folder, "
            "or a hub id like organisation/name"
        )
    return None


def cached(repo_id: str, filename: str) -> Path | None:
    """Find a file of the hub that is in the local cache already; None if it is not."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo_id, filename)
    return Path(path) if isinstance(path, str) else None


def download_file(url: str, path: Path, sha256: str) -> Path:
    """Fetch one published file; `path` appears once it is whole, and is returned.

    Args:
        url: its address.
        path: where to put it.
        sha256: how its hash begins.

    Raises:
        InputError: it cannot be fetched, or is another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256)
    except Exception as error:  # of the network in any form, or of the hash
        raise InputError(f"{url} could not be downloaded as {path}: {first_line(error)}") from error
    return path


def fetch(repo_id: str, files: Iterable[str], but: Iterable[str] = ()) -> Path:
    """Fetch files of a repository into the hub's cache, going on where an earlier fetch stopped → their folder.

    Args:
        repo_id: "organisation/name".
        files, but: patterns of what to fetch, and of what of these to leave.

    Raises:
        InputError: they cannot be fetched, or are not what the hub names.
    """
    from huggingface_hub import snapshot_download

    without: dict[str, Any] = {"ignore_patterns": [*but]} if but else {}
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=[*files], **without))
    except Exception as error:  # of many libraries: no network, no such repository, no access
        raise InputError(f"{repo_id!r} cannot be fetched: {first_line(error)}") from error
    check_hashes(folder)
    return folder


def load_model(name: str | Path, *, dtype: torch.dtype = torch.float32, need_mps2s: bool = True) -> ModelParts:
    """Read a model, in eval mode.

    Args:
        name: bundled name, local folder, or hub id of a model in the hub's cache.
        dtype: precision of the weights.
        need_mps2s: refuse a folder that holds stage 1 only.

    Raises:
        InputError: no such model, a file is missing or damaged, or the folder is of a newer version.
    """
    folder = resolve(name)
    config = _read_config(folder)
    dfvqgan = speed_up(_load(DFVQGAN, DFVQGANConfig, config.get("dfvqgan"), folder, "dfvqgan", dtype))
    mps2s, tokenizer = None, None
    if config.get("mps2s") is not None:
        mps2s = speed_up(_load(MPS2S, MPS2SConfig, config["mps2s"], folder, "mps2s", dtype))
        tokenizer = CaptionTokenizer.from_file(_present(folder / "tokenizer.json"))
        _check_fit(dfvqgan.config, mps2s.config, tokenizer, str(folder))
    elif need_mps2s:
        raise InputError(f"{folder} holds a DF-VQGAN only (stage 1); a model with mps2s.safetensors is needed")
    sampling = read_sampling(folder)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    return ModelParts(dfvqgan, mps2s, tokenizer, sampling, text)


def read_sampling(name: str | Path) -> Sampling:
    """Read how a model is sampled, without its weights.

    Raises:
        InputError: as `load_model`.
    """
    folder = resolve(name)
    values = _read_config(folder).get("sampling") or {}
    return from_json(Sampling, values, f"sampling in {folder / 'config.json'}")


def save_model(
    folder: str | Path,
    *,
    dfvqgan: DFVQGAN,
    mps2s: MPS2S | None = None,
    tokenizer: CaptionTokenizer | None = None,
    sampling: Sampling | None = None,
    dtype: torch.dtype | None = None,
    max_file_size: int | None = None,
    card: str | None = None,
) -> None:
    """Write a model folder; nothing appears under its name before everything is on disk.

    Args:
        folder: made if missing; model files that are there are replaced, others are left alone.
        dfvqgan, mps2s, tokenizer: the parts; the first alone is a stage 1 result.
        sampling: defaults for the pipeline.
        dtype: precision to store the weights in; their own by default.
        max_file_size: split weights into files of at most so many bytes.
        card: text of README.md.

    Raises:
        InputError: the parts do not belong together, or the folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a model needs a folder")
    parts: dict[str, nn.Module] = {"dfvqgan": dfvqgan}
    if mps2s is not None:
        if tokenizer is None:
            raise InputError("an MP-S2S is of no use without its tokenizer; give both")
        _check_fit(dfvqgan.config, mps2s.config, tokenizer, "what is to be saved")
        parts["mps2s"] = mps2s
    config = {
        "format_version": FORMAT_VERSION,
        "dfvqgan": dataclasses.asdict(dfvqgan.config),
        "mps2s": None if mps2s is None else dataclasses.asdict(mps2s.config),
        "sampling": dataclasses.asdict(sampling or Sampling()),
    }
    with temporary_folder(folder / "config.json" if folder.is_dir() else folder) as part:
        for name, model in parts.items():
            _write_weights(model, part, name, dtype, max_file_size)
        if tokenizer is not None:
            tokenizer.save(part / "tokenizer.json")
        if card is not None:
            write_text(part / "README.md", card)
        write_json(part / "config.json", config)
        _move_into_place(part, folder)


def push_to_hub(repo_id: str, *, private: bool | None = None, **parts: Any) -> str:
    """Upload a model, and return its address.

    Args:
        repo_id: "organisation/name".
        private: whether others cannot see it; None: as the organisation has it.
        parts: the model, as `save_model` takes it.

    Raises:
        InputError: the parts do not belong together, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name) / "model", **parts)
        try:
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            # names, not `REPLACED` itself: to the hub "*" means files in sub-folders, too
            old = [escape(file) for file in _replaced(api.list_repo_files(repo_id))]
            api.upload_folder(repo_id=repo_id, folder_path=Path(name) / "model", delete_patterns=old)
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
            raise InputError(f"cannot upload to {repo_id!r}: {first_line(error)}") from error
    return str(url)


def _check_fit(dfvqgan: DFVQGANConfig, mps2s: MPS2SConfig, tokenizer: CaptionTokenizer, where: str) -> None:
    """Refuse parts of different models, which would work together and make nonsense."""
    pairs = {
        "codes": (mps2s.codebook_size, dfvqgan.codebook_size),
        "pixels on a side": (mps2s.image_size, dfvqgan.resolution),
        "tokens on a side": (max(mps2s.grid), dfvqgan.grid),
    }
    for what, (wanted, given) in pairs.items():
        if wanted != given:
            raise InputError(f"{where}: the MP-S2S is for {wanted} {what}, the DF-VQGAN has {given}")
    if "text" not in mps2s.perspectives:
        return
    if tokenizer.vocab_size > mps2s.text_vocab or tokenizer.max_length > mps2s.text_length:
        raise InputError(
            f"{where}: the MP-S2S reads {mps2s.text_length} of {mps2s.text_vocab} word pieces, "
            f"the tokenizer gives {tokenizer.max_length} of {tokenizer.vocab_size}"
        )
    if tokenizer.pad_id != mps2s.pad_id:
        raise InputError(f"{where}: the MP-S2S is padded with {mps2s.pad_id}, not {tokenizer.pad_id}")


def _move_into_place(part: Path, folder: Path) -> None:
    """Rename the whole folder, or, into an existing one, file by file with the config last."""
    if not folder.exists():
        make_folder(folder.parent)
        part.rename(folder)
        return
    # without its config a folder that was left half-way is refused by name, never mistaken for a whole one
    (folder / "config.json").unlink(missing_ok=True)
    for name in _replaced([path.name for path in folder.iterdir()]):
        (folder / name).unlink()
    for path in sorted(part.iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(folder / path.name)


def _replaced(files: Iterable[str]) -> list[str]:
    """Which of these must go, by `REPLACED`; none in sub-folders."""
    return [file for file in files if "/" not in file and any(fnmatchcase(file, pattern) for pattern in REPLACED)]


def _write_weights(
    model: nn.Module, folder: Path, name: str, dtype: torch.dtype | None, max_file_size: int | None
) -> None:
    state = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    from huggingface_hub import save_torch_state_dict

    try:
        save_torch_state_dict(
            state,
            folder,
            filename_pattern=f"{name}{{suffix}}.safetensors",
            max_shard_size=sys.maxsize if max_file_size is None else max_file_size,
        )
    except SafetensorError as error:
        raise OSError(f"cannot write {name}.safetensors: {first_line(error)}") from error
    for path in folder.glob(f"{name}*.safetensors"):  # which the library makes their owner's only
        path.chmod(folder.stat().st_mode & 0o666)


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_object(_present(folder / "config.json"))
    version = config.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"{folder / 'config.json'} has no format_version: it is not a NÜWA-LIP model")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{folder / 'config.json'} has format_version {version}, "
            f"this nuwa-lip reads up to {FORMAT_VERSION}: update nuwa-lip"
        )
    unknown = sorted(set(config) - {"format_version", "dfvqgan", "mps2s", "sampling"})
    if unknown:
        raise InputError(f"{folder}/config.json has the unknown field {unknown[0]!r}: update nuwa-lip")
    return config


def _present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path.parent} is not a whole model folder: {path.name} is missing")
    return path


def _load(kind: type[Model], config_kind: type[Any], values: Any, folder: Path, name: str, dtype: torch.dtype) -> Model:
    """Build without initial values, and put the files' weights in."""
    where = f"{name} in {folder / 'config.json'}"
    config = from_json(config_kind, values, where)
    try:
        # not on the meta device: for some operations there torch imports its compiler, which takes a second
        with Uninitialised():
            model = kind(config)
    except Exception as error:  # likewise
        raise InputError(f"{where} cannot be used: {error}") from error
    state = _read_weights(folder, name, dtype)
    expected = model.state_dict()
    for key in sorted(set(expected) | set(state)):
        if key not in state:
            raise InputError(f"{folder}: the weights of {name} lack {key}; config.json and weights do not match")
        if key not in expected:
            raise InputError(
                f"{folder}: the weights of {name} have {key} too many; config.json and weights do not match"
            )
        if state[key].is_floating_point() != expected[key].is_floating_point():
            raise InputError(f"{folder}: {name}'s {key} is of {state[key].dtype}, not of {expected[key].dtype}")
        if state[key].shape != expected[key].shape:
            raise InputError(
                f"{folder}: {name}'s {key} has shape {list(state[key].shape)}, "
                f"config.json asks for {list(expected[key].shape)}"
            )
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _read_weights(folder: Path, name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """All weights of a part; those that are in `dtype` already stay in the files, which are mapped."""
    index = folder / f"{name}.safetensors.index.json"
    files = [f"{name}.safetensors"]
    if index.is_file():
        weight_map = read_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or any(Path(str(f)).name != f for f in weight_map.values()):
            raise InputError(f"{index} has no weight_map from weights to files beside it")
        files = sorted(set(weight_map.values()))
    state: dict[str, Tensor] = {}
    for file in files:
        weights = read_tensors(_present(folder / file))
        # file by file: none is needed any more once it is converted
        state |= {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    return state
