"""Finds a painter by its name: a bundled model, a folder or a hub id of ours."""

from __future__ import annotations

from pathlib import Path

import torch

from nuwa_lip import hub
from nuwa_lip.errors import InputError
from nuwa_lip.fast.quantise import quantise
from nuwa_lip.painters.nuwa_lip import NuwaLip
from nuwa_lip.painters.painter import Painter


def load_painter(name: str | Path, dtype: torch.dtype | None = None, weights: str | None = None) -> Painter:
    """Load a painter.

    Args:
        name: bundled name, folder, or hub id.
        dtype: precision of the weights; None: float32.
        weights: form of NÜWA-LIP's weights for decoding (`nuwa_lip.fast.quantise`).

    Raises:
        InputError: there is none of this name, a part of it is missing, or there is no such form of weights.
    """
    parts = hub.load_model(name, dtype=dtype or torch.float32)
    if parts.mps2s is None or parts.tokenizer is None:
        raise InputError(f"{name} holds a DF-VQGAN only (stage 1)")
    if weights is not None:
        quantise(parts.mps2s, weights)
    return NuwaLip(parts.dfvqgan, parts.mps2s, parts.tokenizer, parts.sampling, parts.card)
