"""What the other forms of the weights cost in quality: the bundled model's predictions on its demo photos.

The official dimensions are timed with random weights, which cannot show a loss of quality. So beside each of their
times stands what the same form costs the bundled model: the divergence of its predictions from those with float32
weights, in nats a token, teacher-forced: by how much a token drawn from the latter becomes less likely. Unlike the
loss on the photos' own tokens it is never below 0 by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.bench.measure import Row
from nuwa_lip.bench.sizes import DTYPES, MODEL, WEIGHTS, Bench
from nuwa_lip.errors import InputError
from nuwa_lip.fast.quantise import Inputs, Loss, quality_loss, quantise
from nuwa_lip.hub import ModelParts, load_model
from nuwa_lip.models import MPS2S


def measure_quality(bench: Bench) -> list[Row]:
    """Measure every form of MP-S2S' weights, then DF-VQGAN in bf16."""
    rows: list[Row] = []
    for precision in bench.precisions:
        for weights in (None, *(() if bench.gpu else WEIGHTS)):
            loss = known_loss(bench, precision, weights)
            if loss is None:
                continue
            name, changed = f"{MODEL} in {form_name(precision, weights)}", 100 * (1 - loss.agreement)
            rows += [
                Row(f"{name}, increase of the loss", loss.nats - loss.exact_nats, "nats a token"),
                Row(f"{name}, divergence", loss.divergence, "nats a token"),
                Row(f"{name}, likeliest token changes", changed, "%"),
            ]
    return rows + (_image_tokenizer(bench) if "bf16" in bench.precisions else [])


def form_name(precision: str, weights: str | None, *, compiled: bool = False) -> str:
    """Name a form as the lines of a report do: "bf16", "bf16 int8 compiled".

    Args:
        precision: fp32 or bf16.
        weights: how they are kept, such as int8; None: as they are.
        compiled: the step is compiled.
    """
    return precision + ("" if weights is None else f" {weights}") + " compiled" * compiled


def beside(bench: Bench, rows: Iterable[Row], precision: str, weights: str | None) -> list[Row]:
    """Put beside the times of a form of the weights what that form costs.

    Args:
        bench: holds what was measured.
        rows: the times.
        precision: of the weights.
        weights: their form, None for the weights as they are.
    """
    loss = known_loss(bench, precision, weights)
    divergence = None if loss is None else max(0.0, loss.divergence)
    return [dataclasses.replace(row, divergence=divergence) for row in rows]


def known_loss(bench: Bench, precision: str, weights: str | None) -> Loss | None:
    """Give the loss of one form, which is measured when it is first needed.

    It is None for float32 weights as they are, with which all others are compared, and, with a line that says so, for a
    form that does not run here.

    Args:
        bench: holds what was measured.
        precision: of the weights.
        weights: their form, None for the weights as they are.
    """
    name = form_name(precision, weights)
    if name == "fp32":
        return None
    if name not in bench.losses:
        bench.losses[name] = None
        try:
            bench.losses[name] = _loss_of(bench, precision, weights)
        except InputError as error:
            bench.skipped.append(f"loss of {name}: {error}")
    return bench.losses[name]


def _loss_of(bench: Bench, precision: str, weights: str | None) -> Loss:
    """Measure a form against float32; arguments as for `known_loss`.

    Raises:
        InputError: this form does not run here.
    """
    other = second_stage(load_model(MODEL, dtype=DTYPES[precision])).to(bench.device)
    if weights is not None:
        quantise(other, weights)
    return quality_loss(second_stage(exact(bench.device)), other, hidden_halves(bench.device, bench.sizes.small))


def _image_tokenizer(bench: Bench) -> list[Row]:
    """Compare DF-VQGAN in bf16 with float32: known tokens that change, and decoded pixels of the same tokens."""
    few = load_model(MODEL, dtype=torch.bfloat16, need_mps2s=False).dfvqgan.to(bench.device)
    model, changed, known, differences = exact(bench.device).dfvqgan, 0, 0, []
    with torch.inference_mode():
        for _, image, mask, _, token_mask in hidden_halves(bench.device, bench.sizes.small):
            one, other = model.encode(image, mask), few.encode(image, mask)
            here = ~token_mask[:, 0]
            changed, known = changed + int((one.tokens != other.tokens)[here].sum()), known + int(here.sum())
            pictures = [vq.decode(one.tokens, e.skips) for vq, e in ((model, one), (few, other))]
            differences.append((pictures[0] - pictures[1]).abs()[mask.expand_as(image)].mean() * 127.5)
    name = f"{MODEL} in bf16"
    return [
        Row(f"{name}, known tokens that become others", 100 * changed / known, "%"),
        Row(f"{name}, difference of decoded pixels", float(torch.stack(differences).mean()), "of 255"),
    ]


@cache
def exact(device: torch.device) -> ModelParts:
    """Load the model in float32."""
    parts = load_model(MODEL)
    parts.dfvqgan.to(device)
    second_stage(parts).to(device)
    return parts


def second_stage(parts: ModelParts) -> MPS2S:
    """Give the MP-S2S of a complete model."""
    assert parts.mps2s is not None
    return parts.mps2s


@cache
def hidden_halves(device: torch.device, small: bool) -> list[Inputs]:
    """Prepare the demo photos, or two of them, whose lower halves are to be predicted."""
    paths = sorted(asset("demo/photos").glob("*.jpg"))[: 2 if small else None]
    return [_hidden_half(exact(device), Image.open(path).convert("RGB"), device) for path in paths]


@torch.inference_mode()
def _hidden_half(parts: ModelParts, photo: Image.Image, device: torch.device) -> Inputs:
    """Prepare a photo whose lower half is to be predicted, without a caption."""
    assert parts.tokenizer is not None
    side = parts.dfvqgan.config.resolution
    pixels = torch.from_numpy(np.array(photo.resize((side, side)), dtype=np.float32))
    image = (pixels.permute(2, 0, 1)[None] / 127.5 - 1).to(device)
    mask = torch.zeros(1, 1, side, side, dtype=torch.bool, device=device)
    mask[:, :, side // 2 :] = True
    pair = parts.dfvqgan.encode_pair(image, mask)
    return parts.tokenizer([""]).to(device), image, mask, pair.tokens, pair.token_mask
