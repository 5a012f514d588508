"""Names of painters: folders, short names and hub ids; whatever is missing or wrong is one line."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nuwa_lip import hub
from nuwa_lip.errors import InputError
from nuwa_lip.painters.known import KNOWN
from nuwa_lip.painters.masked_token import MaskedToken
from nuwa_lip.pipeline import InpaintPipeline
from tests.fake_hub import fake_hub
from tests.tiny_pipelines import save_amused, save_stable_diffusion


@pytest.fixture(scope="module")
def amused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_amused(tmp_path_factory.mktemp("amused"))


def refused(name: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        InpaintPipeline.from_pretrained(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_diffusers_is_a_painter(amused: Path) -> None:
    pipe = InpaintPipeline.from_pretrained(amused)
    assert isinstance(pipe.painter, MaskedToken) and pipe.resolution == 16
    assert pipe.sampling.guidance_scale == 10 and pipe.dfvqgan.config.input_range == (0, 1)
    half = InpaintPipeline.from_pretrained(str(amused), torch.bfloat16).painter
    assert half.transformer.dtype == torch.bfloat16 and half.dfvqgan.dtype == torch.float32  # type: ignore[attr-defined]


def test_a_known_name_is_looked_up_in_the_cache_alone(amused: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("nothing is fetched"))
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(hub, "cached", lambda *given: asked.append(given))
    for name, known in KNOWN.items():
        for given in (name, known.id):
            said = refused(given)
            assert f"nuwa-lip pull {known.id}" in said and known.licence in said and known.size in said
        assert asked[-1] == (known.id, known.file or "model_index.json")
    monkeypatch.setattr(hub, "cached", lambda *_: amused / "model_index.json")
    for name in ("amused-256", "amused/amused-256", "someone/tuned-amused"):
        assert isinstance(InpaintPipeline.from_pretrained(name).painter, MaskedToken)


@pytest.mark.parametrize("missing", ["diffusers", "transformers"])
def test_a_missing_library_names_the_extra(amused: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("nuwa_lip.painters.masked")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    assert f"needs {missing}: pip install 'nuwa-lip[painters]'" in refused(amused)


@pytest.mark.parametrize(
    "part",
    [
        "vqvae/config.json",
        "vqvae/diffusion_pytorch_model.safetensors",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize("content", [None, b"torn"])
def test_missing_or_torn_parts_are_one_line(part: str, content: bytes | None, amused: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(amused, folder)
    (folder / part).unlink() if content is None else (folder / part).write_bytes(content)
    assert str(folder) in refused(folder)


def test_forms_of_weights_are_nuwa_lips(amused: Path) -> None:
    assert "weights is 'int8'" in refused(amused, weights="int8")


def test_a_caption_that_is_too_long_is_cut_with_a_warning(amused: Path, tmp_path: Path) -> None:
    pixels, mask = np.zeros((16, 16, 3), np.uint8), np.eye(16, dtype=bool)
    for folder in (amused, save_stable_diffusion(tmp_path)):
        pipe = InpaintPipeline.from_pretrained(folder)
        with pytest.warns(UserWarning, match="the caption is too long, and cut after '... z"):
            pipe("z" * 40, pixels, mask, num_inference_steps=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipe("zzz", pixels, mask, num_inference_steps=1)


def test_a_pipeline_of_the_hub_is_a_painter_once_it_was_pulled(
    amused: Path, nuwa_lip: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {str(path.relative_to(amused)): path.read_bytes() for path in amused.rglob("*") if path.is_file()}
    copy, pickle = "vqvae/diffusion_pytorch_model.fp16.safetensors", "vqvae/diffusion_pytorch_model.bin"
    files |= {copy: b"copy", pickle: b"pickle"}
    with fake_hub("some/pipeline", files, monkeypatch, tmp_path / "cache") as asked:
        assert "fetch it by 'nuwa-lip pull some/pipeline'" in refused("some/pipeline") and not asked.asked
        done = nuwa_lip("pull", "some/pipeline")
        assert done.code == 0 and "some/pipeline: AmusedInpaintPipeline of diffusers" in done.out, done.err
        before = len(asked.asked)
        assert isinstance(InpaintPipeline.from_pretrained("some/pipeline").painter, MaskedToken)
        paths = [path for _, path, _ in asked.asked]
        assert len(paths) == before and not any(path.endswith((copy, pickle)) for path in paths)
