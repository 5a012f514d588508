"""Repainting as the user meets it: the model's own work, the whole command, and a 24-megapixel photo."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.bench.measure import Row, children, interleaved
from nuwa_lip.pipeline import InpaintPipeline

COMMAND = "import sys; from nuwa_lip.cli import main; main()"
REWRITE = """
import sys
from PIL import Image
Image.open(sys.argv[1]).save(sys.argv[2], compress_level=1)
"""
BIG = (6000, 4000)  # width, height: 24 megapixels


def run(model: str, rounds: int = 3, big: tuple[int, int] = BIG) -> list[Row]:
    """Measure a model folder, a hub id or a bundled name."""
    photo_file, mask_file = asset("demo/photos/mountains.jpg"), asset("demo/masks/mountains.png")
    prompt = "people skiing on a snow covered mountain"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        big_photo, big_mask = big_pair(folder, big)
        common = ("--prompt", prompt, "--model", model, "--seed", "0", "--overwrite")
        out, big_out = str(folder / "out.png"), str(folder / "big-out.png")
        small = children(
            {
                "import torch": ("import torch",),
                "command": ((COMMAND, "inpaint", str(photo_file), "--mask", str(mask_file), "-o", out, *common)),
            },
            rounds,
        )
        large = children(
            {
                "rewrite": (REWRITE, str(big_photo), big_out),
                "command": (
                    COMMAND,
                    "inpaint",
                    str(big_photo),
                    "--mask",
                    str(big_mask),
                    "-o",
                    big_out,
                    *common,
                ),
            },
            rounds,
        )
    megapixels = f"{big[0] * big[1] / 1e6:.0f} MP"
    torch_, command, rewrite, whole = (
        small["import torch"],
        small["command"],
        large["rewrite"],
        large["command"],
    )
    return [
        Row(what="model's own work, 256 x 256", value=own_work(model, prompt, rounds), unit="s", bar=2),
        Row(what="import torch", value=torch_.seconds, unit="s"),
        Row(what="whole command, 256 x 256", value=command.seconds, unit="s"),
        Row(what="  beyond import torch", value=command.seconds - torch_.seconds, unit="s", bar=4),
        Row(what="  memory beyond import torch", value=command.peak_mb - torch_.peak_mb, unit="MB", bar=700),
        Row(what=f"reading and writing {megapixels} as PNG", value=rewrite.seconds, unit="s"),
        Row(what=f"whole command, {megapixels}, small hole", value=whole.seconds, unit="s"),
        Row(what="  beyond reading and writing", value=whole.seconds - rewrite.seconds, unit="s", bar=3),
        Row(what="  memory beyond that", value=whole.peak_mb - rewrite.peak_mb, unit="MB", bar=1e3),
    ]  # fmt: skip


def own_work(model: str, prompt: str, rounds: int) -> float:
    """Median seconds of one candidate once everything is loaded."""
    pipe = InpaintPipeline.from_pretrained(model)
    photo = Image.open(asset("demo/photos/mountains.jpg")).convert("RGB")
    mask = Image.open(asset("demo/masks/mountains.png")).convert("L")

    def repaint() -> object:
        return pipe(prompt=prompt, image=photo, mask_image=mask, generator=torch.Generator().manual_seed(0))

    return interleaved({"own": repaint}, rounds)["own"]


def big_pair(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """An enlarged photo with a camera's noise, and a mask with a hole of 200 x 200 pixels."""
    photo = Image.open(asset("demo/photos/mountains.jpg")).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).integers(-2, 3, (size[1], size[0], 3), dtype=np.int16)
    noisy = (np.asarray(photo, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    y, x = size[1] // 2, size[0] // 2
    mask[y : y + 200, x : x + 200] = 255
    paths = folder / "big.png", folder / "big-mask.png"
    Image.fromarray(noisy).save(paths[0], compress_level=1)
    Image.fromarray(mask).save(paths[1], compress_level=1)
    return paths
