"""The loss on photos that are held out: whether a training still learns what holds for others."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator

from nuwa_lip.training.stage import Stage

BATCHES = 8
"""Batches of the schedule's size that are measured each time, always the same ones."""
FAR = 10**8
"""Step that seeds their holes and crops, which no training reaches."""


def held_out(source: Any, accelerator: Accelerator) -> Callable[[Stage], dict[str, float]]:
    """Make what measures a stage on other photos.

    Args:
        source: photos or a token cache, like the stage's own.
        accelerator: device and processes.
    """

    def validate(stage: Stage) -> dict[str, float]:
        schedule = stage.recipe.schedule
        place = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
        batches = source.batches(schedule.batch_size, seed=0, **place)
        losses = torch.stack([stage.held_out_loss(FAR + i, next(batches)) for i in range(BATCHES)])
        return {"validation": float(stage.mean({"loss": losses.mean()})["loss"])}

    return validate
