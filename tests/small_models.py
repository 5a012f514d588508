"""A tiny MP-S2S, photos with holes as it reads them, and generators with a seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.memory import Memory

VOCAB = 64
HOLE, K = (2, 3, 3, 4), 12
"""Top, left, height and width of a hole in tokens, and how many tokens it has."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_model(scale: float = 6.0, **changes: Any) -> MPS2S:
    """Return a tiny model with the same random weights every time, without gradients.

    Args:
        scale: factor of linear weights and embeddings; large ones make tokens depend on one another, and logits on
            every input.
        changes: to the preset.
    """
    torch.manual_seed(0)
    model = MPS2S(dataclasses.replace(MPS2SConfig.preset("tiny"), **changes)).eval()
    with torch.no_grad():
        if model.decoder.pointer is not None:
            nn.init.normal_(model.decoder.pointer.weight, std=0.02)  # it starts at zero
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.mul_(scale)
    return model.requires_grad_(False)


@torch.no_grad()
def make_memories(model: MPS2S, *holes: tuple[int, int, int, int]) -> tuple[Memory, Memory]:
    """Return memories of photos with a hole (top, left, height, width in tokens) each: with a caption, and without."""
    generator = seeded()
    count, (height, width) = len(holes), model.config.grid
    token_mask = torch.zeros(count, 1, height, width, dtype=torch.bool)
    for mask, (top, left, rows, columns) in zip(token_mask, holes, strict=True):
        mask[:, top : top + rows, left : left + columns] = True
    cell = model.config.image_size // height
    image = torch.rand(count, 3, height * cell, width * cell, generator=generator) * 2 - 1
    mask = token_mask.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    tokens = torch.randint(VOCAB, (count, height, width), generator=generator)
    ids = torch.randint(3, 512, (count, 6), generator=generator)
    memory = model.encode(ids, image, mask, tokens, token_mask)
    return memory, model.with_captions(memory, torch.tensor([[1, 2]] * count))
