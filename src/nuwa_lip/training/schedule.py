"""The schedule of a training: number of steps, batch size, learning rate and precision."""

import math
from dataclasses import dataclass
from typing import Literal

from nuwa_lip.disk.fields import ANY, Bounds, check_bounds
from nuwa_lip.errors import InputError

Precision = Literal["auto", "fp32", "bf16"]
STEPS = (ANY, 10**10)
BOUNDS: Bounds = {
    "steps": STEPS,
    "batch_size": (ANY, 2**20),
    "accumulate": (ANY, 2**20),
    "learning_rate": (ANY, 1e3),
    "final_learning_rate": (0, 1e3),
    "warmup": (ANY, 1e3),
    "betas": (0, 1),
    "weight_decay": (0, 1e3),
    "clip": (ANY, float("inf")),
    "ema": (ANY, 1e3),
    "seed": (ANY, float("inf")),
    "log_every": STEPS,
    "sheet_every": STEPS,
    "checkpoint_every": STEPS,
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, batch size and speed of a training; points in time are shares of `steps`, so a budget moves them."""

    steps: int
    """Optimizer steps in all."""
    batch_size: int
    """Photos of one step, of all processes together."""
    accumulate: int = 1
    """Parts into which a process cuts its share of a batch, to save memory; the result stays the same."""
    learning_rate: float
    """Largest learning rate, reached after the warm-up; from there it falls along a cosine."""
    final_learning_rate: float = 0.05
    """Learning rate of the last step, as a share of `learning_rate`."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from zero."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: of MP-S2S the matrices of linear layers learn by Muon, whose steps are as long as AdamW's but alike in all
    directions, and only the rest by AdamW. It computes in bf16, which costs seconds a step where that is emulated."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the running means of gradients and of their squares."""
    weight_decay: float = 0.05
    """Weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of a step's gradients; longer ones are scaled down to it."""
    ema: float = 0.999
    """Decay of the averaged weights, which are exported; it is less in the first steps. 0: no average."""
    precision: Precision = "auto"
    """auto: bf16 where the hardware computes faster in it, else fp32."""
    compile: bool = False
    """Fuse the operations of repeated blocks by `torch.compile`: the first steps take up to a minute longer. On a CPU
    it needs a C++ compiler and Python's headers."""
    seed: int = 0
    """Seed of all random numbers."""
    log_every: int = 10
    """Steps from one line of metrics to the next."""
    sheet_every: int = 500
    """Steps from one sheet of samples to the next."""
    checkpoint_every: int = 500
    """Steps from one checkpoint to the next."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS, "schedule.")
        for name in ("steps", "batch_size", "accumulate", "log_every", "sheet_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"schedule.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} cannot be split into {self.accumulate} equal parts")
        if not (0 <= self.warmup <= 1 and 0 <= self.ema < 1):
            raise InputError(f"schedule.warmup {self.warmup} and ema {self.ema} must be within 0 to 1")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"schedule.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"schedule.seed is {self.seed}; it must be 0 or more, and below 2**63")

    def learning_rate_at(self, step: int) -> float:
        """Compute the learning rate of a step, counted from 0."""
        rise = math.ceil(self.warmup * self.steps)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        done = (step - rise) / max(1, self.steps - rise)
        low = self.final_learning_rate
        return self.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)
