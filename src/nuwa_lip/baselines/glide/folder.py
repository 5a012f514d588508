"""GLIDE's model folder: config.json, glide.safetensors, tokenizer.json; never pickle.

    config.json   {"format_version": 1, "kind": "glide", "model": {...}, "sampling": {...}}

Nothing but `save_glide` and `load_glide` knows these files.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nuwa_lip.baselines.glide.config import GLIDEConfig, GLIDESampling
from nuwa_lip.baselines.glide.model import GLIDE
from nuwa_lip.disk import from_json, read_object, write_json, written_whole
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.tokenizer import CaptionTokenizer

FORMAT_VERSION = 1
KIND = "glide"
CONFIG = "config.json"


class GLIDEParts(NamedTuple):
    """The contents of a folder."""

    model: GLIDE
    tokenizer: CaptionTokenizer
    sampling: GLIDESampling


def is_glide(folder: str | Path) -> bool:
    """Say whether a folder was written by `save_glide`."""
    try:
        return read_object(Path(folder) / CONFIG).get("kind") == KIND
    except InputError:
        return False


def save_glide(folder: Path, parts: GLIDEParts) -> None:
    """Write a folder, the configuration last: without it a folder left half-way is refused by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in parts.model.state_dict().items()}
    with written_whole(folder / "glide.safetensors") as part:
        save_file(state, part, metadata={"format": "pt"})
    parts.tokenizer.save(folder / "tokenizer.json")
    config = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "model": dataclasses.asdict(parts.model.config),
        "sampling": dataclasses.asdict(parts.sampling),
    }
    write_json(folder / CONFIG, config)


def load_glide(folder: Path) -> GLIDEParts:
    """Read a folder, in eval mode.

    Raises:
        InputError: it is missing, not whole, damaged, or of a newer version; diffusers is not installed.
    """
    content = _read_config(folder)
    model = GLIDE(from_json(GLIDEConfig, content.get("model"), f"model in {folder / CONFIG}"))
    sampling = from_json(GLIDESampling, content.get("sampling"), f"sampling in {folder / CONFIG}")
    tokenizer = CaptionTokenizer.from_file(folder / "tokenizer.json")
    if tokenizer.vocab_size > model.config.text_vocab or tokenizer.max_length > model.config.text_length:
        raise InputError(f"{folder}: tokenizer.json gives more or longer pieces than {CONFIG} allows")
    path = folder / "glide.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is missing, damaged, or does not fit {CONFIG}: {first_line(error)}") from error
    return GLIDEParts(model.eval().requires_grad_(False), tokenizer, sampling)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is no GLIDE folder, it has no {CONFIG}: make one with train glide")
    content = read_object(path)
    if content.get("kind") != KIND:
        raise InputError(f"{path} is not of a GLIDE (its kind is not {KIND!r}): give the model folder of `train glide`")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(f"{path} has format_version {version}, this nuwa-lip reads up to {FORMAT_VERSION}: update it")
    return content
