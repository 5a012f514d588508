"""aMUSEd-256's size with random weights: a window by our painter, and by diffusers' own pipeline at equal steps.

Both load the same folder, each in a fresh process. Seconds are those of the CPU, all threads together, of a second
window: what else runs on the machine does not count, and neither does loading.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nuwa_lip.bench.limits import settle
from nuwa_lip.bench.measure import CPU, Row, call_apart, timing
from nuwa_lip.bench.measure import times as divide
from nuwa_lip.bench.peers import amused_pipeline, optional, photo_and_mask
from nuwa_lip.bench.sizes import Bench
from nuwa_lip.errors import first_line

STEPS = 4
"""Few, so that encoding and decoding show too; published settings have 12."""
TIME_BAR, MEMORY_BAR = 1.0, 1.05
CAPTION = "a brown dog"


def measure_painters(bench: Bench) -> list[Row]:
    """Measure time and peak memory of a window."""
    if optional(bench, "diffusers", lambda: True) is None or optional(bench, "transformers", lambda: True) is None:
        return []
    seconds: dict[str, list[float]] = {"ours": [], "diffusers": []}
    peaks: dict[str, list[float]] = {"ours": [], "diffusers": []}
    with tempfile.TemporaryDirectory() as folder:
        try:
            call_apart(save_random_amused, folder, bench.sizes.small)
            for _ in range(max(1, bench.rounds // 2)):
                for name, paint in (("ours", by_our_painter), ("diffusers", by_diffusers)):
                    done = call_apart(paint, folder)
                    seconds[name].append(float(done.output.split()[-1]))
                    peaks[name].append(done.peak_mb)
        except RuntimeError as error:
            bench.skipped.append(f"painters failed and are left out: {first_line(error)}")
            return []
    ours, theirs = map(timing, seconds.values())
    own, other = map(statistics.median, peaks.values())
    # at a tiny size the interpreter and the overheads are all there is
    time_bar, memory_bar = (None, None) if bench.sizes.small else (TIME_BAR, MEMORY_BAR)
    what = f"aMUSEd-256, a window in {STEPS} steps"
    return [
        ours.row(f"{what}, ours, CPU seconds"),
        theirs.row(f"{what}, diffusers, CPU seconds"),
        divide(f"{what}, ours / diffusers", ours, theirs, bar=time_bar, at_least=False),
        Row(f"{what}, ours, peak memory", own, "MB"),
        Row(f"{what}, diffusers, peak memory", other, "MB"),
        Row(f"{what}, memory, ours / diffusers", own / other, "x", bar=memory_bar),
    ]


def save_random_amused(folder: str, small: bool) -> None:
    """Write an aMUSEd with random weights, whose tokenizer reads letters, into a folder that exists."""
    from transformers import CLIPTokenizer

    letters = [chr(i) for i in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words[:-2])} | {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    amused_pipeline(torch.float32, small, tokenizer).save_pretrained(folder)


def by_our_painter(folder: str) -> None:
    """Load a painter, paint two windows, and print the seconds of the second."""
    from nuwa_lip.images.windows import View
    from nuwa_lip.painters.loading import load_painter
    from nuwa_lip.sampling import Sampling

    settle(CPU)
    painter = load_painter(Path(folder))
    photo, mask = map(np.asarray, photo_and_mask(painter.needs.resolution))
    window = painter.needs.window(View(photo.astype(np.float32) / 255, mask > 127), CPU)

    def paint(S: int) -> None:
        sampling = Sampling(guidance_scale=10.0, num_inference_steps=S, schedule="confidence")
        painter.paint(window, CAPTION, [0], sampling, None)

    _print_second(paint)


def by_diffusers(folder: str) -> None:
    """Load diffusers' pipeline, paint two windows, and print the seconds of the second."""
    from diffusers import AmusedInpaintPipeline

    from nuwa_lip.painters.folders import silence

    settle(CPU)
    silence()
    pipe: Any = AmusedInpaintPipeline.from_pretrained(Path(folder), local_files_only=True, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    photo, mask = photo_and_mask(pipe.transformer.config.sample_size * pipe.vae_scale_factor)

    def paint(S: int) -> None:
        pipe(CAPTION, photo, mask, num_inference_steps=S, guidance_scale=10.0, generator=torch.Generator())

    _print_second(paint)


def _print_second(paint: Callable[[int], None]) -> None:
    paint(1)
    start = time.process_time()
    paint(STEPS)
    print(time.process_time() - start)
