"""How the missing tokens are sampled: one object, handed whole from a model's config.json to the last step."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import get_type_hints

from nuwa_lip.disk import fits
from nuwa_lip.errors import InputError
from nuwa_lip.models.groups import check_schedule
from nuwa_lip.models.orders import check_order

MAX_GUIDANCE = 1_000_000
"""Far beyond what changes anything; without a limit the logits become infinite."""

MAX_REVISIONS = 1_000
"""Far beyond what changes a picture for the better."""

REVISING = 0.25
"""Share of the guidance beyond 1 with which revisions draw: what the caption asks for is there by then, and pushed
again and again, colours get harder (results/ablations.md)."""

MAX_SQUARES = 100_000
"""Enough for a hole of a gigapixel."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of sampling; a model's own are `sampling` in its config.json.

    Raises:
        InputError: a value is of another type, or out of range.
    """

    guidance_scale: float = 1.0
    """Logits are u + scale · (c - u), c with and u without the caption: above 1 it is followed more closely."""
    temperature: float = 1.0
    """Divides the logits: below 1 likelier tokens are preferred, above 1 less so; 0 takes the likeliest."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only; None or 0: from all."""
    top_p: float | None = None
    """Draw from the likeliest tokens only that have this probability together, after `temperature`; None: from all."""
    order: str = "raster"
    """One of `orders.ORDERS`. With the schedule "confidence" it only decides where a token stands among equals, and
    which random number it is drawn by."""
    num_inference_steps: int | None = None
    """S, parallel steps; more than tokens are missing, or None: one token a step."""
    schedule: str = "cosine"
    """How many tokens each step decides, and which: one of `groups.SCHEDULES`."""
    revisions: int = 0
    """How many times about half of what is painted, elsewhere each time, is drawn anew beside the rest, with less
    guidance and in random order, which the model must know. Each takes a third to a half of the steps once more; with
    a single step there is no rest, and nothing is drawn anew."""
    squares: int = 0
    """Most squares in which the second pass paints a large hole anew at a finer scale (`painters.second_pass`); for the
    pipeline. 0: none, as the model must have been trained for it."""
    blend: bool = False
    """Whether the colours of what is painted are fitted to the known pixels at the hole's edge; for the pipeline."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not fits(value, kinds[field.name]):
                raise InputError(f"{field.name} is {value!r}; it must be {field.type}")
        if not abs(self.guidance_scale) <= MAX_GUIDANCE:
            raise InputError(
                f"guidance_scale is {self.guidance_scale}; it must be a finite number, at most {MAX_GUIDANCE:,}"
            )
        if not 0 <= self.temperature <= sys.float_info.max:
            raise InputError(f"temperature is {self.temperature}; it must be a finite number, 0 or more")
        if self.top_k is not None and self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 1 or more, or None or 0 for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        steps = self.num_inference_steps
        if steps is not None and steps < 1:
            raise InputError(f"num_inference_steps is {steps}; it must be 1 or more, or None for one token a step")
        if not 0 <= self.revisions <= MAX_REVISIONS:
            raise InputError(f"revisions is {self.revisions}; it must be 0 to {MAX_REVISIONS:,}")
        if not 0 <= self.squares <= MAX_SQUARES:
            raise InputError(f"squares is {self.squares}; it must be 0 to {MAX_SQUARES:,}")
        check_order(self.order)
        check_schedule(self.schedule)

    @property
    def guided(self) -> bool:
        """Return whether the memory without a caption takes part."""
        return self.guidance_scale != 1

    @property
    def revising(self) -> "Sampling":
        """Return the settings that revisions draw with."""
        scale = 1 + REVISING * (self.guidance_scale - 1)
        return dataclasses.replace(self, guidance_scale=scale) if self.guided and scale != 1 else self

    @property
    def by_confidence(self) -> bool:
        """Return whether every step predicts all missing tokens, and keeps those of which the model is surest."""
        return self.schedule == "confidence"
