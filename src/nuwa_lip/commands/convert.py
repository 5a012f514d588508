"""`nuwa-lip convert`: VQ weights of other projects become a model folder."""

from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.errors import InputError


def convert(
    source: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    resolution: int = 256,
    groups: int = 32,
    unit_range: bool = False,
    overwrite: bool = False,
) -> None:
    """Make a model folder (stage 1) of other projects' weights.

    These are diffusers' VQModel (aMUSEd, Meissonic and others), taming-transformers' VQGAN, LlamaGen's VQ-8 and VQ-16,
    MAGVIT-v2 as Show-o has it, and the official DF-VQGAN of NÜWA-LIP.

    Example: nuwa-lip convert vqgan.safetensors -o vqgan

    Example: nuwa-lip convert amused-256/vqvae --unit-range -o amused-vq

    Example: nuwa-lip convert vq_ds16_c2i.pt -o llamagen-vq16

    Args:
        source: Folder of diffusers' VQModel or of MAGVIT-v2, or a file in one of the other layouts: .safetensors, or a
            checkpoint of PyTorch (.ckpt, .pt), whose tensors are read without running its pickle.
        out: Where to make the model folder.
        resolution: Side of the pictures that it was trained on; the weights do not tell.
        groups: Groups of the group norms; a file does not tell, a folder does.
        unit_range: Whether the weights read pictures from 0 to 1, as those of aMUSEd, Meissonic and their like do;
            nothing tells.
        overwrite: Replace the model in the folder if there is one.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the model")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} is not empty; give --overwrite to replace the model in it")

    from nuwa_lip import convert as weights
    from nuwa_lip.hub import save_model

    model = weights.load(source, resolution=resolution, groups=groups)
    if unit_range:
        model.take_unit_range()
    try:
        save_model(out, dfvqgan=model, card=CARD.format(name=out.name, source=source.name))
    except OSError as error:
        raise InputError(f"cannot write {out}: {(error.strerror or str(error)).lower()}") from error
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    config = model.config
    print(
        f"{out}: {millions:.1f} M parameters, {config.grid} x {config.grid} tokens of {config.codebook_size} "
        f"for {config.resolution} x {config.resolution} pixels"
    )


CARD = """# {name}

A VQGAN converted from `{source}` by `nuwa-lip convert`. The weights are under their maker's licence.

It was trained without relative estimation and without connections: fine-tune it with
`nuwa-lip train dfvqgan --init-from` before relying on what it says about pictures with holes.
"""
