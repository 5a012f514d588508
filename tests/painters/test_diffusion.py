"""Pipelines of diffusers: which class is taken, what it is asked, and that nothing is added to what it paints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.painters.diffusion import Diffusion, load_diffusion
from nuwa_lip.painters.folders import class_of, side_of
from nuwa_lip.painters.painter import Window
from nuwa_lip.sampling import Sampling
from tests.small_models import seeded
from tests.tiny_pipelines import save_flux2_klein, save_stable_diffusion

MASK = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
MASK[:, :, 4:9, 5:12] = True


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    return load_diffusion(save_stable_diffusion(tmp_path_factory.mktemp("sd")), torch.float32)


def named(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    return folder


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("Flux2KleinPipeline", "Flux2KleinInpaintPipeline"),
        ("ChromaPipeline", "ChromaInpaintPipeline"),
        ("FluxKontextPipeline", "FluxKontextInpaintPipeline"),
        ("FluxFillPipeline", "FluxFillPipeline"),
        ("ZImagePipeline", "ZImageInpaintPipeline"),
        ("QwenImageEditPipeline", "QwenImageEditInpaintPipeline"),
        ("StableDiffusionXLInpaintPipeline", "StableDiffusionXLInpaintPipeline"),
        ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"),
        ("AmusedPipeline", "AmusedInpaintPipeline"),
    ],
)
def test_the_class_is_the_one_for_inpainting(name: str, taken: str, tmp_path: Path) -> None:
    assert class_of(named(tmp_path, name)).__name__ == taken


@pytest.mark.parametrize("name", ["AudioLDM2Pipeline", "NoSuchPipeline", "KandinskyV22InpaintPipeline", "ModelMixin"])
def test_other_pipelines_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"is a {name}: diffusers has no pipeline for inpainting from a caption"):
        class_of(named(tmp_path, name))


def test_needs_come_from_the_configuration(stable: Diffusion) -> None:
    assert stable.needs.resolution == 16 and stable.needs.multiple == 2
    assert stable.needs.options == {"prompt", "blend", "guidance_scale", "num_inference_steps"}
    assert (stable.needs.sampling.guidance_scale, stable.needs.sampling.num_inference_steps) == (7.5, 50)
    part = SimpleNamespace(config={"sample_size": [32, 48]})
    assert side_of(SimpleNamespace(unet=None, transformer=part, vae_scale_factor=8)) == 256
    flux = SimpleNamespace(transformer=SimpleNamespace(config={}), default_sample_size=128, vae_scale_factor=8)
    assert side_of(flux) == 1024


def test_a_distilled_model_takes_few_steps(tmp_path: Path) -> None:
    usual = load_diffusion(save_flux2_klein(tmp_path), torch.float32).needs
    assert (usual.sampling.num_inference_steps, usual.sampling.guidance_scale) == (4, 1.0)
    assert usual.resolution == 256 and usual.multiple == 4
    other = load_diffusion(tmp_path, torch.float32, steps=7, guidance=2.0).needs.sampling
    assert (other.num_inference_steps, other.guidance_scale) == (7, 2.0)


def test_it_paints_what_the_pipeline_paints(stable: Diffusion) -> None:
    image = (torch.rand(1, 3, 16, 16, generator=seeded()) * 255).round() / 255
    window = Window(image.masked_fill(MASK, 128 / 255), MASK)
    steps: list[tuple[int, int]] = []
    sampling = Sampling(guidance_scale=3.0, num_inference_steps=2)
    painted = stable.paint(window, "a bear", [5, 6], sampling, lambda *step: steps.append(step))
    square = Image.fromarray((window.image[0] * 255).byte().permute(1, 2, 0).numpy())
    white: Any = Image.fromarray(MASK[0, 0].numpy().astype(np.uint8) * 255)
    how = {"guidance_scale": 3.0, "num_inference_steps": 2, "strength": 1.0, "height": 16, "width": 16}
    theirs = stable.pipe("a bear", square, white, generator=seeded(6), output_type="np", **how).images[0]
    assert (painted.images[1][0].permute(1, 2, 0).numpy() == theirs).all()
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)] and painted.scores.tolist() == [0, 0]
