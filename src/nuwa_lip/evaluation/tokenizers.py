"""What a DF-VQGAN or VQGAN makes of photos with a hole: the figures of Tables 2 and 3.

    reconstruction   the complete photo through E without a mask, and back without connections
    oracle           the hole's tokens from the complete photo, the known ones from the photo with its hole, decoded
                     as the model does: DF-VQGAN with the connections, VQGAN without
    pasted           oracle with the known pixels put over it (VQGAN-P); DF-VQGAN keeps them by itself

Photos are brought to the model's square first, so that every tokenizer of a resolution sees the same pixels.

Legend: S side of the square, h w token grid, n known tokens of a photo, n_z width of a latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.evaluation.distances import Interval, mean_and_interval
from nuwa_lip.evaluation.images import Figures, Observer, summarise
from nuwa_lip.evaluation.store import Store
from nuwa_lip.evaluation.weights import Weights
from nuwa_lip.fast import speed_up
from nuwa_lip.hub import load_model
from nuwa_lip.images.photo import as_photo
from nuwa_lip.images.windows import Box, look
from nuwa_lip.models import DFVQGAN

METHODS = ("reconstruction", "oracle", "pasted")
FIGURES = ("distance", "relative_distance", "changed", "usage", "perplexity")
"""Figures of the latents and codes."""
KEPT = 16
"""Latents of each complete photo that are kept, to tell how far apart latents of this model are at all."""
PAIRS = 20_000


class Probe(NamedTuple):
    """The results of one photo."""

    photos: dict[str, np.ndarray]
    """uint8 [S, S, 3] by the names of `METHODS`."""
    arrays: dict[str, np.ndarray]
    """`distance` [1] and `changed` [1], means over the known tokens (NaN where there are none); `latents` [KEPT, n_z]
    and `tokens` [h, w] of the complete photo."""


@dataclass(frozen=True, kw_only=True)
class TokenizerFigures:
    """The figures of one DF-VQGAN or VQGAN on one benchmark."""

    photos: dict[str, Figures]
    """Figures of reconstruction, oracle inpainting and pasted oracle inpainting."""
    distance: float | None
    """Average distance (Table 2): Euclidean, over known tokens, between the latents of the photo with its hole and
    those of the complete photo by the plain encoder, before quantisation. None, as the next two are, if no photo has
    a known token."""
    relative_distance: float | None
    """`distance` / `scale`; None too where `scale` is 0."""
    changed: float | None
    """Share of the known tokens whose code changes when the hole is cut out."""
    scale: float
    """Mean distance of random pairs of the complete photos' latents."""
    usage: float
    """Share of the codes that the complete photos use."""
    perplexity: float
    """Perplexity of their use."""
    intervals: dict[str, Interval | None]
    """95 % intervals of `distance`, `relative_distance` and `changed`, by bootstrap over the photos."""

    def as_json(self) -> dict[str, Any]:
        """Give the figures as the report has them."""
        return {
            **{name: getattr(self, name) for name in FIGURES},
            "intervals_95": self.intervals,
            **{name: figures.as_json() for name, figures in self.photos.items()},
        }


class Squares:
    """A benchmark's photos at S x S: reduced by the area's average; a pixel is hole if any pixel under it is."""

    def __init__(self, benchmark: Benchmark, side: int) -> None:
        self.benchmark, self.side = benchmark, side

    def __len__(self) -> int:
        return len(self.benchmark)

    def __getitem__(self, index: int) -> BenchmarkItem:
        item = self.benchmark[index]
        photo, whole = as_photo(item.image), Box(0, 0, *item.mask.shape)
        image = look(photo, np.zeros_like(item.mask), whole, self.side).image
        mask = look(photo, item.mask, whole, self.side).mask
        pixels = (image * 255).round().astype(np.uint8)
        return replace(item, image=pixels, mask=mask)


def load_tokenizer(model: str, changes: Mapping[str, Any] | None = None) -> DFVQGAN:
    """Load stage 1 of a model: bundled name, local folder or hub id; `changes` as of `changed_form`."""
    loaded = load_model(model, need_mps2s=False).dfvqgan
    return changed_form(loaded, changes) if changes else loaded


