"""Measure the memory that a training's steps take on this machine, beside what `nuwa-lip plan` says of it.

    MALLOC_MMAP_THRESHOLD_=65536 python tests/peaks.py mps2s mini 16

prints both in MB. Two steps are taken as the training takes them, in float32, with the adversary if the recipe has
one and with a photo that is hidden entirely. The peak is that of the whole process over what it had before the model
was made, and after a step of a tiny one, for which libraries are loaded: take enough samples for some hundred MB. The
variable lets the C library give freed tensors back: the peak is what tensors take, without what lies between them.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator

from nuwa_lip.data.photos import PhotoBatch
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from nuwa_lip.training import recipes
from nuwa_lip.training.dfvqgan import DFVQGANStage
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.plan import cost_of, states
from nuwa_lip.training.tokens import TokenBatch


def held(field: str) -> float:
    """Read a figure of this process, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * float(re.search(rf"{field}:\s+(\d+)", text)[1])  # type: ignore[index]


def planned(recipe: object, batch: int) -> float:
    """Compute what one process is planned to need, in bytes."""
    cost = cost_of(recipe, bf16=False)
    kept = cost.kept_checkpointed if getattr(recipe, "gradient_checkpointing", False) else cost.kept
    return states(cost, 1) + cost.fixed + cost.casts + batch * kept


def measured(recipe: Any, name: str, batch: int, folder: Path) -> float:
    """Take two steps on the CPU → bytes at the peak, over those before."""
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    stage: Any
    if isinstance(recipe, recipes.DFVQGANRecipe):
        size = recipe.model.resolution * 5 // 4
        images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
        photos = PhotoBatch(images, [""] * batch, torch.zeros(batch), [""] * batch)
        before = held("VmRSS")
        stage = DFVQGANStage(recipe, None, accelerator)  # type: ignore[arg-type]
    else:
        (h, w), side = recipe.model.grid, recipe.model.image_size
        save_model(folder / name / "dfvqgan", dfvqgan=DFVQGAN(DFVQGANConfig.preset(name)))
        masks = torch.zeros(batch, 1, side, side, dtype=torch.bool)
        masks[..., : side // 2] = masks[0] = True
        tokens = torch.zeros(batch, h, w, dtype=torch.int64)
        photos = TokenBatch(torch.zeros(batch, 3, side, side), masks, tokens, tokens, ["a photo of a bear"] * batch)
        cache: Any = SimpleNamespace(
            folder=folder / name, captions=[[text] for text in photos.captions], factor=side // h
        )
        before = held("VmRSS")
        stage = MPS2SStage(recipe, cache, accelerator)
    for step in (2, 1):
        stage.step(recipe.schedule.steps - step, photos)
    return held("VmHWM") - before


if __name__ == "__main__":
    stage, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    chosen = recipes.named(stage, name)
    chosen = dataclasses.replace(chosen, schedule=dataclasses.replace(chosen.schedule, batch_size=size, accumulate=1))
    if stage == "dfvqgan":
        chosen = dataclasses.replace(chosen, perceptual="squeezenet")
    with tempfile.TemporaryDirectory() as folder:
        small = dataclasses.replace(chosen, model=type(chosen.model).preset("tiny"))
        measured(small, "tiny", 2, Path(folder))
        peak = measured(chosen, name, size, Path(folder))
    print(f"{stage} {name}, {size} samples: measured {peak / 1e6:.0f} MB, planned {planned(chosen, size) / 1e6:.0f} MB")
