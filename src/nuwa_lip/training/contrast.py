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

MOST_COMPARED = 64
"""Most captions of a batch among which one is drawn, so that large batches need not be waited for."""


def other_captions(captions: Sequence[str], batch: Sequence[str], rng: Sequence[np.random.Generator]) -> list[str]:
    """Draw for each photo another caption of the batch, the likelier the more words it shares with the photo's own.

    Those that share many differ in what counts: "a red flower", "a white flower".

    Args:
        captions: B of them.
        batch: all captions among which to draw, the same for all processes; blank ones tell nothing, and are none.
        rng: one for each photo.

    Returns:
        B captions, a photo's own where that is blank or the batch has none of other words.
    """
    different = sorted({caption for caption in batch if caption.split()})
    pool = different[:: -(-len(different) // MOST_COMPARED) or 1]
    words = [frozenset(caption.lower().split()) for caption in pool]

    def other(own: str, rng: np.random.Generator) -> str:
        mine = frozenset(own.lower().split())
        # the square prefers what is alike; the small sum lets those in that share nothing
        alike = np.array([(len(mine & w) / len(mine | w)) ** 2 + 1e-3 if w != mine else 0.0 for w in words])
        if not mine or not alike.any():
            return own
        return pool[rng.choice(len(pool), p=alike / alike.sum())]

    return [other(*pair) for pair in zip(captions, rng, strict=True)]


def contrast_loss(logits: Tensor, others: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """Compute how badly the tokens tell the photo's caption from the other: nats a photo over its tokens, as a mean.

    Divided by the tokens it has the unit of Eq. 15. What both captions make as likely gives no gradient.

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
