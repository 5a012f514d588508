"""The command and the server take painters by the same names as the pipeline, and refuse the same options."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from nuwa_lip.images.files import read_photo
from nuwa_lip.images.provenance import read_statement
from nuwa_lip.pipeline import InpaintPipeline
from tests.running_server import running
from tests.small_models import seeded
from tests.tiny_graphs import save_lama
from tests.tiny_pipelines import save_amused

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lama(tmp_path_factory.mktemp("lama"))


@pytest.fixture(scope="module")
def amused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_amused(tmp_path_factory.mktemp("amused"))


def test_the_command_gives_the_pipelines_picture(
    nuwa_lip: Run, amused: Path, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    options = ("--seed", 3, "--steps", 3, "--order", "border", "--schedule", "cosine", "--sidecar")
    files = ("--mask", mask_file, "-o", tmp_path / "out.png")
    done = nuwa_lip("inpaint", photo_file, *files, "--prompt", "a bear", "--model", amused, *options)
    assert done.code == 0, done.err
    photo, mask = Image.open(photo_file), Image.open(mask_file)
    how: dict[str, Any] = {"num_inference_steps": 3, "order": "border", "schedule": "cosine"}
    expected = InpaintPipeline.from_pretrained(amused)("a bear", photo, mask, generator=seeded(3), **how)
    assert (np.asarray(Image.open(tmp_path / "out.png")) == np.asarray(expected.images[0])).all()
    again = nuwa_lip("inpaint", "--from", tmp_path / "out.png.json", "-o", tmp_path / "again.png")
    assert again.code == 0 and (tmp_path / "again.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_the_command_erases(
    nuwa_lip: Run, graph: Path, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("inpaint", photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--prompt")
    done = nuwa_lip(*words, "", "--model", graph, "--sidecar")
    assert done.code == 0, done.err
    pixels, mask = np.asarray(Image.open(photo_file)), np.asarray(Image.open(mask_file)) > 127
    painted = np.asarray(Image.open(tmp_path / "out.png"))
    assert (painted[~mask] == pixels[~mask]).all() and painted[mask].std() < 10, "the mean"
    statement = read_statement(read_photo(tmp_path / "out.png").info)
    assert statement is not None and statement.model == "lama_fp32.onnx", "not where it lies"
    monkeypatch.chdir(tmp_path.parent)  # the sidecar holds where the graph is
    assert nuwa_lip("inpaint", "--from", tmp_path / "out.png.json", "-o", tmp_path / "again.png").code == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--order", "border"), "order is 'border', but this model has no such option"),
        (("--steps", 3), "num_inference_steps is 3, but this model has no such option"),
        (("--weights", "int8"), "weights is 'int8'"),
        (("--dtype", "bfloat16"), "leave bfloat16 out"),
        (("--compile",), "cannot be compiled: it is of the kind Eraser"),
    ],
)
def test_options_that_mean_nothing_are_one_line(
    nuwa_lip: Run, graph: Path, photo_file: Path, mask_file: Path, tmp_path: Path, options: Any, says: str
) -> None:
    words = ("inpaint", photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--prompt", "", "--model", graph)
    done = nuwa_lip(*words, *options)
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


def test_the_server_paints_with_any_of_them(graph: Path, amused: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    mask = np.zeros((40, 56), bool)
    mask[10:25, 20:40] = True

    def png(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return file.getvalue()

    def post(address: str, **fields: Any) -> httpx.Response:
        files = {"image": png(pixels), "mask": png(mask)}
        return httpx.post(f"{address}/v1/inpaint", data=fields, files=files, timeout=60)

    for model, more in ((graph, {}), (amused, {"num_inference_steps": "2", "schedule": "constant"})):
        with running(model) as address:
            answer = post(address, seed="1", **more)
            assert answer.status_code == 200, answer.text
            assert answer.json()["known_changed"] == 0
            painted = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]["b64"]))))
            assert (painted[~mask] == pixels[~mask]).all() and (painted[mask] != pixels[mask]).any()
            if model is graph:
                refused = post(address, top_k="5")
                assert refused.status_code == 422 and "top_k is 5, but this model has no such option" in refused.text
                assert any("reads no caption" in note for note in post(address, prompt="a bear").json()["notes"])
