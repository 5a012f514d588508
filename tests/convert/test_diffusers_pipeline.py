"""diffusers' own loader takes the folder and the file, offline, and known pixels stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from nuwa_lip import InpaintPipeline
from nuwa_lip.convert.export import export
from nuwa_lip.errors import InputError


def test_one_line_is_swapped(
    tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "exported"
    assert export(tiny_model, folder, "diffusers") == ["model_index.json", "pipeline.py"]
    photo, mask = Image.open(photo_file), Image.open(mask_file)
    given = {"prompt": "a bear", "image": photo, "mask_image": mask}
    expected = InpaintPipeline.from_pretrained(tiny_model)(**given, generator=torch.Generator().manual_seed(3))
    for custom in (folder, folder / "pipeline.py"):
        pipe = DiffusionPipeline.from_pretrained(
            folder, custom_pipeline=str(custom), local_files_only=True, trust_remote_code=True
        )
        assert type(pipe).__name__ == "NuwaLipInpaintPipeline"
        found = pipe.to("cpu", torch.float32)(**given, generator=torch.Generator().manual_seed(3))
        assert found.images[0].tobytes() == expected.images[0].tobytes()
    known = np.asarray(mask) < 128
    assert (np.asarray(found.images[0])[known] == np.asarray(photo)[known]).all()


def test_half_a_model_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    for name in ("config.json", "dfvqgan.safetensors"):
        (half / name).write_bytes((tiny_model / name).read_bytes())
    with pytest.raises(InputError, match="is missing"):
        export(half, tmp_path / "out", "diffusers")
    assert not (tmp_path / "out").exists()
