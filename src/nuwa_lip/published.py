"""Finds the weights of networks that are too large to be bundled: a path, a cache, or, when asked, the network.

They are read as safetensors or as plain tensors; nothing in them is ever run.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nuwa_lip import hub
from nuwa_lip.errors import InputError, first_line


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that somebody else has published."""

    name: str
    option: str
    """Of the command line, where a path is given."""
    url: str
    sha256: str
    """How the file's hash begins; torch's own caches are checked by it."""
    repo: str | None = None
    """On the hub, the same as model.safetensors."""


INCEPTION = Published(
    name="Inception v3 (2015-12-05, as FID has it)",
    option="--inception",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",
)
VGG16 = Published(
    name="VGG-16",
    option="--vgg",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af",
    repo="timm/vgg16.tv_in1k",
)

EFFICIENTNET = Published(
    name="EfficientNet-Lite0 (timm's tf_efficientnet_lite0)",
    option="--lite",
    url="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
    "tf_efficientnet_lite0-0aa007d2.pth",
    sha256="0aa007d2",
    repo="timm/tf_efficientnet_lite0.in1k",
)


def find_weights(wanted: Published, path: Path | None, *, download: bool) -> Path:
    """Find the file of these weights: `path`, or the hub's cache, or torch's, or fetched now.

    Args:
        wanted: the weights.
        path: a file given by the user.
        download: fetch them if they are nowhere.

    Raises:
        InputError: there is none; the line says which file to put where.
    """
    if path is not None:
        if not path.is_file():
            raise InputError(f"{wanted.option} {path} is missing: it should hold the weights of {wanted.name}")
        return path
    if wanted.repo is not None:
        found = hub.cached(wanted.repo, "model.safetensors")
        if found is not None:
            return found
    cached = Path(torch.hub.get_dir()) / "checkpoints" / wanted.url.rsplit("/", 1)[1]
    if cached.is_file():
        return cached
    if download:
        return hub.download_file(wanted.url, cached, wanted.sha256)
    raise InputError(
        f"the weights of {wanted.name} are not on this machine: fetch {wanted.url} and save it as {cached}, "
        f"or give a file by {wanted.option}, or let it be fetched by --download"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or from what torch saved; objects of any other kind are refused.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} does not hold weights alone, or is damaged: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds something other than tensors by name")
    return state


def lpips_heads(path: Path | None = None) -> list[Tensor]:
    """Read LPIPS's learned weights (version 0.1) of the channels of VGG-16's five maps.

    Raises:
        InputError: torchmetrics, whose file is read if `path` is None, is not installed, or the file lacks a weight.
    """
    if path is None:
        found = find_spec("torchmetrics")
        if found is None or not found.submodule_search_locations:
            raise InputError("--metrics lpips needs torchmetrics: pip install 'nuwa-lip[evaluate]'")
        path = Path(found.submodule_search_locations[0]) / "functional" / "image" / "lpips_models" / "vgg.pth"
    state = read_weights(path)
    try:
        return [state[f"lin{i}.model.1.weight"].flatten() for i in range(5)]
    except KeyError as error:
        raise InputError(f"{path} does not hold the heads of LPIPS: {error.args[0]} is missing") from None
