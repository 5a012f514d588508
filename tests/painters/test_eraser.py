"""Erasers: what the two signatures are given, what is made of their answers, and graphs of neither kind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save_model

from nuwa_lip.errors import InputError
from nuwa_lip.painters.eraser import SIDE, Eraser, load_eraser
from nuwa_lip.painters.painter import Window
from nuwa_lip.pipeline import InpaintPipeline
from tests.small_models import seeded
from tests.tiny_graphs import save_lama, save_migan

MASK = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
MASK[:, :, 4:9, 5:12] = True


def window() -> Window:
    image = torch.rand(1, 3, 16, 16, generator=seeded())
    return Window(image.masked_fill(MASK, 0.5), MASK)


@pytest.mark.parametrize("scale", [255.0, 1.0])
def test_lama_gives_the_known_pixels_back_in_either_scale(scale: float, tmp_path: Path) -> None:
    painter, seen = load_eraser(save_lama(tmp_path, scale=scale), torch.float32), window()
    painted = painter.paint(seen, "", [0], painter.needs.sampling, None).images[0]
    known = ~MASK.expand_as(painted)
    assert painter.needs.resolution == 16 and torch.allclose(painted[known], seen.image[known], atol=1e-5)
    mean = seen.image.masked_fill(MASK, 0).sum((2, 3)) / ((~MASK).sum() + 1)
    assert torch.allclose(painted[0, :, 6, 7], mean[0], atol=1e-5)


def test_migan_takes_bytes_and_zeros_in_the_hole(tmp_path: Path) -> None:
    painter, seen = load_eraser(save_migan(tmp_path), torch.float32), window()
    given: list[dict[str, np.ndarray]] = []
    run = painter.session.run

    class Recorded:
        def run(self, outputs: Any, inputs: dict[str, np.ndarray]) -> Any:
            given.append(inputs)
            return run(outputs, inputs)

    painter.session = Recorded()
    painted = painter.paint(seen, "", [0], painter.needs.sampling, None).images[0]
    assert painter.needs.resolution == SIDE
    assert given[0]["image"].dtype == given[0]["mask"].dtype == np.uint8
    assert (given[0]["mask"] == np.where(MASK.numpy(), 0, 255)).all()
    known = ~MASK.expand_as(painted)
    assert torch.allclose(painted[known], seen.image[known], atol=0.5 / 255 + 1e-6)


def test_all_seeds_give_the_same_and_say_so(tmp_path: Path) -> None:
    pipe = InpaintPipeline.from_pretrained(save_lama(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[5:9, 6:14] = True
    with pytest.warns(UserWarning, match="all 2 candidates are equal"):
        out = pipe("", pixels, mask, num_images_per_prompt=2, generator=seeded())
    assert out.images[0].tobytes() == out.images[1].tobytes()
    with pytest.warns(UserWarning, match="reads no caption"):
        assert pipe("a bear", pixels, mask).images[0].tobytes() == out.images[0].tobytes()
    with pytest.raises(InputError, match="num_inference_steps is 3, but this model has no such option"):
        pipe("", pixels, mask, num_inference_steps=3)


def test_folders_of_graphs(tmp_path: Path) -> None:
    save_lama(tmp_path / "one")
    assert isinstance(InpaintPipeline.from_pretrained(tmp_path / "one").painter, Eraser)
    save_migan(tmp_path / "one")
    with pytest.raises(InputError, match="holds 2 graphs, lama_fp32.onnx and others: name the file itself"):
        InpaintPipeline.from_pretrained(tmp_path / "one")


def test_what_is_no_eraser_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_lama(tmp_path)
    with pytest.raises(InputError, match="leave bfloat16 out"):
        InpaintPipeline.from_pretrained(path, torch.bfloat16)
    (tmp_path / "torn.onnx").write_bytes(path.read_bytes()[:100])
    kinds = {"wide": TensorProto.DOUBLE, "mask": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, kind, [1, 3, 16, 16]) for name, kind in kinds.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 16])
    graph = helper.make_graph([helper.make_node("Identity", ["mask"], ["y"])], "other", inputs, [output])
    save_model(helper.make_model(graph, ir_version=8), tmp_path / "other.onnx")
    for name, says in (("torn", "torn.onnx cannot be loaded"), ("other", "the graph takes wide tensor.double., mask")):
        with pytest.raises(InputError, match=says) as caught:
            InpaintPipeline.from_pretrained(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime: pip install 'nuwa-lip\[erase\]'"):
        InpaintPipeline.from_pretrained(path)
