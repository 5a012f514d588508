"""How likely a model finds what really was in the hole, given its caption and given others (Table 4).

Bits per defective token are teacher-forced: -log2 P(z_k | z_<k, c) of Eq. 15 in the model's own order of decoding,
mean over a photo's defective tokens, then over photos. They compare models of the same tokenizer only.

The caption rank measures text guidance without CLIP: how often the true caption gives the hole's true tokens a higher
likelihood than nine other captions of the set. A model that does not listen is right in 10 % of the photos.

Photos are brought to the model's square first (`tokenizers.Squares`), so that all models see the same holes.

Legend: C captions of a photo (the true one, others, none), K defective tokens, T text, h w token grid, N photos.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.distances import Interval, mean_and_interval
from nuwa_lip.evaluation.store import Store
from nuwa_lip.evaluation.tokenizers import Squares
from nuwa_lip.hub import ModelParts
from nuwa_lip.models.orders import decoding_order, target_tokens

OTHERS = 9
"""Number of other captions that the true one is compared with."""
FIGURES = ("bits", "bits_swapped", "bits_without", "swap_gain", "caption_rank", "caption_wins")
"""Figures of each photo, NaN where the model reads no captions."""


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The figures of one model on one benchmark; those that need a caption are None for a model without text."""

    n: int
    """Photos."""
    others: int
    """Other captions that each true one was compared with."""
    order: str
    """Order of decoding."""
    figures: dict[str, float | None]
    """`bits` per defective token with the true caption, `bits_swapped` with another photo's (mean over the others),
    `bits_without` with ""; `swap_gain` = swapped - true; `caption_rank`: share of photos whose true caption is ahead
    of all others (those that are as likely share the place); `caption_wins`: share of the others that it is ahead of
    (a tie counts half)."""
    intervals: dict[str, Interval | None]
    """95 %, by bootstrap over the photos; of the differences paired, for both captions see the same photo."""
    per_photo: dict[str, list[float]]
    """`bits`, for paired comparisons with other models of the same tokenizer, and `swap_gain`."""

    def as_json(self) -> dict[str, Any]:
        """Give the figures as the report has them."""
        about = {"n": self.n, "others": self.others, "order": self.order}
        return {**about, **self.figures, "intervals_95": self.intervals, "per_photo": self.per_photo}


def other_captions(captions: Sequence[str], index: int, count: int, seed: int = 0) -> list[str]:
    """Draw captions of the set that differ from that of photo `index` and from each other.

    Args:
        captions: of all photos.
        index: of the photo.
        count: how many are drawn.
        seed: of the choice.

    Raises:
        InputError: the set has too few different ones.
    """
    pool = sorted(set(captions) - {captions[index]})
    if len(pool) < count:
        raise InputError(
            f"{count} other captions are asked for, but the benchmark has {len(pool)} that differ from that of photo "
            f"{index}: take a larger benchmark, or lower --others"
        )
    rng = np.random.default_rng([seed, index])
    return [pool[i] for i in rng.choice(len(pool), count, replace=False)]


def others_at_hand(captions: Sequence[str], count: int) -> int:
    """Count the other captions that every photo of the set has, at most `count`.

    Raises:
        InputError: all photos have the same caption.
    """
    different = len(set(captions))
    if count and different < 2:
        raise InputError(f"all photos of the benchmark have the caption {captions[0]!r}: there is none to compare with")
    return min(count, different - 1)


@torch.inference_mode()
def caption_bits(parts: ModelParts, item: BenchmarkItem, captions: Sequence[str]) -> np.ndarray:
    """Compute the bits per defective token of the photo's true tokens, given each of these captions: float64 [C].

    Args:
        parts: a complete model, in eval mode.
        item: at the model's resolution.
        captions: C of them; a model without text gives each the same.
    """
    model, tokenizer = parts.mps2s, parts.tokenizer
    assert model is not None and tokenizer is not None
    y, m = item.tensors()
    known, _, token_mask, tokens = parts.dfvqgan.encode_pair(y, m)
    generator = torch.Generator().manual_seed(item.index)  # for the random order
    order = decoding_order(parts.sampling.order, token_mask, generator)[None]  # [1, K]
    targets = target_tokens(tokens, order)
    memory = model.encode(tokenizer([""]), y.masked_fill(m, 0), m, known.tokens, token_mask)
    memory = model.with_captions(memory.repeat(len(captions)), tokenizer(list(captions)))
    count = len(memory.states)
    logits = model.decoder.predict(memory, targets.expand(count, -1), order.expand(count, -1))  # [C, K, V]
    nats = F.cross_entropy(logits.transpose(1, 2), targets.expand(count, -1), reduction="none")
    return (nats.double().mean(1) / np.log(2)).numpy()


def measure_likelihood(
    parts: ModelParts, benchmark: Benchmark, store: Store, items: Iterable[int], *, others: int = OTHERS, seed: int = 0
) -> None:
    """Measure photos, except those that the store has already.

    Args:
        parts: a complete model.
        benchmark: the photos.
        store: gets their bits.
        items: numbers of photos.
        others: other captions that the true one is compared with.
        seed: of their choice.

    Raises:
        InputError: a picture cannot be used, or there are too few captions; the photos before stay in the store.
    """
    squares, model = Squares(benchmark, parts.dfvqgan.config.resolution), parts.mps2s
    assert model is not None

    def of_photo(index: int) -> dict[str, np.ndarray]:
        item = squares[index]
        if model.text is None:
            return {"bits": caption_bits(parts, item, [""])}
        others_ = other_captions(benchmark.captions, index, others, seed)
        return {"bits": caption_bits(parts, item, [item.caption, "", *others_])}

    store.fill(items, of_photo)


def summarise_likelihood(store: Store, n: int, order: str) -> Likelihood:
    """Compute all figures of the first photos.

    Args:
        store: has their bits.
        n: number of photos.
        order: of decoding, for the report.
    """
    bits = store.load(n, ["bits"])["bits"]  # [N, 1] or [N, 2 + others]
    true: np.ndarray = bits[:, 0]
    others: np.ndarray = bits[:, 2:]
    per_photo: dict[str, np.ndarray] = {"bits": true}
    if bits.shape[1] > 1:
        per_photo["bits_without"] = bits[:, 1]
    if others.shape[1]:
        wins = (true[:, None] < others) + 0.5 * (true[:, None] == others)
        per_photo["bits_swapped"] = np.asarray(others.mean(1))
        per_photo["swap_gain"] = per_photo["bits_swapped"] - true
        alike = (true[:, None] == others).sum(1)  # who is as likely shares the first place
        per_photo["caption_rank"] = np.where((true[:, None] <= others).all(1), 1 / (1 + alike), 0.0)
        per_photo["caption_wins"] = np.asarray(wins.mean(1))
    found = {name: mean_and_interval(per_photo[name]) if name in per_photo else (None, None) for name in FIGURES}
    return Likelihood(
        n=n,
        others=others.shape[1],
        order=order,
        figures={name: mean for name, (mean, _) in found.items()},
        intervals={name: interval for name, (_, interval) in found.items()},
        per_photo={
            name: [round(float(value), 6) for value in per_photo[name]]
            for name in ("bits", "swap_gain")
            if name in per_photo
        },
    )
