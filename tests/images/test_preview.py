"""Previews: known pixels are the photo's, small ones show nothing but the hole, and looking changes no result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.images.photo import as_photo
from nuwa_lip.images.preview import Preview
from nuwa_lip.images.windows import Box
from nuwa_lip.pipeline import InpaintPipeline
from tests.small_models import seeded

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
MASK = np.zeros((90, 120), bool)
MASK[5:15, 5:15] = MASK[50:75, 60:100] = True


def test_the_photo_so_far_keeps_every_known_pixel_and_comes_closer(tiny_pipe: InpaintPipeline) -> None:
    shown: list[tuple[Preview, np.ndarray]] = []

    def look(pipe: object, step: int, steps: int, given: dict[str, Any]) -> None:
        shown.append((given["preview"], np.asarray(given["preview"].picture())))

    words: dict[str, Any] = {"num_inference_steps": 4, "order": "raster", "blend": False}
    plain = tiny_pipe("a bear", PIXELS, MASK, generator=seeded(3), **words)
    watched = tiny_pipe("a bear", PIXELS, MASK, generator=seeded(3), callback_on_step_end=look, **words)
    assert watched.scores == plain.scores
    assert watched.images[0].tobytes() == plain.images[0].tobytes(), "looking changes nothing"
    assert len(shown) == 8 and len({preview.box for preview, _ in shown}) == 2
    result = np.asarray(plain.images[0])
    for preview, picture in shown:
        assert (picture[~MASK] == PIXELS[~MASK]).all()
        left, top, width, height = preview.box
        own = np.zeros_like(MASK)
        own[top : top + height, left : left + width] = preview.mask
        assert (picture[~own] == PIXELS[~own]).all(), "other windows are other previews"
        shape = (height, width)
        assert preview.mask.shape == shape
    (first, _, _, last) = [picture for preview, picture in shown if preview.box == shown[-1][0].box]
    own = np.zeros_like(MASK)
    own[50:75, 60:100] = True
    assert (last[own] == result[own]).all() and (first[own] != result[own]).any()


@pytest.mark.parametrize("longest", [1000, 40, 7, 1])
def test_a_small_preview_shows_the_hole_alone(longest: int) -> None:
    window = Box(-10, 40, 80, 130)
    rows, columns = window.within((90, 120))
    square = torch.zeros(1, 3, 32, 32)
    square[:, 0] = 1
    preview = Preview(as_photo(PIXELS), window, MASK[rows, columns], lambda: square)
    assert preview.box == (40, 0, 80, 80)
    small = preview.small(longest)
    assert small.mode == "RGBA" and small.size == (min(longest, 80),) * 2
    shown = np.asarray(small)
    assert (shown[..., :3] == (255, 128, 128)).all() and set(np.unique(shown[..., 3])) <= {0, 255}
    if longest >= 80:
        assert (shown[..., 3] == np.where(preview.mask, 255, 0)).all()
    known = Image.fromarray((~preview.mask).astype(np.uint8) * 255).resize(small.size, Image.Resampling.BOX)
    assert not (np.asarray(known)[shown[..., 3] > 0] > 1).any()


def test_it_lies_where_the_model_has_painted() -> None:
    """A window that reaches beyond the photo: the small picture agrees with the exact one."""
    window = Box(-10, 40, 80, 130)
    rows, columns = window.within((90, 120))
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    preview = Preview(as_photo(PIXELS), window, np.ones((80, 80), bool), lambda: ramp)
    exact = preview.patch().rgb * 255
    assert preview.patch().box == (rows, columns)
    assert np.abs(np.asarray(preview.small(1000))[..., :3] - exact).max() < 3
