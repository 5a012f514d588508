"""VQGAN weights of other projects, as a DF-VQGAN: diffusers, taming-transformers, the official NÜWA-LIP.

All are the same network under other names. Names are translated to taming-transformers', sizes are read off
the tensors' shapes, and every weight must find its place. Files are read as safetensors only: a pickle can
run whatever code its maker likes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nuwa_lip.disk import parse_json
from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.models.defect_free import GroupNorm
from nuwa_lip.models.dfvqgan import DFVQGAN, DFVQGANConfig

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
CODEBOOK = "quantize.embedding.weight"
NETWORK = re.compile(r"(encoder|decoder|quantize|quant_conv|post_quant_conv)\.")
"""Weights of the network itself; losses, averages and counters stand beside them in training checkpoints."""
DIFFUSERS_NAMES = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.attentions\.", r".down.\1.attn."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.mid_block\.resnets\.0\.", r".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", r".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", r".mid.attn_1."),
    (r"\.up_blocks\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d+)\.attentions\.", r".up.\1.attn."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.(?:to_q|query)\.", ".q."),
    (r"\.(?:to_k|key)\.", ".k."),
    (r"\.(?:to_v|value)\.", ".v."),
    (r"\.(?:to_out\.0|proj_attn)\.", ".proj_out."),
)
"""diffusers' names → taming-transformers', but for the order of `up`; attention has had two sets of names."""


def load(source: Path, *, resolution: int = 256, groups: int = 32) -> DFVQGAN:
    """Read a folder of diffusers' VQModel, or a safetensors file in taming-transformers' or official layout.

    Args:
        source: the folder (config.json and diffusion_pytorch_model.safetensors) or the file.
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
        raise InputError(
            f"{source} is a pickle, which can run code when it is opened, and is not read; save its weights "
            "with safetensors.torch, save_file({k: v.contiguous() for k, v in torch.load(FILE, "
            "weights_only=True)['state_dict'].items()}, 'weights.safetensors'), and give that file"
        )
    return from_taming(_read(source), resolution=resolution, groups=groups)


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
    """A DF-VQGAN with (copies of) weights under taming-transformers' or the official NÜWA-LIP's names.

    The official encoder divides by the unbiased deviation. Its norms' weights are scaled so that this one,
    which follows Eq. 4, gives the same at `resolution` (the factor differs from 1 by less than 1e-4).

    Args:
        state: names → tensors, as in the checkpoint's state_dict; losses and the like are left aside.
        resolution: side of the pictures that it was trained on, which the weights do not tell.
        groups: groups of the group norms, which the weights do not tell; 32 in either project.

    Raises:
        InputError: it is another network.
    """
    state, official = _unwrap(_strip(state))
    config = _config(state, resolution, groups)
    model = _build(state, config)
    if official:
        _unbias(model)
    return model


def _from_diffusers(state: Mapping[str, Tensor], config: Mapping[str, Any], resolution: int) -> DFVQGAN:
    expected = {"act_fn": "silu", "norm_type": "group", "in_channels": 3, "out_channels": 3}
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise InputError(f"the VQModel has {name} {config[name]!r}; a DF-VQGAN has {value!r}")
    last = len(config.get("block_out_channels", (64,))) - 1
    renamed = {}
    for name, weight in state.items():
        for pattern, replacement in DIFFUSERS_NAMES:
            name = re.sub(pattern, replacement, name)
        # diffusers counts the decoder's levels from the coarsest
        name = re.sub(r"\.up\.(\d+)\.", lambda match: f".up.{last - int(match[1])}.", name)
        renamed[name] = weight
    return _build(renamed, _config(renamed, resolution, config.get("norm_num_groups", 32)))


def _from_folder(folder: Path, resolution: int) -> DFVQGAN:
    if not (folder / "config.json").is_file() and (folder / "vqvae" / "config.json").is_file():
        folder = folder / "vqvae"  # a whole pipeline
    try:
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a folder of diffusers' VQModel: config.json: {error}") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != "VQModel":
        raise InputError(f"{folder / 'config.json'} describes {kind or 'nothing known'}; a VQModel is needed")
    weights = folder / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder} has no {weights.name}; save the model with safe_serialization=True")
    return _from_diffusers(_read(weights), config, resolution)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not safetensors: {error}") from error


def _strip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own weights without what stands before their names (`model.` and the like)."""
    prefix = next((name.removesuffix(CODEBOOK) for name in state if name.endswith(CODEBOOK)), None)
    if prefix is None:
        raise InputError(f"the weights lack {CODEBOOK}: they are not of a VQGAN, or of one of another kind")
    state = {name[len(prefix) :]: weight for name, weight in state.items() if name.startswith(prefix)}
    return {name: weight for name, weight in state.items() if NETWORK.match(name)}


def _unwrap(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The official layout wraps each operation of the encoder → (taming's names, was it official)."""
    if "encoder.conv_in.conv.weight" not in state:
        return state, False
    wrapper = re.compile(r"^(encoder\..+)\.(?:conv|norm)\.(weight|bias)$")
    return {wrapper.sub(r"\1.\2", name): weight for name, weight in state.items()}, True


