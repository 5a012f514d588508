"""A DF-VQGAN of weights under taming-transformers' names: its sizes are read off their shapes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nuwa_lip.convert.names import CODEBOOK, modules_of, theirs_of
from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.models.defect_free import GroupNorm
from nuwa_lip.models.dfvqgan import DFVQGAN, DFVQGANConfig


def sizes_of(state: Mapping[str, Tensor], resolution: int, groups: int) -> DFVQGANConfig:
    """Read sizes off the shapes of weights.

    Args:
        state: weights under taming-transformers' names.
        resolution: side of the pictures that the network was trained on.
        groups: groups of the group norms.

    Raises:
        InputError: they are of no VQGAN.
    """

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise InputError(f"the weights lack {name}: they are not of a VQGAN, or of one of another kind")
        return state[name].shape

    def count(template: str) -> int:
        """How many of the numbered weights there are."""
        return next(n for n in range(len(state) + 1) if template.format(n) not in state)

    shape("encoder.down.0.block.0.conv1.weight"), shape("decoder.up.0.block.0.conv1.weight")
    levels = range(count("encoder.down.{}.block.0.conv1.weight"))
    channels = tuple(shape(f"encoder.down.{i}.block.0.conv1.weight")[0] for i in levels)
    encoder, decoder = (
        tuple(count(f"{net}.{i}.block.{{}}.conv1.weight") for i in levels) for net in ("encoder.down", "decoder.up")
    )
    # a level of taming's ends with the encoder's width; where all are equal, the number of blocks tells
    ends = tuple(shape(f"decoder.up.{i}.block.{max(decoder[i] - 1, 0)}.conv2.weight")[0] for i in levels)
    starts = tuple(shape(f"decoder.up.{i}.block.0.conv1.weight")[0] for i in levels)
    mirrored = ends != channels or (len({*channels}) == 1 and encoder == decoder)
    # widths that change in a level's first block, as taming's do, and yet are not the encoder's
    other = mirrored and ends == starts != channels and min(decoder) > 1
    return DFVQGANConfig(
        resolution=resolution,
        channels=channels,
        encoder_blocks=encoder[0],
        decoder_blocks=decoder[0],
        encoder_level_blocks=None if len({*encoder}) == 1 else encoder,
        decoder_level_blocks=None if len({*decoder}) == 1 else decoder,
        decoder_channels=ends if other else None,
        symmetrical_connections=not other,
        mirrored_decoder=mirrored and not other,
        attention_levels=tuple(i for i in levels if f"encoder.down.{i}.attn.0.norm.weight" in state),
        mid_attention="encoder.mid.attn_1.norm.weight" in state,
        groups=groups,
        latent_channels=shape("encoder.conv_out.weight")[0],
        codebook_size=shape(CODEBOOK)[0],
        codebook_dim=shape(CODEBOOK)[1],
    )


def build(state: Mapping[str, Tensor], config: DFVQGANConfig) -> DFVQGAN:
    """Build the model with copies of the weights under taming-transformers' names, in eval mode.

    Raises:
        InputError: a weight has no place, another shape, or is missing.
    """
    with torch.device("meta"):
        model = DFVQGAN(config)
    modules, weights = modules_of(config), {}
    theirs = {name: theirs_of(name, modules) for name in model.state_dict()}
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
def unbias(model: DFVQGAN) -> None:
    """Scale the encoder's norms from the biased deviation of N values to the unbiased: sqrt((N - 1) / N)."""
    config = model.config
    for name, norm in model.encoder.named_modules():
        if isinstance(norm, GroupNorm):
            level = int(name.split(".")[1]) if name.startswith("levels.") else len(config.channels) - 1
            N = norm.num_channels // norm.num_groups * (config.resolution // 2**level) ** 2
            norm.weight.mul_(math.sqrt((N - 1) / N))
