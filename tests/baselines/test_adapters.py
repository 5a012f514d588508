"""Other people's models: tiny ones of the real kinds, and one line for whatever is missing."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nuwa_lip.baselines import registry
from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.errors import InputError
from tests.tiny_pipelines import save_amused, save_stable_diffusion


def check_repaint(name: str, benchmark: Benchmark, **options: Any) -> None:
    """Known pixels exact, the hole repainted and not seen, the same again with the same seed."""
    repaint = registry.load(name, BaselineOptions(**options))
    for i in (0, 3):
        item = benchmark[i]
        first, again = repaint(item), repaint(item)
        assert first.shape == item.image.shape and first.dtype == np.uint8
        assert (first[~item.mask] == item.image[~item.mask]).all()
        assert (first[item.mask] != item.image[item.mask]).any()
        assert (first == again).all()
        other = np.where(item.mask[..., None], np.uint8(255) - item.image, item.image)
        twin = BenchmarkItem(index=i, name=item.name, image=other, mask=item.mask, caption=item.caption)
        assert (repaint(twin) == first).all()


@pytest.mark.parametrize(("name", "save"), [("amused", save_amused), ("stable-diffusion", save_stable_diffusion)])
def test_pipelines_of_diffusers(name: str, save: Any, benchmark: Benchmark, tmp_path: Path) -> None:
    folder = str(save(tmp_path / name))
    check_repaint(name, benchmark, model=folder, steps=2)
    one, other = (registry.load(name, BaselineOptions(model=folder, steps=2, seed=s))(benchmark[0]) for s in (0, 1))
    assert (one != other).any(), "the seed counts"
    assert registry.load(name, BaselineOptions(model=folder, steps=1, guidance=1.0))(benchmark[0]).any()
    if name == "stable-diffusion":
        index = Path(folder) / "model_index.json"
        index.write_text(index.read_text().replace("StableDiffusionInpaintPipeline", "StableDiffusionPipeline"))
        with pytest.raises(InputError, match="is a StableDiffusionPipeline; .* takes one for inpainting"):
            registry.load(name, BaselineOptions(model=folder))


@pytest.mark.parametrize("name", ["amused", "stable-diffusion"])
def test_missing_pipelines_are_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in (None, str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(InputError, match=f"--baseline {name}: .*--baseline-model") as error:
            registry.load(name, BaselineOptions(model=model))
        assert "\n" not in str(error.value)
    for missing in ("diffusers", "transformers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            with pytest.raises(InputError, match=r"pip install 'nuwa-lip\[baselines\]'"):
                registry.load(name, BaselineOptions())


class Mean(nn.Module):
    """The hole becomes the mean of what is known; stands for LaMa."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        if image.shape[2] % 8 != 0 or image.shape[3] % 8 != 0:
            raise ValueError("sides must be multiples of eight")
        known = 1 - mask
        mean = (image * known).sum(dim=[2, 3], keepdim=True) / known.sum(dim=[2, 3], keepdim=True)
        return image * known + mean * mask


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_lama(benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="checkpoints/big-lama.pt is missing: fetch https://.*--baseline-model"):
        registry.load("lama", BaselineOptions())
    path = tmp_path / "checkpoints/big-lama.pt"
    path.parent.mkdir()
    torch.jit.script(Mean()).save(str(path))
    check_repaint("lama", benchmark)
    check_repaint("lama", benchmark, model=str(path))
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.pt is damaged or not TorchScript") as error:
        registry.load("lama", BaselineOptions(model=str(tmp_path / "bad.pt")))
    assert "\n" not in str(error.value)


class FakeTokenizer:
    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text][:6]

    def padded_tokens_and_mask(self, tokens: list[int], length: int) -> tuple[list[int], list[bool]]:
        fill = length - len(tokens)
        return tokens + [0] * fill, [True] * len(tokens) + [False] * fill


