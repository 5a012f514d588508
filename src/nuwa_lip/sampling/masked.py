"""Sampling from a bidirectional transformer, which predicts all masked tokens at once (MaskGIT, Muse, aMUSEd).

Every step runs the whole grid, so there is no cache, and any step may decide any tokens. The schedule "confidence" is
the one that diffusers uses for inpainting with aMUSEd: after step s of S, K · (S - s) / S tokens are still masked:
those with the least log-probability plus Gumbel noise, which cools down to none; what is masked is drawn anew in every
step. The other schedules, and the orders, are those of `nuwa_lip.models`.

Legend: h w token grid, N = h · w, K masked tokens, S steps, V codes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nuwa_lip.models.groups import group_sizes
from nuwa_lip.models.orders import decoding_order
from nuwa_lip.sampling.draw import draw
from nuwa_lip.sampling.settings import Sampling

HEAT = 2.0
"""Factor of the Gumbel noise in the first step, at temperature 1."""


def sample_masked(
    predict: Callable[[Tensor, int], Tensor],
    known: Tensor,
    mask_id: int,
    sampling: Sampling,
    generator: torch.Generator,
    callback: Callable[[int, int], None],
) -> tuple[Tensor, Tensor]:
    """Predict masked tokens → all tokens int64 [1, h, w], and the mean log-probability of those that were masked.

    Args:
        predict: (tokens int64 [1, h, w], masked ones too; steps that follow) → guided logits, float32 [N, V].
        known: int64 [1, h, w], `mask_id` somewhere.
        mask_id: stands where a token is masked.
        sampling: how tokens are drawn.
        generator: on the CPU, of all random numbers.
        callback: called as f(step, S) after each step.
    """
    tokens, K, found = known.flatten(), int((known == mask_id).sum()), 0
    total = torch.zeros((), device=known.device)
    sizes = group_sizes(K, sampling.num_inference_steps, sampling.schedule)
    S, order = len(sizes), decoding_order(sampling.order, known == mask_id, generator)
    for step, size in enumerate(sizes, 1):
        logits, masked = predict(tokens.view_as(known), S - step), tokens == mask_id
        # numbers for known tokens too, as diffusers draws them
        uniform = torch.rand(len(tokens), generator=generator, dtype=torch.float64).to(known.device)
        drawn = draw(logits, uniform, sampling)
        logp = logits.log_softmax(-1).gather(-1, drawn[:, None])[:, 0]
        if sampling.by_confidence:
            heat = HEAT * sampling.temperature * (S - step) / max(1, S - 1)
            sureness = (logp + heat * _gumbel(logp, generator)).masked_fill(~masked, torch.inf)
            left = 0 if step == S else max(1, min(K - found - 1, K * (S - step) // S))
            now = masked & (sureness >= sureness.sort().values[left])
        else:
            now = torch.zeros_like(masked).index_fill_(0, order[found : found + size], True)
        tokens, total, found = torch.where(now, drawn, tokens), total + logp[now].sum(), found + int(now.sum())
        callback(step, S)
    return tokens.view_as(known), total / K


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator).clamp(1e-20)
    return -(-uniform.log()).clamp(1e-20).log().to(like)
