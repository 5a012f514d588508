"""What the tests of training share: a dozen drawn photos, recipes that run in a blink, whole runs."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.data.shards import expand_shards, write_shards
from nuwa_lip.models import DFVQGAN, DFVQGANConfig, MPS2SConfig
from nuwa_lip.models.projected import GROUPS
from nuwa_lip.training.loop import train
from nuwa_lip.training.recipes import Adversary, DFVQGANRecipe, MPS2SRecipe, Schedule
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.tokenizing import TokenRecipe, write_cache
from nuwa_lip.training.tokens import TokenCache

NEEDS_COMPILER = pytest.mark.skipif(
    not (shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").is_file()),
    reason="needs g++ and Python's headers",
)
PHOTOS = 12
DFVQGAN_CONFIG = DFVQGANConfig(
    resolution=32,
    channels=(8, 8, 16),
    encoder_blocks=1,
    decoder_blocks=1,
    groups=4,
    latent_channels=8,
    codebook_size=64,
    codebook_dim=4,
    normalise_codes=True,
)
"""32 px, 8 x 8 tokens of 64 codes."""
MPS2S_CONFIG = dataclasses.replace(
    MPS2SConfig.preset("tiny"), codebook_size=64, width=16, text_width=16, text_vocab=300, decoder_layers=1
)


def compile_as_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is differentiated and run as it was traced: making C++ of it takes half a minute."""
    compile = torch.compile
    traced = {"backend": "aot_eager", "options": None}
    monkeypatch.setattr(torch, "compile", lambda *args, **options: compile(*args, **(options | traced)))


def make_shards(folder: Path) -> Path:
    """Shards of `PHOTOS` shapes, of the size that photos are held in for 32 px."""
    write_shards(shape_samples(PHOTOS, size=40), folder, image_format="png", max_bytes=12_000)
    return folder


def make_cache(folder: Path, shards: Path) -> Path:
    """A token cache of `PHOTOS` photos in two variants, by a DF-VQGAN with random weights."""
    torch.manual_seed(0)
    recipe = TokenRecipe(
        variants=2,
        masks=MaskRecipe(rectangles=0.6, everything=0.2, border=0.2),
        augmentation=Augmentation(),
        seed=0,
    )
    write_cache(folder, DFVQGAN(DFVQGAN_CONFIG).eval(), expand_shards(shards), recipe)
    return folder


def efficientnet_state() -> dict[str, torch.Tensor]:
    """Random weights of EfficientNet-Lite0 in timm's names, as far as a discriminator reads them."""
    generator, state = torch.Generator().manual_seed(0), {}

    def add(name: str, norm: str, c_out: int, c_in: int, kernel: int) -> None:
        spread = (2 / (c_in * kernel**2)) ** 0.5
        state[f"{name}.weight"] = spread * torch.randn(c_out, c_in, kernel, kernel, generator=generator)
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.2, 0.2)):
            state[f"{norm}.{part}"] = low + (high - low) * torch.rand(c_out, generator=generator)
        state[f"{norm}.running_var"] = 0.5 + torch.rand(c_out, generator=generator)

    add("conv_stem", "bn1", 32, 3, 3)
    add("blocks.0.0.conv_dw", "blocks.0.0.bn1", 32, 1, 3)
    add("blocks.0.0.conv_pw", "blocks.0.0.bn2", 16, 32, 1)
    width = 16
    for i, group in enumerate(GROUPS, 1):
        for n in range(group.blocks):
            name = f"blocks.{i}.{n}"
            add(f"{name}.conv_pw", f"{name}.bn1", 6 * width, width, 1)
            add(f"{name}.conv_dw", f"{name}.bn2", 6 * width, 1, group.kernel)
            add(f"{name}.conv_pwl", f"{name}.bn3", group.channels, 6 * width, 1)
            width = group.channels
    return state


def schedule(**changes: Any) -> Schedule:
    """Two steps of four photos; nothing is drawn or saved before the end."""
    defaults = dict(
        steps=2, batch_size=4, learning_rate=1e-2, log_every=1, sheet_every=99, checkpoint_every=99, precision="fp32"
    )
    return Schedule(**{**defaults, **changes})  # type: ignore[arg-type]


def dfvqgan_recipe(model: DFVQGANConfig = DFVQGAN_CONFIG, *, steps: int = 2, **changes: Any) -> DFVQGANRecipe:
    """Everything on from the first step, the adversary and revival too."""
    of_schedule = {f.name for f in dataclasses.fields(Schedule)} & set(changes)
    defaults = dict(
        model=model,
        schedule=schedule(steps=steps, **{name: changes.pop(name) for name in of_schedule}),
        masks=MaskRecipe(rectangles=0.6, everything=0.2, nothing=0.2),
        adversary=Adversary(start=0.0, filters=8, layers=1),
        perceptual="squeezenet",
        revive_after=2,
    )
    return DFVQGANRecipe(**{**defaults, **changes})  # type: ignore[arg-type]


def mps2s_recipe(model: MPS2SConfig = MPS2S_CONFIG, *, steps: int = 2, **changes: Any) -> MPS2SRecipe:
    """All orders, captions dropped, dropout on."""
    of_schedule = {f.name for f in dataclasses.fields(Schedule)} & set(changes)
    defaults = dict(
        model=dataclasses.replace(model, dropout=0.1),
        schedule=schedule(steps=steps, **{name: changes.pop(name) for name in of_schedule}),
        orders={"raster": 1.0, "border": 1.0, "random": 1.0},
        caption_dropout=0.3,
    )
    return MPS2SRecipe(**{**defaults, **changes})  # type: ignore[arg-type]


def make_cpu_accelerator(precision: str = "no") -> Accelerator:
    """On the CPU, whatever the machine has, and whatever precision a test before has used."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, mixed_precision=precision)


def open_cache(folder: Path, recipe: MPS2SRecipe) -> TokenCache:
    return TokenCache.open(folder, recipe.model)


def run(stage: Any, recipe: DFVQGANRecipe | MPS2SRecipe, folder: Path, resume: bool = False) -> RunFolder:
    """Train a stage to its end, or until it is stopped."""
    folder.mkdir(exist_ok=True)
    made = RunFolder(folder, recipe.schedule.batch_size)
    train(stage, recipe.schedule, made, stage.accelerator, resume)
    return made


def interrupted(stage: Any, at: int) -> Any:
    """The stage, with Ctrl-C while it does step `at`."""
    step = stage.step

    def stopped(number: int, batch: Any) -> Any:
        if number == at:
            signal.raise_signal(signal.SIGINT)
        return step(number, batch)

    stage.step = stopped
    return stage
