"""How a model is sampled when the caller does not say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import get_type_hints

from nuwa_lip.disk import fits
from nuwa_lip.errors import InputError
from nuwa_lip.models.groups import check_schedule
from nuwa_lip.models.orders import check_order
from nuwa_lip.sampling.draw import Draw
from nuwa_lip.sampling.loop import check_steps


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """How a model is sampled when the caller does not say (`sampling` in config.json).

    Raises:
        InputError: a value is of another type, or out of range.
    """

    guidance_scale: float = 1.0
    """Above 1 the caption is followed more closely."""
    temperature: float = 1.0
    """Below 1 likelier tokens are preferred, above 1 less so."""
    top_k: int | None = None
    """Draw from so many of the likeliest tokens; None or 0: all."""
    top_p: float | None = None
    """Draw from the likeliest tokens that have this share of the probability; None: all."""
    order: str = "raster"
    """Of decoding: raster, random or border."""
    num_inference_steps: int | None = None
    """S, parallel steps; None: one token a step."""
    schedule: str = "cosine"
    """How many tokens each step decides, and which: cosine, constant or confidence."""
    blend: bool = False
    """Fit the colours of what is painted to the known pixels at the hole's edge."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not fits(value, kinds[field.name]):
                raise InputError(f"{field.name} is {value!r}; it must be {field.type}")
        Draw(
            guidance_scale=self.guidance_scale,
            temperature=self.temperature,
            top_k=self.top_k or None,
            top_p=self.top_p,
        )
        check_order(self.order)
        check_steps(self.num_inference_steps)
        check_schedule(self.schedule)
