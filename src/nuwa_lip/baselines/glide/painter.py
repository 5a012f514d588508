"""Repaint squares with a GLIDE: base network, then super-resolution.

Legend: S side of the finished square, s of the base network's.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nuwa_lip.baselines.glide.config import GLIDESampling
from nuwa_lip.baselines.glide.diffusion import Noise, guided
from nuwa_lip.baselines.glide.folder import load_glide
from nuwa_lip.baselines.glide.model import GLIDE, Conditioning, enlarge, reduce_known
from nuwa_lip.baselines.squares import Painter, fastest, from_square, to_square


@torch.no_grad()
def paint(
    model: GLIDE,
    text_ids: Tensor,
    empty_ids: Tensor,
    image: Tensor,
    mask: Tensor,
    sampling: GLIDESampling,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Repaint a batch, and return what the base network painted [B, 3, s, s] and the finished squares [B, 3, S, S].

    Args:
        model: in eval mode.
        text_ids: int64 [B, T].
        empty_ids: int64 [B, T'], of "".
        image: [B, 3, S, S] in [-1, 1]; anything in the hole.
        mask: bool [B, 1, S, S], True = to repaint.
        sampling: steps and guidance; the super-resolution is not guided, as published.
        generator: of all noise.
    """
    config = model.config
    text = model.read(text_ids)
    empty = None if sampling.guidance_scale == 1 else model.read(empty_ids)
    condition = Conditioning(*reduce_known(image, mask, config.factor))
    shared: dict[str, Any] = {"prediction": config.prediction, "generator": generator}
    predict = guided(model, text, empty, condition, sampling.guidance_scale)
    noise = Noise("base", config.train_steps)
    small = noise.sample(predict, condition, steps=sampling.steps, eta=sampling.eta, **shared)
    condition = Conditioning(image.masked_fill(mask, 0), mask, enlarge(small, config.factor))
    predict, noise = guided(model, text, None, condition, 1.0), Noise("finer", config.train_steps)
    return small, noise.sample(predict, condition, steps=sampling.finer_steps, eta=0.0, **shared)


def load_painter(folder: Path, *, steps: int | None, guidance: float | None) -> Painter:
    """Load a GLIDE from its folder as a painter of squares.

    Args:
        folder: of `train glide`.
        steps, guidance: of the base network, in place of the folder's own.

    Raises:
        InputError: it cannot be read, or a value is out of range.
    """
    model, tokenizer, sampling = load_glide(folder)
    given = {"steps": steps, "guidance_scale": guidance}
    sampling = replace(sampling, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    model = model.to(fastest())

    def fill(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
        x, m = to_square(image, mask)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of captions that are cut
            text, empty = (tokenizer([words]).to(model.device) for words in (caption, ""))
        generator = torch.Generator().manual_seed(seed)
        return from_square(paint(model, text, empty, x.to(model.device), m.to(model.device), sampling, generator)[1])

    return Painter(fill, model.config.resolution)
