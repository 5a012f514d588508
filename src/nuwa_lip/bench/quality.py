"""What the other forms of the weights cost in quality: the bundled model's predictions on its demo photos.

The official dimensions are timed with random weights, which cannot show a loss of quality. So beside each of their
times stands what the same form costs the bundled model: the divergence of its predictions from those with float32
weights, in nats a token, teacher-forced: by how much a token drawn from the latter becomes less likely. Unlike the
loss on the photos' own tokens it is never below 0 by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache, partial

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.bench.measure import Row
from nuwa_lip.bench.sizes import DTYPES, MODEL, WEIGHTS, Bench, Form
from nuwa_lip.fast.quantise import Inputs, Loss, quality_loss, quantise
from nuwa_lip.hub import load_model
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.tokenizer import CaptionTokenizer


def measure_quality(bench: Bench) -> list[Row]:
    """Measure every form of MP-S2S' weights, then DF-VQGAN in bf16."""
    rows: list[Row] = []
    for precision in bench.precisions:
        for weights in (None, *(() if bench.gpu else WEIGHTS)):
            form = Form(precision, weights)
            loss = known_loss(bench, form)
            if loss is None:
                continue
            name, changed = f"{MODEL} in {form.name}", 100 * (1 - loss.agreement)
            rows += [
                Row(f"{name}, increase of the loss", loss.nats - loss.exact_nats, "nats a token"),
                Row(f"{name}, divergence", loss.divergence, "nats a token"),
                Row(f"{name}, likeliest token changes", changed, "%"),
            ]
    return rows + (_image_tokenizer(bench) if "bf16" in bench.precisions else [])


def beside(bench: Bench, rows: Iterable[Row], form: Form) -> list[Row]:
    """Put beside the times of a form of the weights what that form costs.

    Args:
        bench: holds what was measured.
        rows: the times.
        form: compiled or not, which costs nothing.
    """
    loss = known_loss(bench, form._replace(compiled=False))
    divergence = None if loss is None else max(0.0, loss.divergence)
    return [dataclasses.replace(row, divergence=divergence) for row in rows]


def known_loss(bench: Bench, form: Form) -> Loss | None:
    """Give the loss of one form, which is measured when it is first needed.

    It is None for float32 weights as they are, with which all others are compared, and, with a line that says so, for a
    form that does not run here.
    """
    name = form.name
    if name == "fp32":
        return None
    if name not in bench.losses:
        bench.losses[name] = bench.attempt(f"loss of {name}", partial(_loss_of, bench, form))
    return bench.losses[name]


def _loss_of(bench: Bench, form: Form) -> Loss:
    """Compare a form with float32."""
    other = _load(form.precision, bench.device)[1]
    if form.weights is not None:
        quantise(other, form.weights)
    return quality_loss(_exact(bench.device)[1], other, _hidden_halves(bench.device, bench.sizes.small))


def _image_tokenizer(bench: Bench) -> list[Row]:
    """Compare DF-VQGAN in bf16 with float32: known tokens that change, and decoded pixels of the same tokens."""
    model, few = _exact(bench.device)[0], _load("bf16", bench.device)[0]
    changed, known, differences = 0, 0, []
    with torch.inference_mode():
        for _, image, mask, _, token_mask in _hidden_halves(bench.device, bench.sizes.small):
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


def _load(precision: str, device: torch.device) -> tuple[DFVQGAN, MPS2S, CaptionTokenizer]:
    parts = load_model(MODEL, dtype=DTYPES[precision])
    assert parts.mps2s is not None and parts.tokenizer is not None
    return parts.dfvqgan.to(device), parts.mps2s.to(device), parts.tokenizer


@cache
def _exact(device: torch.device) -> tuple[DFVQGAN, MPS2S, CaptionTokenizer]:
    """Load the model in float32, which all forms are compared with."""
    return _load("fp32", device)


@cache
@torch.inference_mode()
def _hidden_halves(device: torch.device, small: bool) -> list[Inputs]:
    """Prepare the demo photos, or two of them, whose lower halves are to be predicted, without captions."""
    dfvqgan, _, tokenizer = _exact(device)
    side = dfvqgan.config.resolution
    mask = torch.zeros(1, 1, side, side, dtype=torch.bool, device=device)
    mask[:, :, side // 2 :] = True
    found: list[Inputs] = []
    for path in sorted(asset("demo/photos").glob("*.jpg"))[: 2 if small else None]:
        photo = np.array(Image.open(path).convert("RGB").resize((side, side)), dtype=np.float32)
        image = (torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1).to(device)
        pair = dfvqgan.encode_pair(image, mask)
        found.append((tokenizer([""]).to(device), image, mask, pair.tokens, pair.token_mask))
    return found
