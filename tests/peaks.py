"""Measure the memory that a training step takes on this machine, beside what `nuwa-lip plan` says of it.

    python tests/peaks.py mps2s mini 16

prints both in MB. The peak is that of the whole process over what it had before the model was made, and after a step of
a tiny one, for which libraries are loaded: take enough samples for some hundred MB.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import torch

from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.models.losses import generator_loss, mps2s_loss
from nuwa_lip.models.orders import target_tokens
from nuwa_lip.models.perceptual import SqueezeNetFeatures, lpips
from nuwa_lip.training import recipes
from nuwa_lip.training.critics import make_critic
from nuwa_lip.training.plan import cost_of, states


def held(field: str) -> float:
    """Read a figure of this process, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * float(re.search(rf"{field}:\s+(\d+)", text)[1])  # type: ignore[index]


def planned(recipe: object, batch: int) -> float:
    """Compute what one process is planned to need, in bytes."""
    cost = cost_of(recipe, bf16=False)
    return states(cost, 1) + cost.fixed + batch * cost.kept


def measured(recipe: recipes.DFVQGANRecipe | recipes.MPS2SRecipe, batch: int) -> float:
    """Take two steps of plain PyTorch on the CPU → bytes at the peak, over those before."""
    before = held("VmRSS")
    config = recipe.model
    model = MPS2S(config) if isinstance(recipe, recipes.MPS2SRecipe) else DFVQGAN(config)  # type: ignore[arg-type]
    average = [p.detach().clone() for p in model.parameters()]
    others = [] if isinstance(recipe, recipes.MPS2SRecipe) else [make_critic(recipe.adversary), SqueezeNetFeatures()]
    optimizer = torch.optim.AdamW([*model.parameters(), *(others[0].parameters() if others else ())], fused=True)
    for _ in range(2):
        if isinstance(recipe, recipes.MPS2SRecipe):
            (h, w), side = recipe.model.grid, recipe.model.image_size
            order = torch.randperm(h * w)[: h * w // 2].expand(batch, -1).contiguous()
            defective = torch.zeros(batch, h * w, dtype=torch.bool).scatter_(1, order, True).view(batch, 1, h, w)
            tokens, text = torch.zeros(batch, h, w, dtype=torch.int64), torch.ones(batch, recipe.model.text_length)
            mask = defective.repeat_interleave(side // h, 2).repeat_interleave(side // w, 3)
            image = torch.zeros(batch, 3, side, side)
            logits, real = model(text.long(), image, mask, tokens, defective, order)
            loss = mps2s_loss(logits, target_tokens(tokens, order), real)
        else:
            side = recipe.model.resolution
            image, mask = torch.rand(batch, 3, side, side), torch.zeros(batch, 1, side, side, dtype=torch.bool)
            mask[..., : side // 2] = True
            output = model(image, mask, torch.zeros(batch, dtype=torch.bool), quantise=True)
            loss = (output.image - image).abs().mean() + output.quantised.codebook_loss
            loss = loss + lpips(others[1].requires_grad_(False), output.image, image).mean()  # type: ignore[arg-type]
            if recipe.adversary.weight:
                loss = loss + generator_loss(others[0](output.image))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.1)
    return held("VmHWM") - before


if __name__ == "__main__":
    stage, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    chosen = recipes.named(stage, name)
    if stage == "dfvqgan":
        chosen = dataclasses.replace(chosen, perceptual="squeezenet")
    measured(dataclasses.replace(chosen, model=type(chosen.model).preset("tiny")), 2)
    peak = measured(chosen, size)
    print(f"{stage} {name}, {size} samples: measured {peak / 1e6:.0f} MB, planned {planned(chosen, size) / 1e6:.0f} MB")