class FakeNetwork(nn.Module):
    """Says something of all that it is given, noise and variance, as the official networks do."""

    def __init__(self, finer: bool) -> None:
        super().__init__()
        self.weight, self.finer, self.tokenizer = nn.Parameter(torch.zeros(1)), finer, FakeTokenizer()

    def forward(self, x: Tensor, time: Tensor, *, tokens: Tensor, mask: Tensor, **told: Tensor) -> Tensor:
        assert ("low_res" in told) == self.finer and len(x) == len(tokens) == len(mask)
        assert x.shape == told["inpaint_image"].shape and x.shape[-1] == (256 if self.finer else 64)
        assert (told["inpaint_image"] * (1 - told["inpaint_mask"])).abs().max() == 0
        words = (tokens * mask).sum(1)[:, None, None, None] / 1000
        said = x / 2 + told["inpaint_image"] + words + self.weight
        return torch.cat([said, said], 1)


class FakeDiffusion:
    def p_sample_loop(self, predict: Any, shape: Any, *, noise: Tensor, denoised_fn: Any, **given: Any) -> Tensor:
        x = noise
        for moment in (1, 0):
            said = predict(x, torch.full((shape[0],), moment), **given["model_kwargs"])[:, :3]
            x = denoised_fn((x - said).clamp(-1, 1)) + moment * torch.randn(shape)
        return x


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the official one's names, whose networks are trivial."""
    creation: Any = types.ModuleType("glide_text2im.model_creation")
    creation.model_and_diffusion_defaults = lambda: {"text_ctx": 8, "super_res": False}
    creation.model_and_diffusion_defaults_upsampler = lambda: {"text_ctx": 8, "super_res": True}
    creation.create_model_and_diffusion = lambda **o: (FakeNetwork(o["super_res"]), FakeDiffusion())
    package: Any = types.ModuleType("glide_text2im")
    package.model_creation = creation
    monkeypatch.setitem(sys.modules, "glide_text2im", package)
    monkeypatch.setitem(sys.modules, "glide_text2im.model_creation", creation)


def test_the_published_glide(official: None, benchmark: Benchmark, tmp_path: Path) -> None:
    options = BaselineOptions(model=str(tmp_path))
    torch.save({"weight": torch.ones(1)}, tmp_path / "base_inpaint.pt")
    with pytest.raises(InputError, match="upsample_inpaint.pt is missing: fetch https://"):
        registry.load("glide", options)
    torch.save({"other": torch.ones(1)}, tmp_path / "upsample_inpaint.pt")
    with pytest.raises(InputError, match="is not the published upsample_inpaint.pt"):
        registry.load("glide", options)
    torch.save({"weight": torch.ones(1)}, tmp_path / "upsample_inpaint.pt")
    before = torch.random.get_rng_state()
    check_repaint("glide", benchmark, model=str(tmp_path))
    assert torch.equal(torch.random.get_rng_state(), before), "its seed is its own affair"
    plain, guided = (
        registry.load("glide", BaselineOptions(model=str(tmp_path), guidance=s))(benchmark[0]) for s in (1.0, 5.0)
    )
    assert (plain != guided).any()


def test_without_the_official_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "glide_text2im", None)
    (tmp_path / "base_inpaint.pt").write_bytes(b"")
    with pytest.raises(InputError, match="glide_text2im: git clone https://github.com/openai/glide-text2im") as error:
        registry.load("glide", BaselineOptions(model=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_names_and_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no baseline is called 'dalle'; there are: glide, amused"):
        registry.load("dalle", BaselineOptions())
    with pytest.raises(InputError, match="--baseline glide needs --baseline-model DIR"):
        registry.load("glide", BaselineOptions())
    with pytest.raises(InputError, match="is no GLIDE folder, it has no config.json"):
        registry.load("glide", BaselineOptions(model=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps({"format_version": 1, "dfvqgan": {}}))
    with pytest.raises(InputError, match="config.json is not of a GLIDE"):
        registry.load("glide", BaselineOptions(model=str(tmp_path)))
    with pytest.raises(InputError, match="--baseline-steps is 0; it must be 1 or more"):
        BaselineOptions(steps=0)
    with pytest.raises(InputError, match="--baseline-guidance is -1"):
        BaselineOptions(guidance=-1.0)
    for name, options in (("telea", {"model": "x"}), (None, {"steps": 3}), ("lama", {"guidance": 2.0})):
        with pytest.raises(InputError, match=f"--baseline-{next(iter(options))} is for --baseline glide, "):
            registry.check(name, BaselineOptions(**options))  # type: ignore[arg-type]
    registry.check("glide", BaselineOptions(model="x", steps=3))
