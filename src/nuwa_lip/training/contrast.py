"""Telling a photo's caption from another: what raises the share that the caption has in what is painted.

Eq. 15 alone lets a small model ignore captions, for most of a token is told by its surroundings. Here the tokens of a
photo are also to say which of two captions is theirs, log sigmoid(log p(x | own) - log p(x | other)), the pairwise
case of maximising the information between caption and photo (InfoNCE, arXiv 1807.03748; for generators of tokens:
condition contrastive alignment, arXiv 2410.09347). Eq. 15 beside it keeps p(x | own) a likelihood.

Legend: B photos, K defective tokens, V codes.
"""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def other_captions(captions: Sequence[str], rng: Sequence[np.random.Generator]) -> list[str]:
    """Draw for each photo another caption of the batch, the likelier the more words it shares with the photo's own.

    Those that share many differ in what counts: "a red flower", "a white flower".

    Args:
        captions: B of them; "" tells nothing and is no other caption.
        rng: one for each photo.

    Returns:
        B captions, a photo's own where it is "" or the batch has no other.
    """
    words = {caption: set(caption.lower().split()) for caption in sorted(set(captions)) if caption}

    def other(own: str, rng: np.random.Generator) -> str:
        pool = [caption for caption in words if caption != own]
        if not own or not pool:
            return own
        # the square prefers what is alike; the small sum lets those in that share nothing
        alike = [(len(words[own] & words[c]) / len(words[own] | words[c])) ** 2 + 1e-3 for c in pool]
        return pool[rng.choice(len(pool), p=np.array(alike) / sum(alike))]

    return [other(*pair) for pair in zip(captions, rng, strict=True)]


def contrast_loss(logits: Tensor, others: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """Compute how badly the tokens tell the photo's caption from the other: nats a photo over its tokens, as a mean.

    Divided by the tokens it has the unit of Eq. 15, of which its gradient takes away what both captions share.

    Args:
        logits: float [B, K, V], given the photo's own caption.
        others: the same, given the other one; alike where a photo has none, which gives no gradient.
        targets: int64 [B, K].
        real: bool [B, K], which rows count.
    """
    own, other = (
        (F.cross_entropy(x.transpose(1, 2), targets, reduction="none") * real).sum(1) for x in (logits, others)
    )
    return (F.softplus(own - other) / real.sum(1).clamp(min=1)).mean()
