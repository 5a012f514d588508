"""A whole model: saved and loaded it paints the same; what cannot be moved is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nuwa_lip
from nuwa_lip.errors import InputError
from nuwa_lip.pipeline import InpaintPipeline

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[15:25, 20:40] = True


def repaint(pipe: InpaintPipeline) -> np.ndarray:
    out = pipe(prompt="a bear", image=PIXELS, mask_image=MASK, generator=torch.Generator().manual_seed(0))
    return np.asarray(out.images[0])


@pytest.mark.parametrize("where", ["mps", torch.device("mps", 0)])
def test_apples_gpu_is_refused(tiny_pipe: InpaintPipeline, where: Any) -> None:
    with pytest.raises(InputError, match="Apple's GPU .mps. has no float64, in which tokens are drawn: take the CPU"):
        tiny_pipe.to(where)
    assert tiny_pipe.device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(tiny_pipe: InpaintPipeline, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="cuda cannot be used, leave the model where it is: .+") as caught:
        tiny_pipe.to("cuda")
    assert "\n" not in str(caught.value) and tiny_pipe.device.type == "cpu"
    with pytest.raises(InputError, match="such weights stay as they are"):
        InpaintPipeline.from_pretrained(tiny_model, weights="int8-weights").to("cuda")


def test_half_precision_works_and_keeps_known_pixels(tiny_model: Path) -> None:
    pipe = InpaintPipeline.from_pretrained(tiny_model, torch_dtype=torch.bfloat16)
    assert pipe.to("cpu") is pipe and pipe.dfvqgan.dtype == torch.bfloat16
    out = repaint(pipe)
    assert (out[~MASK] == PIXELS[~MASK]).all() and (out[MASK] != PIXELS[MASK]).mean() > 0.5


def test_saving_and_loading_gives_the_same_pictures(tiny_pipe: InpaintPipeline, tmp_path: Path) -> None:
    tiny_pipe.save_pretrained(tmp_path / "model")
    again = nuwa_lip.InpaintPipeline.from_pretrained(str(tmp_path / "model"))
    assert repaint(again).tobytes() == repaint(tiny_pipe).tobytes()
    assert again.sampling == tiny_pipe.sampling and again.card == tiny_pipe.card
    assert torch.equal(again.tokenizer(["a bear"]), tiny_pipe.tokenizer(["a bear"]))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((5,), "the model is 5"),
        ((None,), "the model is None"),
        (("nuwa-lip-mini", "float16"), "torch_dtype is 'float16'"),
        (("nuwa-lip-mini", torch.int8), "torch_dtype is torch.int8"),
        (("nuwa-lip-mini", None, ["int8"]), "there are no weights called"),
    ],
)
def test_arguments_of_another_type_are_named(given: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        InpaintPipeline.from_pretrained(*given)
    assert "\n" not in str(caught.value)
