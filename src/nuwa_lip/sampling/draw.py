"""How a token is drawn from its logits: guidance, temperature, top-k, top-p.

Legend: C candidates, G memories (2 with guidance), V codebook.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nuwa_lip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How a token is drawn from its logits.

    Args:
        guidance_scale: 1 is the model itself, above it the caption counts for more.
        temperature: 0 takes the likeliest.
        top_k: draw from the k likeliest only.
        top_p: draw from the likeliest only, as many as have this probability together (after `temperature`).

    Raises:
        InputError: a value is out of range.
    """

    guidance_scale: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.guidance_scale):
            raise InputError(f"guidance_scale is {self.guidance_scale}; it must be a finite number")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be a finite number, 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; it must be 1 or more, or None for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    @property
    def guided(self) -> bool:
        """Whether the unconditional memory takes part."""
        return self.guidance_scale != 1

    def guide(self, logits: Tensor) -> Tensor:
        """Logits of the memories [G · C, ..., V] → those to draw from, float64 [C, ..., V]."""
        logits = logits.double()
        if not self.guided:
            return logits
        conditional, unconditional = logits.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def __call__(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Draw tokens int64 [...] from logits [..., V] by inverting the distribution function at `uniform`.

        Args:
            logits: float.
            uniform: float64 [...], from 0 to below 1.
        """
        if self.temperature == 0:
            return logits.argmax(-1)
        # the largest is taken off first, so that no temperature can overflow
        scaled = (logits.double() - logits.amax(-1, keepdim=True)) / self.temperature
        probabilities = scaled.softmax(-1)
        if self.top_k is None and self.top_p is None:
            return _invert(probabilities, uniform)
        probabilities, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            probabilities[..., self.top_k :] = 0
        if self.top_p is not None:
            before = probabilities.cumsum(-1) - probabilities  # probability of all that are likelier
            probabilities.masked_fill_(before >= self.top_p * probabilities.sum(-1, keepdim=True), 0)
        return tokens.gather(-1, _invert(probabilities, uniform)[..., None])[..., 0]


def _invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The token [...] under which each of `uniform` [...] falls; probabilities [..., V] in any scale."""
    total = probabilities.cumsum(-1)
    index = torch.searchsorted(total, uniform[..., None] * total[..., -1:], right=True)
    return index[..., 0].clamp(max=probabilities.shape[-1] - 1)
