"""Names of weights: those of diffusers, LlamaGen, MAGVIT-v2, the official project and ours, as taming's."""

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
LLAMAGEN_NAMES = (
    (r"^encoder\.conv_blocks\.(\d+)\.res\.", r"encoder.down.\1.block."),
    (r"^encoder\.conv_blocks\.", "encoder.down."),
    (r"^decoder\.conv_blocks\.(\d+)\.res\.", r"decoder.up.\1.block."),
    (r"^decoder\.conv_blocks\.", "decoder.up."),
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)
"""LlamaGen's names → taming-transformers', but for the order of `up`."""
MAGVIT_NAMES = {
    "encoder.quant_conv": "quant_conv",
    "decoder.post_quant_conv": "post_quant_conv",
    "quantize.embedding": "quantize.embedding",
}
"""Modules of Show-o's MAGVIT-v2 that stand elsewhere in taming-transformers."""


def strip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the network's own weights, without what stands before their names (`model.` and the like).

    Raises:
        InputError: they are of no VQGAN.
    """
    prefix = next((name.removesuffix(CODEBOOK) for name in state if name.endswith(CODEBOOK)), None)
    if prefix is None:
        raise InputError(f"the weights lack {CODEBOOK}: they are not of a VQGAN, or of one of another kind")
    state = {name[len(prefix) :]: weight for name, weight in state.items() if name.startswith(prefix)}
    # a codebook has counters beside it: LlamaGen's codebook_used, others' averages
    kept = {name: weight for name, weight in state.items() if NETWORK.match(name)}
    return {name: weight for name, weight in kept.items() if not name.startswith("quantize.") or name == CODEBOOK}


def unwrap(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Undo the official layout, which wraps each operation of the encoder → (taming's names, was it official)."""
    if "encoder.conv_in.conv.weight" not in state:
        return state, False
    wrapper = re.compile(r"^(encoder\..+)\.(?:conv|norm)\.(weight|bias)$")
    return {wrapper.sub(r"\1.\2", name): weight for name, weight in state.items()}, True


def from_diffusers_names(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Translate diffusers' names of weights; it counts the decoder's levels from the coarsest."""
    return _renamed(state, DIFFUSERS_NAMES, levels)


def from_llamagen_names(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Translate LlamaGen's names, which too count the decoder's levels from the coarsest → (taming's, was it one)."""
    if not any(name.startswith("encoder.conv_blocks.") for name in state):
        return state, False
    levels = {name.split(".")[2] for name in state if name.startswith("decoder.conv_blocks.")}
    return _renamed(state, LLAMAGEN_NAMES, len(levels)), True


def from_magvit_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names of Show-o's MAGVIT-v2, where they are others; its codebook is no parameter."""
    renamed = {}
    for name, weight in state.items():
        for theirs, ours in MAGVIT_NAMES.items():
            name = f"{ours}.weight" if name == theirs else re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", name)
        renamed[name] = weight
    return renamed


def _renamed(state: Mapping[str, Tensor], patterns: tuple[tuple[str, str], ...], levels: int) -> dict[str, Tensor]:
    """Translate names by patterns, and count `up` from the finest."""
    renamed = {}
    for name, weight in state.items():
        for pattern, replacement in patterns:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"\.up\.(\d+)\.", lambda match: f".up.{levels - 1 - int(match[1])}.", name)
        renamed[name] = weight
    return renamed


def modules_of(config: DFVQGANConfig) -> dict[str, str]:
    """Translate our names of modules → taming-transformers'."""
    names = {"encoder.to_code": "quant_conv", "decoder.from_code": "post_quant_conv"}
    middle = ["block_1", "attn_1", "block_2"] if config.mid_attention else ["block_1", "block_2"]
    last = len(config.channels) - 1
    for net, levels in (("encoder", "down"), ("decoder", "up")):
        names |= {f"{net}.{part}": f"{net}.{part}" for part in ("conv_in", "norm_out", "conv_out")}
        names |= {f"{net}.middle.{n}": f"{net}.mid.{part}" for n, part in enumerate(middle)}
        for i, blocks in enumerate(config.blocks(net)):
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
