"""The bundled model on the bundled photos: it is small, whole, and keeps what the method promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.data.masks import MaskRecipe, random_masks
from nuwa_lip.hub import BUNDLED
from nuwa_lip.pipeline import InpaintPipeline
from tests.distances import latent_distances

CAPTIONS = json.loads(asset("demo/captions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pipe() -> InpaintPipeline:
    return InpaintPipeline.from_pretrained("nuwa-lip-mini")


@pytest.mark.parametrize("name", BUNDLED)
def test_it_is_small_and_says_what_it_may_be_used_for(name: str) -> None:
    assert sum(path.stat().st_size for path in asset(name).iterdir()) <= 48e6
    assert "research" in (asset(name) / "README.md").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("name", CAPTIONS)
def test_known_pixels_are_kept_and_the_hole_is_painted(pipe: InpaintPipeline, name: str) -> None:
    photo = Image.open(asset(f"demo/photos/{name}.jpg"))
    mask = np.asarray(Image.open(asset(f"demo/masks/{name}.png")).convert("L")) >= 128
    generator = torch.Generator().manual_seed(0)
    out = pipe(CAPTIONS[name], photo, mask, num_inference_steps=4, generator=generator)
    before, after = np.asarray(photo), np.asarray(out.images[0])
    assert (before[~mask] == after[~mask]).all()
    assert (before[mask] != after[mask]).mean() > 0.5


def test_known_latents_are_near_those_of_the_complete_photo(pipe: InpaintPipeline) -> None:
    size = pipe.resolution
    photos = [Image.open(asset(f"demo/photos/{name}.jpg")).resize((size, size)) for name in CAPTIONS]
    image = torch.from_numpy(np.stack([np.asarray(photo) for photo in photos])).permute(0, 3, 1, 2) / 127.5 - 1
    mask = random_masks(len(photos), size, size, MaskRecipe(), np.random.default_rng(0))
    ours, theirs = latent_distances(pipe.dfvqgan, image, mask)
    assert ours < 0.8 * theirs, f"{ours:.4f} from the complete photo's latents; zeroing the hole gives {theirs:.4f}"
