"""Loads aMUSEd and Meissonic from folders of diffusers' layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nuwa_lip import convert
from nuwa_lip.disk import read_object
from nuwa_lip.disk.tensors import read_tensors
from nuwa_lip.hub import Uninitialised
from nuwa_lip.painters.masked_token import MaskedToken

WEIGHTS = "diffusion_pytorch_model.safetensors"
FULL, HALF = 1024, 512
"""Sides of Meissonic's squares, with a halved grid and without."""


def is_token_folder(folder: Path) -> bool:
    """Tell whether a folder's transformer predicts tokens.

    Raises:
        InputError: its config.json cannot be read.
    """
    path = folder / "transformer" / "config.json"
    return (folder / "vqvae").is_dir() and "codebook_size" in read_object(path)


def load_masked_token(folder: Path, dtype: torch.dtype) -> MaskedToken:
    """Load a painter: safetensors only, nothing fetched."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    config = read_object(folder / "transformer" / "config.json")
    factor = 2 ** (len(read_object(folder / "vqvae" / "config.json")["block_out_channels"]) - 1)
    amused = config.get("_class_name") == "UVit2DModel"
    side = config["sample_size"] * factor if amused else FULL if config["downsample"] else HALF
    dfvqgan = convert.load(folder / "vqvae", resolution=side).float().take_unit_range()
    dfvqgan.config = replace(dfvqgan.config, symmetrical_connections=False)
    text = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=dtype, **how)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    mask_id = read_object(folder / "scheduler" / "scheduler_config.json")["mask_token_id"]
    parts = text.eval(), tokenizer, mask_id
    if amused:
        from diffusers import UVit2DModel

        transformer: Any = UVit2DModel.from_pretrained(folder / "transformer", dtype=dtype, **how)
        return MaskedToken(dfvqgan.requires_grad_(False), transformer.eval(), *parts)
    from nuwa_lip.painters.meissonic import Meissonic, MeissonicTransformer

    with Uninitialised():
        transformer = MeissonicTransformer(config)
    weights = read_tensors(folder / "transformer" / WEIGHTS)
    transformer.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()}, assign=True)
    return Meissonic(dfvqgan.requires_grad_(False), transformer.eval().requires_grad_(False), *parts)