def changed_form(model: DFVQGAN, changes: Mapping[str, Any]) -> DFVQGAN:
    """Give a tokenizer with other switches of its configuration, which leave the weights as they are."""
    other = speed_up(DFVQGAN(replace(model.config, **changes)).eval())
    other.load_state_dict(model.state_dict())
    return other


@torch.inference_mode()
def probe(model: DFVQGAN, item: BenchmarkItem) -> Probe:
    """Put one photo through a tokenizer.

    Args:
        model: in eval mode.
        item: at the model's resolution.
    """
    known, whole, token_mask, tokens = model.encode_pair(*item.tensors())
    oracle = _pixels(model.decode(tokens, known.skips))
    photos = {
        "reconstruction": _pixels(model.decode(whole.tokens)),
        "oracle": oracle,
        "pasted": np.where(item.mask[..., None], oracle, item.image),
    }
    here = ~token_mask.flatten()
    z_y, z_x = (e.latents[0].flatten(1).T for e in (whole, known))  # [h · w, n_z]
    changed = (whole.tokens != known.tokens).flatten()[here].float()
    rows = np.random.default_rng(item.index).choice(len(z_y), min(KEPT, len(z_y)), replace=False)
    arrays = {
        "distance": (z_x - z_y)[here].norm(dim=1).mean(0, keepdim=True).numpy(),
        "changed": changed.mean(0, keepdim=True).numpy(),
        "latents": z_y[torch.from_numpy(rows)].numpy(),
        "tokens": whole.tokens[0].numpy(),
    }
    return Probe(photos, arrays)


def measure(
    model: DFVQGAN,
    benchmark: Benchmark,
    store: Store,
    items: Iterable[int],
    *,
    extras: Sequence[str] = (),
    weights: Weights | None = None,
) -> None:
    """Measure photos, except those that the store has already.

    Args:
        model: in eval mode.
        benchmark: the photos.
        store: gets the figures of each photo.
        items: numbers of photos.
        extras: figures beside the usual ones.
        weights: where those of their networks are.

    Raises:
        InputError: a picture cannot be used; the photos before it stay in the store.
    """
    networks = (weights or Weights()).networks(extras)
    squares, observer = Squares(benchmark, model.config.resolution), Observer({}, networks, extras)

    def of_photo(index: int) -> dict[str, np.ndarray]:
        item = squares[index]
        photos, arrays = probe(model, item)
        return {**observer.observe(item, photos), **arrays}

    store.fill(items, of_photo)


def summarise_tokenizer(store: Store, n: int, codebook_size: int, extras: Sequence[str] = ()) -> TokenizerFigures:
    """Compute all figures of the first n photos.

    Args:
        store: has all of these photos.
        n: number of photos.
        codebook_size: V.
        extras: figures beside the usual ones.
    """
    found = store.load(n, ["distance", "changed", "latents", "tokens"])
    distance, changed = (found[name][:, 0].astype(np.float64) for name in ("distance", "changed"))
    scale = _typical_distance(found["latents"].reshape(-1, found["latents"].shape[-1]))
    share = np.bincount(found["tokens"].ravel(), minlength=codebook_size) / found["tokens"].size
    used = share[share > 0]
    relative = distance / scale if scale else distance[:0]
    values = {"distance": distance, "relative_distance": relative, "changed": changed}
    means = {name: mean_and_interval(column) for name, column in values.items()}
    return TokenizerFigures(
        photos=dict(summarise(store, n, list(METHODS), extras)),
        **{name: mean for name, (mean, _) in means.items()},
        scale=scale,
        usage=len(used) / codebook_size,
        perplexity=float(np.exp(-(used * np.log(used)).sum())),
        intervals={name: interval for name, (_, interval) in means.items()},
    )


def _typical_distance(latents: np.ndarray) -> float:
    """Average the distance of random pairs of latents [M, n_z]."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(len(latents), size=(2, PAIRS))
    different = a != b
    return float(np.linalg.norm(latents[a[different]] - latents[b[different]], axis=1).mean())


def _pixels(image: Tensor) -> np.ndarray:
    """Convert an image [1, 3, S, S] in about [-1, 1] to uint8 [S, S, 3]."""
    return ((image[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
