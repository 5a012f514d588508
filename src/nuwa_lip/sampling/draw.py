"""How a token is drawn from its logits: guidance, temperature, top-k, top-p.

Legend: C candidates, G memories (2 with guidance), R tokens, V codebook.
"""

import torch
from torch import Tensor

from nuwa_lip.sampling.settings import Sampling


def guide(logits: Tensor, sampling: Sampling) -> Tensor:
    """Combine the logits of G memories [G · C, R, V] → those to draw from, float64 [C, R, V]."""
    logits = logits.double()
    if not sampling.guided:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + sampling.guidance_scale * (conditional - unconditional)


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Draw tokens int64 [...] by inverting the distribution function.

    Args:
        logits: [..., V], of `guide`.
        uniform: float64 [...], from 0 to below 1, where the distribution function is inverted.
        sampling: its temperature, top_k and top_p.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # the largest is subtracted first, so that no temperature can overflow
    scaled = (logits.double() - logits.amax(-1, keepdim=True)) / sampling.temperature
    probabilities = scaled.softmax(-1)
    if not sampling.top_k and sampling.top_p is None:
        return _invert(probabilities, uniform)
    probabilities, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k:
        probabilities[..., sampling.top_k :] = 0
    if sampling.top_p is not None:
        before = probabilities.cumsum(-1) - probabilities  # probability of all that are likelier
        probabilities.masked_fill_(before >= sampling.top_p * probabilities.sum(-1, keepdim=True), 0)
    return tokens.gather(-1, _invert(probabilities, uniform)[..., None])[..., 0]


def _invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the token [...] under which each of `uniform` [...] falls; probabilities [..., V] in any scale."""
    total = probabilities.cumsum(-1)
    index = torch.searchsorted(total, uniform[..., None] * total[..., -1:], right=True)
    return index[..., 0].clamp(max=probabilities.shape[-1] - 1)
