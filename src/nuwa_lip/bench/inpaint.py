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
PHOTO, MASK = asset("demo/photos/mountains.jpg"), asset("demo/masks/mountains.png")
PROMPT = "people skiing on a snow covered mountain"
BIG, SMALL_BIG = (6000, 4000), (48, 32)  # width, height: 24 megapixels, or hardly any
OWN_BAR = 1.0
"""Seconds of the bundled model's own work on a photo of 256 x 256."""


def measure_commands(bench: Bench) -> list[Row]:
    """Measure the model's own work, the whole command on a small photo, and the command on a large photo."""
    model, rounds, big = bench.model, bench.rounds, SMALL_BIG if bench.sizes.small else BIG
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {"import torch": ("import torch",), "command": _command(PHOTO, MASK, folder / "out.png", model)}
        torch_, command = children(cases, rounds).values()
        rewrite, whole = repaint_big(folder, big, model, rounds)
    megapixels = f"{big[0] * big[1] / 1e6:.0f} MP"
    return [
        Row("model's own work, 256 x 256", own_work(model, rounds).seconds, "s", bar=OWN_BAR),
        Row("import torch", torch_.seconds, "s"),
        Row("whole command, 256 x 256", command.seconds, "s"),
        Row("  beyond import torch", command.seconds - torch_.seconds, "s", bar=4),
        Row("  memory beyond import torch", command.peak_mb - torch_.peak_mb, "MB", bar=700),
        Row(f"reading and writing {megapixels} as PNG", rewrite.seconds, "s"),
        Row(f"whole command, {megapixels}, small hole", whole.seconds, "s"),
        Row("  beyond reading and writing", whole.seconds - rewrite.seconds, "s", bar=3),
        Row("  memory beyond that", whole.peak_mb - rewrite.peak_mb, "MB", bar=1e3),
    ]  # fmt: skip


def _command(photo: Path, mask: Path, out: Path, model: str) -> tuple[str, ...]:
    """Give the code and the words of `nuwa-lip inpaint`, for a process of its own."""
    words = ("inpaint", str(photo), "--mask", str(mask), "-o", str(out))
    return (COMMAND, *words, "--prompt", PROMPT, "--model", model, "--seed", "0", "--overwrite")


def repaint_big(folder: Path, size: tuple[int, int], model: str, rounds: int) -> tuple[Child, Child]:
    """Measure reading and writing a large photo with a hole of 200 x 200 pixels, and the whole command on it.

    Args:
        folder: for the files.
        size: width and height of the photo.
        model: a model folder, a hub id or a bundled name.
        rounds: interleaved repeats.
    """
    photo, mask, out = folder / "big.png", folder / "big-mask.png", folder / "big-out.png"
    _write_big(photo, mask, size)
    cases = {"rewrite": (REWRITE, str(photo), str(out)), "command": _command(photo, mask, out, model)}
    found = children(cases, rounds)
    return found["rewrite"], found["command"]


def own_work(model: str, rounds: int, device: torch.device = CPU) -> Timing:
    """Time one candidate once everything is loaded.

    Args:
        model: a model folder, a hub id or a bundled name.
        rounds: repeats.
        device: where the model computes.
    """
    pipe = InpaintPipeline.from_pretrained(model).to(device)
    photo, mask = Image.open(PHOTO).convert("RGB"), Image.open(MASK).convert("L")

    def repaint() -> object:
        return pipe(prompt=PROMPT, image=photo, mask_image=mask, generator=torch.Generator().manual_seed(0))

    return timings({"own": repaint}, rounds)["own"]


def _write_big(photo: Path, mask: Path, size: tuple[int, int]) -> None:
    """Write an enlarged photo with a camera's noise, and its mask."""
    noisy = np.array(Image.open(PHOTO).convert("RGB").resize(size, Image.Resampling.BICUBIC))
    rng = np.random.default_rng(0)
    for strip in np.array_split(noisy, max(1, size[1] // 500)):  # views: a large photo is not held several times
        strip[:] = (strip + rng.integers(-2, 3, strip.shape, dtype=np.int16)).clip(0, 255)
    hole = np.zeros((size[1], size[0]), dtype=np.uint8)
    y, x = size[1] // 2, size[0] // 2
    hole[y : y + 200, x : x + 200] = 255
    for path, pixels in ((photo, noisy), (mask, hole)):
        Image.fromarray(pixels).save(path, compress_level=1)
