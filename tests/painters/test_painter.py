"""The protocol: what a painter is given and gives back, and options that mean nothing to it."""

from typing import Any

import numpy as np
import pytest
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.images.windows import View
from nuwa_lip.painters.painter import Needs, Painting, Window
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling
from tests.small_models import seeded

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[15:25, 20:40] = True


class Flat:
    """Paints one grey a seed."""

    device = CPU

    def __init__(self, **needs: Any) -> None:
        self.needs = Needs(**{"resolution": 32, "value_range": (0, 1), "options": frozenset({"blend"})} | needs)
        self.windows: list[Window] = []

    def paint(self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Any) -> Painting:
        self.windows.append(window)
        return Painting([torch.full((1, 3, 32, 32), seed / 10) for seed in seeds], torch.zeros(len(seeds)))

    def to(self, *args: Any, **kwargs: Any) -> None:
        pass


def test_windows_come_in_the_painters_range() -> None:
    view = View(np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3), np.eye(4, dtype=bool))
    for low, high, hole in ((-1.0, 1.0, 0.0), (0.0, 1.0, 0.5), (0.0, 255.0, 128.0)):
        needs = Needs(resolution=4, value_range=(low, high), hole=hole)
        image, mask, first = needs.window(view, CPU)
        assert image.shape == (1, 3, 4, 4) and mask.shape == (1, 1, 4, 4) and first is None
        assert (image[0, :, torch.eye(4).bool()] == hole).all()
        known = ~mask.expand_as(image)
        back = (needs.signed(image) + 1) / 2
        assert torch.allclose(back[known], torch.from_numpy(view.image).permute(2, 0, 1)[None][known], atol=1e-6)
    with pytest.raises(InputError, match="resolution is 30; it must be a multiple of 8"):
        Needs(resolution=30, multiple=8)


def test_any_painter_fills_the_windows_of_a_pipeline() -> None:
    pipe = InpaintPipeline.from_painter(Flat())
    out = pipe("", PIXELS, MASK, num_images_per_prompt=3, generator=seeded(2))
    assert [np.asarray(image)[20, 30, 0] for image in out.images] == [51, 76, 102] and out.seeds == [2, 3, 4]
    assert all((np.asarray(image)[~MASK] == PIXELS[~MASK]).all() for image in out.images)
    assert out.scores == [0, 0, 0] and pipe.resolution == 32 and pipe.to("cpu") is pipe and pipe.card is None


@pytest.mark.parametrize("option", [{"temperature": 0.5}, {"order": "border"}, {"guidance_scale": 2.0}])
def test_options_that_mean_nothing_are_refused(option: dict[str, Any]) -> None:
    pipe, name = InpaintPipeline.from_painter(Flat()), next(iter(option))
    with pytest.raises(InputError, match=f"{name} is .*, but this model has no such option: leave it out .blend."):
        pipe("", PIXELS, MASK, **option)
    with pytest.warns(UserWarning, match="this model reads no caption: 'a bear' changes nothing"):
        pipe("a bear", PIXELS, MASK, blend=True)


def test_what_is_of_nuwa_lip_alone_is_refused() -> None:
    pipe = InpaintPipeline.from_painter(Flat())
    for use in (lambda: pipe.mps2s, pipe.compile, lambda: pipe.save_pretrained("nowhere")):
        with pytest.raises(InputError, match="Flat") as caught:
            use()
        assert "\n" not in str(caught.value)
