"""How a tokenizer that was trained on whole photos reads one with a hole, by several ways of encoding it.

    defect-free   relative estimation, ours: convolutions, norms and attention see known positions only
    zero          zeros in the hole, then the plain encoder
    partial       partial convolutions, norms and attention plain
    filled        the hole filled smoothly from its edge, then the plain encoder

Whatever stands in the hole, none of them sees it. A code of a known token is right if it is that of the complete
photo. The ring's error is what the decoder then makes, without connections, of the known pixels beside the hole: tokens
of known cells from the encoding, those of the hole from the complete photo, so that nothing but the encodings differs.

Legend: S side of the square, h w token grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.distances import mean_and_interval
from nuwa_lip.evaluation.store import Store
from nuwa_lip.evaluation.tokenizers import Squares, changed_form, load_tokenizer
from nuwa_lip.images.seams import blend
from nuwa_lip.models import DFVQGAN

Encoding = Literal["defect-free", "zero", "partial", "filled"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
SWITCHES = {
    "defect-free": {"relative_estimation": True, "partial_convolution": False},
    "zero": {"relative_estimation": False, "partial_convolution": False},
    "partial": {"relative_estimation": False, "partial_convolution": True},
}
"""Of a DF-VQGAN's configuration; the weights are the same."""
FIGURES = ("agreement", "ring")


class Encoders:
    """One tokenizer in the forms that encode a photo with a hole in different ways."""

    def __init__(self, model: DFVQGAN, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(names)
        self.forms = {name: changed_form(model, SWITCHES[name]) for name in self.names if name in SWITCHES}

    @classmethod
    def load(cls, name: str, names: Sequence[str]) -> Encoders:
        """Load a model's stage 1.

        Args:
            name: bundled name, local folder or hub id.
            names: of the ways of encoding.

        Raises:
            InputError: there is no such model, or no such way.
        """
        unknown = [one for one in names if one not in ENCODINGS]
        if unknown or not names:
            raise InputError(f"there is no encoding {', '.join(unknown) or ''!r}; there are: {', '.join(ENCODINGS)}")
        return cls(load_tokenizer(name), tuple(dict.fromkeys(names)))

    def tokens(self, name: str, image: Tensor, mask: Tensor) -> Tensor:
        """Encode a photo [1, 3, S, S] with its hole, bool [1, 1, S, S], in one of these ways → int64 [1, h, w].

        Args:
            name: the way.
            image: in [-1, 1], NaN allowed in the hole.
            mask: True = defective.
        """
        if name == "filled":
            return self.model.encode(fill(image, mask)).tokens
        return self.forms[name].encode(image, mask).tokens


def fill(image: Tensor, mask: Tensor) -> Tensor:
    """Fill the hole by a membrane from the known pixels at its edge, or by grey: [1, 3, S, S] in [-1, 1]."""
    known = ((image.masked_fill(mask, 0) + 1) / 2)[0].permute(1, 2, 0).numpy()
    hole = mask[0, 0].numpy()
    filled = blend(np.full_like(known, 0.5), known, hole, hole)
    return torch.where(mask, torch.from_numpy(filled).permute(2, 0, 1)[None] * 2 - 1, image)


@torch.inference_mode()
def probe(encoders: Encoders, item: BenchmarkItem) -> dict[str, np.ndarray]:
    """Measure one photo: agreement and ring of every way, [1] each; ring of the complete photo; share of lost pixels.

    Args:
        encoders: the tokenizer.
        item: at the model's resolution.
    """
    image, mask = item.tensors()
    config, whole = encoders.model.config, encoders.model.encode(image).tokens
    lost = F.max_pool2d(mask.float(), config.factor).bool()  # [1, 1, h, w]
    known = ~lost[:, 0]
    near = F.max_pool2d(mask.float(), 2 * config.factor + 1, 1, config.factor).bool() & ~mask

    def ring(tokens: Tensor) -> np.ndarray:
        error = (encoders.model.decode(tokens).clamp(-1, 1) - image).abs() * 127.5
        return _mean(error[near.expand_as(error)])

    beside = (lost.repeat_interleave(config.factor, 2).repeat_interleave(config.factor, 3) & ~mask).float().mean()
    found = {"whole.ring": ring(whole), "lost": beside.reshape(1).numpy()}
    for name in encoders.names:
        tokens = encoders.tokens(name, image, mask)
        found[f"{name}.agreement"] = _mean((tokens == whole)[known].float())
        found[f"{name}.ring"] = ring(torch.where(known, tokens, whole))
    return found


def measure(encoders: Encoders, benchmark: Benchmark, store: Store, items: Iterable[int]) -> None:
    """Measure photos.

    Args:
        encoders: the tokenizer.
        benchmark: the photos.
        store: gets the figures of each photo.
        items: numbers of photos.
    """
    squares = Squares(benchmark, encoders.model.config.resolution)
    store.fill(items, lambda index: probe(encoders, squares[index]))


def summarise_encodings(store: Store, n: int, names: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Compute the figures of the first n photos → those of each way, and what they have in common.

    Of each way: `agreement`, the share of the known tokens that are those of the complete photo, `ring`, the mean
    absolute error of the known pixels within a token's side of the hole, in levels of 255, and `intervals_95` of both.

    Args:
        store: has all of these photos.
        n: number of photos.
        names: of the ways of encoding.
    """
    keys = [f"{name}.{figure}" for name in names for figure in FIGURES]
    columns = store.load(n, [*keys, "whole.ring", "lost"])
    found = {key: mean_and_interval(column[:, 0].astype(np.float64)) for key, column in columns.items()}
    figures = {}
    for name in names:
        own = {figure: found[f"{name}.{figure}"] for figure in FIGURES}
        means, intervals = ({figure: pair[i] for figure, pair in own.items()} for i in (0, 1))
        figures[name] = {**means, "intervals_95": intervals}
    return figures, {"whole_ring": found["whole.ring"][0], "lost_pixels": found["lost"][0]}


def _mean(values: Tensor) -> np.ndarray:
    """Average, NaN of none: [1]."""
    return values.double().mean().reshape(1).numpy()
