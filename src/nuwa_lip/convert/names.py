"""Names of weights: diffusers', the official project's and ours, each as taming-transformers has them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.models.dfvqgan import DFVQGANConfig

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


def strip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the network's own weights, without what stands before their names (`model.` and the like).

    Raises:
        InputError: they are of no VQGAN.
    """
    prefix = next((name.removesuffix(CODEBOOK) for name in state if name.endswith(CODEBOOK)), None)
    if prefix is None:
        raise InputError(f"the weights lack {CODEBOOK}: they are not of a VQGAN, or of one of another kind")
    state = {name[len(prefix) :]: weight for name, weight in state.items() if name.startswith(prefix)}
    return {name: weight for name, weight in state.items() if NETWORK.match(name)}


def unwrap(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Undo the official layout, which wraps each operation of the encoder → (taming's names, was it official)."""
    if "encoder.conv_in.conv.weight" not in state:
        return state, False
    wrapper = re.compile(r"^(encoder\..+)\.(?:conv|norm)\.(weight|bias)$")
    return {wrapper.sub(r"\1.\2", name): weight for name, weight in state.items()}, True


def from_diffusers_names(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Translate diffusers' names of weights; it counts the decoder's levels from the coarsest."""
    renamed = {}
    for name, weight in state.items():
        for pattern, replacement in DIFFUSERS_NAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"\.up\.(\d+)\.", lambda match: f".up.{levels - 1 - int(match[1])}.", name)
        renamed[name] = weight
    return renamed


def modules_of(config: DFVQGANConfig) -> dict[str, str]:
    """Translate our names of modules → taming-transformers'."""
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


def theirs_of(name: str, modules: Mapping[str, str]) -> str:
    """Give taming-transformers' name of a weight of ours."""
    if name == "quantiser.codebook":
        return CODEBOOK
    module = next(ours for ours in modules if name.startswith(f"{ours}."))
    rest = name.removeprefix(module)
    return modules[module] + rest.replace(".shortcut.", ".nin_shortcut.").replace(".out.", ".proj_out.")
