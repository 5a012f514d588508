"""Reads VQGAN weights of other projects from files and folders.

A pickle can run whatever code its maker likes: a checkpoint's is read as a description of its tensors, and never run.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from torch import Tensor, nn

from nuwa_lip.convert.build import build, sizes_of, unbias
from nuwa_lip.convert.names import from_diffusers_names, from_llamagen_names, from_magvit_names, strip, unwrap
from nuwa_lip.disk import parse_json, read_text
from nuwa_lip.disk.checkpoints import read_checkpoint
from nuwa_lip.disk.tensors import read_tensors
from nuwa_lip.errors import InputError
from nuwa_lip.models.dfvqgan import DFVQGAN

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def load(source: Path, *, resolution: int = 256, groups: int = 32) -> DFVQGAN:
    """Read a folder of diffusers' VQModel or of Show-o's MAGVIT-v2, or a file in any layout that `from_taming` knows.

    Args:
        source: the folder (config.json and its .safetensors) or the file, safetensors or a checkpoint of PyTorch.
        resolution: side of the pictures that it was trained on, which the weights do not tell.
        groups: groups of the group norms; a folder's config.json tells, a file does not.

    Raises:
        InputError: it cannot be read, or is another network.
    """
    if source.is_dir():
        return _from_folder(source, resolution)
    if not source.exists():
        raise InputError(f"there is no file or folder {source}")
    if source.suffix.lower() in PICKLES:
        if is_zipfile(source):
            return from_taming(read_checkpoint(source), resolution=resolution, groups=groups)
        raise InputError(
            f"{source} is a pickle, which can run code when it is opened, and is not read; save its weights "
            "with safetensors.torch, save_file({k: v.contiguous() for k, v in torch.load(FILE, "
            "weights_only=True)['state_dict'].items()}, 'weights.safetensors'), and give that file"
        )
    return from_taming(read_tensors(source), resolution=resolution, groups=groups)


def from_diffusers_vqmodel(vqmodel: nn.Module, *, resolution: int = 256) -> DFVQGAN:
    """A DF-VQGAN with (copies of) the weights of a `diffusers.VQModel`: equal latents, tokens and images.

    Args:
        vqmodel: the model.
        resolution: side of the pictures that it was trained on, which it does not tell.

    Raises:
        InputError: it has parts that a DF-VQGAN has not.
    """
    return _from_diffusers(vqmodel.state_dict(), vqmodel.config, resolution)  # type: ignore[arg-type]


def from_taming(state: Mapping[str, Tensor], *, resolution: int = 256, groups: int = 32) -> DFVQGAN:
    """A DF-VQGAN with (copies of) weights under the names of taming-transformers, NÜWA-LIP, LlamaGen or MAGVIT-v2.

    The official encoder of NÜWA-LIP divides by the unbiased deviation. Its norms' weights are scaled so that this one,
    which follows Eq. 4, gives the same at `resolution` (the factor differs from 1 by less than 1e-4). LlamaGen compares
    codes on the unit sphere. MAGVIT-v2's codes are all signs of 13 numbers, so that the nearest one is given by them.
    What of these two was trained without a hole is decoded without connections.

    Args:
        state: names → tensors, as in the checkpoint's state_dict; losses and the like are left aside.
        resolution: side of the pictures that it was trained on, which the weights do not tell.
        groups: groups of the group norms, which the weights do not tell; 32 in all these projects.

    Raises:
        InputError: it is another network.
    """
    state, llamagen = from_llamagen_names(strip(from_magvit_names(state)))
    state, official = unwrap(state)
    config = sizes_of(state, resolution, groups)
    if llamagen:
        config = replace(config, normalise_codes=True, symmetrical_connections=False)
    model = build(state, config)
    if official:
        unbias(model)
    return model


def _from_diffusers(state: Mapping[str, Tensor], config: Mapping[str, Any], resolution: int) -> DFVQGAN:
    expected = {"act_fn": "silu", "norm_type": "group", "in_channels": 3, "out_channels": 3}
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise InputError(f"the VQModel has {name} {config[name]!r}; a DF-VQGAN has {value!r}")
    renamed = from_diffusers_names(state, len(config.get("block_out_channels", (64,))))
    return build(renamed, sizes_of(renamed, resolution, config.get("norm_num_groups", 32)))


def _from_folder(folder: Path, resolution: int) -> DFVQGAN:
    if not (folder / "config.json").is_file() and (folder / "vqvae" / "config.json").is_file():
        folder = folder / "vqvae"  # a whole pipeline
    try:
        config = parse_json(read_text(folder / "config.json"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a folder of diffusers' VQModel: config.json: {error}") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if str(kind).lower() == "magvitv2":
        names = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise InputError(f"{folder} has none of {', '.join(names)}: the weights of MAGVIT-v2 are missing")
        return load(found, resolution=resolution)
    if kind != "VQModel":
        raise InputError(f"{folder / 'config.json'} describes {kind or 'nothing known'}; a VQModel is needed")
    weights = folder / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder} has no {weights.name}; save the model with safe_serialization=True")
    return _from_diffusers(read_tensors(weights), config, resolution)
