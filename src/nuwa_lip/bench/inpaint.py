"""Repainting as the user meets it: the model's own work, the whole command, and a 24-megapixel photo."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.bench.measure import CPU, Child, Row, Timing, children, timings
from nuwa_lip.bench.sizes import Bench
from nuwa_lip.pipeline import InpaintPipeline

COMMAND = "import sys; from nuwa_lip.cli import main; main()"
REWRITE = """
import sys
from PIL import Image
Image.open(sys.argv[1]).save(sys.argv[2], compress_level=1)
"""
PROMPT = "people skiing on a snow covered mountain"
BIG, SMALL_BIG = (6000, 4000), (48, 32)  # width, height: 24 megapixels, or hardly any
OWN_BAR = 1.0
"""Seconds of the bundled model's own work on a photo of 256 x 256."""


def measure_commands(bench: Bench) -> list[Row]:
    """Measure the model's own work, the whole command on a small photo, and the command on a large photo."""
    model, rounds, big = bench.model, bench.rounds, SMALL_BIG if bench.sizes.small else BIG
    photo_file, mask_file = asset("demo/photos/mountains.jpg"), asset("demo/masks/mountains.png")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command_line = command_of((photo_file, mask_file), folder / "out.png", model)
        small = children({"import torch": ("import torch",), "command": command_line}, rounds)
        rewrite, whole = repaint_big(folder, big_pair(folder, big), model, rounds)
    megapixels = f"{big[0] * big[1] / 1e6:.0f} MP"
    torch_, command = small["import torch"], small["command"]
    own = own_work(model, PROMPT, rounds).seconds
    return [
        Row("model's own work, 256 x 256", own, "s", bar=OWN_BAR),
        Row("import torch", torch_.seconds, "s"),
        Row("whole command, 256 x 256", command.seconds, "s"),
        Row("  beyond import torch", command.seconds - torch_.seconds, "s", bar=4),
        Row("  memory beyond import torch", command.peak_mb - torch_.peak_mb, "MB", bar=700),
        Row(f"reading and writing {megapixels} as PNG", rewrite.seconds, "s"),
        Row(f"whole command, {megapixels}, small hole", whole.seconds, "s"),
        Row("  beyond reading and writing", whole.seconds - rewrite.seconds, "s", bar=3),
        Row("  memory beyond that", whole.peak_mb - rewrite.peak_mb, "MB", bar=1e3),
    ]  # fmt: skip


def command_of(pair: tuple[Path, Path], out: Path, model: str) -> tuple[str, ...]:
    """Give the code and the words of `nuwa-lip inpaint` on a (photo, mask), for a process of its own.

    Args:
        pair: photo and mask.
        out: the result.
        model: folder or name.
    """
    words = ("inpaint", str(pair[0]), "--mask", str(pair[1]), "-o", str(out))
    return (COMMAND, *words, "--prompt", PROMPT, "--model", model, "--seed", "0", "--overwrite")


def repaint_big(folder: Path, pair: tuple[Path, Path], model: str, rounds: int) -> tuple[Child, Child]:
    """Measure reading and writing a photo, and the whole command on it.

    Args:
        folder: for what is written.
        pair: files of the photo and of its mask.
        model: a model folder, a hub id or a bundled name.
        rounds: interleaved repeats.
    """
    out = folder / "big-out.png"
    cases = {"rewrite": (REWRITE, str(pair[0]), str(out)), "command": command_of(pair, out, model)}
    found = children(cases, rounds)
    return found["rewrite"], found["command"]


def own_work(model: str, prompt: str, rounds: int, device: torch.device = CPU) -> Timing:
    """Time one candidate once everything is loaded.

    Args:
        model: a model folder, a hub id or a bundled name.
        prompt: the caption.
        rounds: repeats.
        device: where the model computes.
    """
    pipe = InpaintPipeline.from_pretrained(model).to(device)
    photo = Image.open(asset("demo/photos/mountains.jpg")).convert("RGB")
    mask = Image.open(asset("demo/masks/mountains.png")).convert("L")

    def repaint() -> object:
        return pipe(prompt=prompt, image=photo, mask_image=mask, generator=torch.Generator().manual_seed(0))

    return timings({"own": repaint}, rounds)["own"]


def big_pair(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """Write an enlarged photo with a camera's noise, and a mask with a hole of 200 x 200 pixels."""
    photo = Image.open(asset("demo/photos/mountains.jpg")).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    noisy, rng = np.array(photo), np.random.default_rng(0)
    for strip in np.array_split(noisy, max(1, size[1] // 500)):  # views: a large photo is not held several times
        noise = rng.integers(-2, 3, strip.shape, dtype=np.int16)
        strip[:] = (strip + noise).clip(0, 255)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    y, x = size[1] // 2, size[0] // 2
    mask[y : y + 200, x : x + 200] = 255
    paths = folder / "big.png", folder / "big-mask.png"
    Image.fromarray(noisy).save(paths[0], compress_level=1)
    Image.fromarray(mask).save(paths[1], compress_level=1)
    return paths
