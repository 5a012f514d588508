"""What the other forms of the weights cost in quality: the bundled model's predictions on its demo photos."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.bench.measure import Row
from nuwa_lip.bench.sizes import Bench
from nuwa_lip.errors import InputError
from nuwa_lip.hub import ModelParts, load_model
from nuwa_lip.models import MPS2S
from nuwa_lip.quantise import LAYERS, Inputs, quality_loss, quantise

MODEL = "nuwa-lip-mini"


def run(bench: Bench) -> list[Row]:
    """Nats that a hidden token becomes less likely by, and how often the likeliest token changes."""
    parts, exact = loaded()
    paths = sorted(asset("demo/photos").glob("*.jpg"))[: 2 if bench.sizes.small else None]
    batches = [hidden_half(parts, Image.open(path).convert("RGB")) for path in paths]
    rows: list[Row] = []
    for weights in LAYERS:
        few = loaded()[1]
        try:
            quantise(few, weights)
        except InputError as error:
            bench.skipped.append(f"loss of {weights}: {error}")
            continue
        loss = quality_loss(exact, few, batches)
        changed = 100 * (1 - loss.agreement)
        rows += [
            Row(what=f"{MODEL} in {weights}, loss", value=loss.nats - loss.exact_nats, unit="nats a token"),
            Row(what=f"{MODEL} in {weights}, divergence", value=loss.divergence, unit="nats a token"),
            Row(what=f"{MODEL} in {weights}, likeliest token changes", value=changed, unit="%"),
        ]
    return rows


def loaded() -> tuple[ModelParts, MPS2S]:
    """The model anew, and its second stage."""
    parts = load_model(MODEL)
    assert parts.mps2s is not None
    return parts, parts.mps2s


@torch.inference_mode()
def hidden_half(parts: ModelParts, photo: Image.Image) -> Inputs:
    """A photo whose lower half is to be predicted, without a caption."""
    assert parts.tokenizer is not None
    side = parts.dfvqgan.config.resolution
    pixels = torch.from_numpy(np.array(photo.resize((side, side)), dtype=np.float32))
    image = pixels.permute(2, 0, 1)[None] / 127.5 - 1
    mask = torch.zeros(1, 1, side, side, dtype=torch.bool)
    mask[:, :, side // 2 :] = True
    known, whole = parts.dfvqgan.encode(image, mask), parts.dfvqgan.encode(image)
    assert known.token_mask is not None
    tokens = torch.where(known.token_mask[:, 0], whole.tokens, known.tokens)
    return parts.tokenizer([""]), image, mask, tokens, known.token_mask
