"""What holds for every painter, whoever made it: no known pixel changes, and a seed gives its picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from nuwa_lip.images.files import read_photo, save_image
from nuwa_lip.images.photo import upright
from nuwa_lip.images.png import write_png
from nuwa_lip.pipeline import InpaintPipeline
from tests.small_models import seeded
from tests.tiny_graphs import save_lama, save_migan
from tests.tiny_pipelines import (
    save_amused,
    save_flux2_klein,
    save_meissonic,
    save_stable_diffusion,
    save_stable_diffusion_xl,
)

SAVED: dict[str, Callable[[Path], Path]] = {
    "amused": save_amused,
    "meissonic": save_meissonic,
    "stable-diffusion": save_stable_diffusion,
    "sdxl": save_stable_diffusion_xl,
    "flux2-klein": save_flux2_klein,
    "migan": lambda folder: save_migan(folder, side=16),
    "lama": save_lama,
}
"""Kinds of painters → what saves a tiny one of random weights, and returns its path."""
STEPS: dict[str, Any] = dict.fromkeys(SAVED, {"num_inference_steps": 2}) | {"migan": {}, "lama": {}}
"""Options of a call."""


@pytest.fixture(scope="module", params=SAVED)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipe(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InpaintPipeline]:
    with pytest.MonkeyPatch.context() as patch:
        if kind == "flux2-klein":  # whose side stands in code, not in a configuration
            patch.setattr("nuwa_lip.painters.diffusion.side_of", lambda _: 16)
        if kind == "meissonic":
            patch.setattr("nuwa_lip.painters.token_folder.FULL", 16)
        yield InpaintPipeline.from_pretrained(SAVED[kind](tmp_path_factory.mktemp(kind) / "model"))


def hole(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 2 + 1, width // 3 : width // 2 + 2] = True
    return mask


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (7, 50), (83, 41), (1, 9)])
def test_known_pixels_are_exact_at_any_size(pipe: InpaintPipeline, kind: str, size: tuple[int, int]) -> None:
    pixels, mask = noise(*size, 3), hole(*size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large holes
        out = np.asarray(pipe("", pixels, mask, generator=seeded(), **STEPS[kind]).images[0])
    assert out.shape == pixels.shape and (out[~mask] == pixels[~mask]).all() and (out[mask] != pixels[mask]).any()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [3, 4])
def test_known_pixels_keep_16_bits_with_alpha_in_a_turned_file(
    pipe: InpaintPipeline, kind: str, orientation: int, channels: int, tmp_path: Path
) -> None:
    values = noise(20, 26, channels, dtype=np.uint16)
    values[..., 3:] |= 2**15  # nothing is hidden
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    write_png(values, tmp_path / "in.png", exif=exif)
    photo = read_photo(tmp_path / "in.png")
    seen = upright(values, orientation)
    mask = hole(*seen.shape[:2])
    out = pipe("", photo, mask, generator=seeded(), mask_orientation="displayed", **STEPS[kind])
    save_image(out.images[0], tmp_path / "out.png")
    again = read_photo(tmp_path / "out.png")
    pixels = upright(again.pixels, again.orientation)
    assert pixels.dtype == np.uint16 and (pixels[~mask] == seen[~mask]).all() and (pixels[mask] != seen[mask]).any()


@pytest.mark.filterwarnings("ignore:this model draws nothing by chance")
def test_a_seed_gives_its_picture_whatever_the_batch(pipe: InpaintPipeline, kind: str) -> None:
    pixels, mask = noise(24, 30, 3), hole(24, 30)
    three = pipe("", pixels, mask, num_images_per_prompt=3, generator=seeded(4), **STEPS[kind])
    for image, seed in zip(three.images, three.seeds, strict=True):
        alone = pipe("", pixels, mask, generator=seeded(seed), **STEPS[kind])
        assert alone.images[0].tobytes() == image.tobytes() and alone.seeds == [seed]


def test_the_hole_is_not_seen(pipe: InpaintPipeline, kind: str) -> None:
    pixels, mask = noise(24, 30, 3), hole(24, 30)
    filled = np.where(mask[..., None], np.uint8(255), pixels)
    one, other = (pipe("", image, mask, generator=seeded(), **STEPS[kind]).images[0] for image in (pixels, filled))
    assert one.tobytes() == other.tobytes()


@pytest.mark.filterwarnings("ignore:this model draws nothing by chance")
def test_steps_are_reported_and_may_stop_the_work(pipe: InpaintPipeline, kind: str) -> None:
    steps: list[tuple[int, int]] = []

    def report(_: object, step: int, total: int, __: object) -> None:
        steps.append((step, total))

    pipe("", noise(24, 30, 3), hole(24, 30), num_images_per_prompt=2, callback_on_step_end=report, **STEPS[kind])
    assert [step for step, _ in steps] == list(range(1, steps[0][1] + 1)) and len(steps) >= 2
