"""Memory of a model of the official dimensions: what loading it takes, and filling a photo, in processes of their own.

Weights are mapped from their files, so loading adds next to nothing, and each page comes into memory when it is first
read: a copy of the weights would show as a peak of loading as large as the files. Other forms of the weights
(`quantise`) stand beside the mapped ones.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from nuwa_lip.bench.limits import settle
from nuwa_lip.bench.measure import Child, Row, call_apart, peak_mb
from nuwa_lip.bench.sizes import DTYPES, WEIGHTS, Bench, Form, random_dfvqgan, random_mps2s, sizes_of
from nuwa_lip.bench.whole import image
from nuwa_lip.errors import InputError
from nuwa_lip.fast.quantise import quantise
from nuwa_lip.hub import load_model, save_model
from nuwa_lip.tokenizer import CaptionTokenizer

PRECISION = "bf16"
FILL_BARS: dict[str | None, float] = {None: 4500.0}
"""MB of a process that loads a model of paper size in bf16 and fills one photo, by the form of the weights."""
LOAD_BAR = 0.1
"""Share of the files' size that loading may add to the peak: 1 would be a copy."""
STEPS = 4
"""A few parallel steps need no less than many."""


def measure_memory(bench: Bench) -> list[Row]:
    """Measure the peaks of loading and of filling a photo, with the weights as they are and in their other forms."""
    if PRECISION not in bench.precisions:
        bench.skipped.append(f"memory: there is no {PRECISION} arithmetic here; a photo would take hours")
        return []
    small = bench.sizes.small  # where the interpreter is larger than the model, and nothing is held to a bar
    filled: dict[str | None, Child] = {}
    others = () if bench.gpu else WEIGHTS[: 1 if small else None]
    with tempfile.TemporaryDirectory() as folder:
        call_apart(save_random, folder, small)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors")) / 1e6
        for weights in (None, *others):
            try:
                filled[weights] = call_apart(load_and_fill, folder, weights, str(bench.device))
            except (InputError, RuntimeError) as error:
                bench.skipped.append(f"memory of {Form(PRECISION, weights).name}: {error}")
    rows = [Row(f"model files, {PRECISION}", size, "MB")]
    for weights, done in filled.items():
        printed, what = json.loads(done.output), f"loading and filling a photo, {Form(PRECISION, weights).name}"
        if weights is None:
            loading = f"peak that loading adds / the files' size, {PRECISION}"
            rows.append(Row(loading, printed["added"] / size, "x", bar=None if small else LOAD_BAR))
        bar = None if small else FILL_BARS.get(weights)
        rows.append(Row(f"peak of {what}", done.peak_mb, "MB", bar=bench.bar(bar)))
        if bench.gpu:
            rows.append(Row(f"peak on the GPU of {what}", printed["gpu"], "MB", bar=bar))
    return rows


def save_random(folder: str, small: bool) -> None:
    """Write a model folder of noise, in a process of its own, so that its memory counts nowhere."""
    sizes = sizes_of(small)
    captions = CaptionTokenizer.train(["a photo"], sizes.mps2s.text_vocab, sizes.mps2s.text_length)
    dfvqgan, mps2s = random_dfvqgan(sizes.dfvqgan, PRECISION), random_mps2s(sizes.mps2s, PRECISION)
    save_model(folder, dfvqgan=dfvqgan, mps2s=mps2s, tokenizer=captions)


def load_and_fill(folder: str, weights: str | None, where: str) -> None:
    """Load a model and fill a photo, in the process whose memory is measured.

    What loading adds to the peak, and the peak on a GPU, are printed as JSON, in MB.

    Args:
        folder: of the model.
        weights: their form, or None for the weights as they are.
        where: the device.
    """
    before = peak_mb()
    parts = load_model(folder, dtype=DTYPES[PRECISION])
    added, device = peak_mb() - before, torch.device(where)
    settle(device)
    assert parts.mps2s is not None
    if weights:
        quantise(parts.mps2s, weights)
    if device.type != "cpu":
        parts.dfvqgan.to(device)
        parts.mps2s.to(device)
    with torch.inference_mode():
        image(parts.dfvqgan, parts.mps2s, num_inference_steps=STEPS)()
    gpu = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
    print(json.dumps({"added": added, "gpu": gpu}))