def _config(state: Mapping[str, Tensor], resolution: int, groups: int) -> DFVQGANConfig:
    """Sizes, from the shapes of weights under taming-transformers' names."""

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise InputError(f"the weights lack {name}: they are not of a VQGAN, or of one of another kind")
        return state[name].shape

    def count(template: str) -> int:
        """How many of the numbered weights there are."""
        return next(n for n in range(len(state) + 1) if template.format(n) not in state)

    shape("encoder.down.0.block.0.conv1.weight"), shape("decoder.up.0.block.0.conv1.weight")
    levels = count("encoder.down.{}.block.0.conv1.weight")
    channels = tuple(shape(f"encoder.down.{i}.block.0.conv1.weight")[0] for i in range(levels))
    blocks = count("encoder.down.0.block.{}.conv1.weight"), count("decoder.up.0.block.{}.conv1.weight")
    # a level of taming's ends with the encoder's width; where all are equal, the number of blocks tells
    ends = [shape(f"decoder.up.{i}.block.{blocks[1] - 1}.conv2.weight")[0] for i in range(levels)]
    mirrored = ends != list(channels) or (len({*channels}) == 1 and blocks[0] == blocks[1])
    return DFVQGANConfig(
        resolution=resolution,
        channels=channels,
        encoder_blocks=blocks[0],
        decoder_blocks=blocks[1],
        mirrored_decoder=mirrored,
        attention_levels=tuple(i for i in range(levels) if f"encoder.down.{i}.attn.0.norm.weight" in state),
        mid_attention="encoder.mid.attn_1.norm.weight" in state,
        groups=groups,
        latent_channels=shape("encoder.conv_out.weight")[0],
        codebook_size=shape(CODEBOOK)[0],
        codebook_dim=shape(CODEBOOK)[1],
    )


def _modules(config: DFVQGANConfig) -> dict[str, str]:
    """Our names of modules → taming-transformers'."""
    names = {"encoder.to_code": "quant_conv", "decoder.from_code": "post_quant_conv"}
    middle = ["block_1", "attn_1", "block_2"] if config.mid_attention else ["block_1", "block_2"]
    last = len(config.channels) - 1
    for net, levels, blocks in (
        ("encoder", "down", config.encoder_blocks),
        ("decoder", "up", config.decoder_blocks),
    ):
        names |= {f"{net}.{part}": f"{net}.{part}" for part in ("conv_in", "norm_out", "conv_out")}
        names |= {f"{net}.middle.{n}": f"{net}.mid.{part}" for n, part in enumerate(middle)}
        for i in range(last + 1):
            kinds = ["block", "attn"] if i in config.attention_levels else ["block"]
            if net == "decoder" and config.mirrored_decoder:
                kinds.reverse()
            parts = [f"{kind}.{n}" for n in range(blocks) for kind in kinds]
            names |= {f"{net}.levels.{i}.{n}": f"{net}.{levels}.{i}.{part}" for n, part in enumerate(parts)}
    for i in range(last):
        names[f"encoder.downs.{i}"] = f"encoder.down.{i}.downsample"
        names[f"decoder.ups.{i}"] = f"decoder.up.{i + 1}.upsample"
    return names


def _theirs(name: str, modules: Mapping[str, str]) -> str:
    """taming-transformers' name of a weight of ours."""
    if name == "quantiser.codebook":
        return CODEBOOK
    module = next(ours for ours in modules if name.startswith(f"{ours}."))
    rest = name.removeprefix(module)
    return modules[module] + rest.replace(".shortcut.", ".nin_shortcut.").replace(".out.", ".proj_out.")


def _build(state: Mapping[str, Tensor], config: DFVQGANConfig) -> DFVQGAN:
    """The model with copies of the weights under taming-transformers' names, in eval mode."""
    with torch.device("meta"):
        model = DFVQGAN(config)
    modules, weights = _modules(config), {}
    theirs = {name: _theirs(name, modules) for name in model.state_dict()}
    spare = sorted(set(state) - set(theirs.values()))
    if spare:
        raise InputError(f"the weights have {spare[0]}, for which a DF-VQGAN has no place")
    for name, wanted in model.state_dict().items():
        if theirs[name] not in state:
            raise InputError(f"the weights lack {theirs[name]}, which a DF-VQGAN of these sizes has")
        weight = state[theirs[name]]
        # attention's matrices are 1 x 1 convolutions elsewhere, norms have ones around their channels
        if [n for n in weight.shape if n > 1] != [n for n in wanted.shape if n > 1]:
            raise InputError(
                f"{theirs[name]} has shape {list(weight.shape)}; in a DF-VQGAN of these sizes it would have "
                f"{list(wanted.shape)}"
            )
        weights[name] = weight.detach().reshape(wanted.shape).clone()
    model.load_state_dict(weights, assign=True)
    return speed_up(model.eval())


@torch.no_grad()
def _unbias(model: DFVQGAN) -> None:
    """Scale the encoder's norms from the biased deviation of N values to the unbiased: sqrt((N - 1) / N)."""
    config = model.config
    for name, norm in model.encoder.named_modules():
        if isinstance(norm, GroupNorm):
            level = int(name.split(".")[1]) if name.startswith("levels.") else len(config.channels) - 1
            N = norm.num_channels // norm.num_groups * (config.resolution // 2**level) ** 2
            norm.weight.mul_(math.sqrt((N - 1) / N))
