"""VQGAN and NÜWA: our models with switches off, tokens of the zero-filled photo, measured with and without pasting."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.baselines import methods
from nuwa_lip.commands import evaluate
from nuwa_lip.data.benchmark import Benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training import recipes
from nuwa_lip.training.tokenizing import encode_pair


@pytest.fixture(scope="module")
def nuwa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the recipes vqgan-tiny and nuwa-tiny, with random weights."""
    torch.manual_seed(0)
    dfvqgan = DFVQGAN(recipes.named("dfvqgan", "vqgan-tiny").model).eval()
    torch.nn.init.normal_(dfvqgan.quantiser.codebook)
    mps2s = MPS2S(recipes.named("mps2s", "nuwa-tiny").model).eval()
    tokenizer = CaptionTokenizer.train(["a red boat"], vocab_size=280, max_length=mps2s.config.text_length)
    folder = tmp_path_factory.mktemp("models") / "nuwa"
    sampling = Sampling(num_inference_steps=2)
    save_model(folder, dfvqgan=dfvqgan, mps2s=mps2s, tokenizer=tokenizer, sampling=sampling)
    return folder


@pytest.mark.parametrize("size", ["mini", "tiny"])
def test_only_the_switches_differ(size: str) -> None:
    ours, plain = (recipes.named("dfvqgan", name) for name in (size, f"vqgan-{size}"))
    assert not plain.model.relative_estimation and not plain.model.symmetrical_connections
    off = dataclasses.replace(ours.model, relative_estimation=False, symmetrical_connections=False)
    assert dataclasses.replace(ours, model=off) == plain
    ours, plain = (recipes.named("mps2s", name) for name in (size, f"nuwa-{size}"))
    assert plain.model.perspectives == ("text", "tokens")
    assert dataclasses.replace(plain, model=ours.model) == ours


def test_tokens_are_those_of_the_zero_filled_photo(nuwa: Path) -> None:
    model = InpaintPipeline.from_pretrained(nuwa).dfvqgan
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).tanh()
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[:, :, 5:20, 9:] = True
    with torch.no_grad():
        blank = model.encode(image.masked_fill(mask, 0))
        found = model.encode(image.masked_fill(mask, float("nan")), mask)
        pair, _ = encode_pair(model, image, mask)
        whole = model.encode(image)
        assert torch.equal(model.decode(blank.tokens, found.skips), model.decode(blank.tokens)), "no connections"
    assert torch.equal(found.tokens, blank.tokens)
    assert found.token_mask is not None
    hole = found.token_mask[:, 0]
    assert torch.equal(pair[~hole], blank.tokens[~hole]) and torch.equal(pair[hole], whole.tokens[hole])
    assert (blank.tokens[~hole] != whole.tokens[~hole]).any(), "what DF-VQGAN mends: the hole changes known tokens"


def test_unpasted_is_the_whole_picture_and_pasted_its_hole(nuwa: Path, benchmark: Benchmark) -> None:
    for i in (0, 3):
        item = benchmark[i]
        whole = methods.model(str(nuwa), unpasted=True)(item)
        assert whole.shape == item.image.shape
        assert (whole[~item.mask] != item.image[~item.mask]).mean() > 0.5
        pipe = InpaintPipeline.from_pretrained(nuwa)
        out = pipe(
            item.caption,
            Image.fromarray(item.image),
            Image.fromarray(item.mask),
            generator=torch.Generator().manual_seed(i),
            padding_mask_crop=max(item.mask.shape),
        )
        pasted = np.asarray(out.images[0])
        assert (pasted == np.where(item.mask[..., None], whole, item.image)).all()
        assert (methods.model(str(nuwa))(item)[~item.mask] == item.image[~item.mask]).all()


def test_compositing_is_off_for_this_call_only(tiny_pipe: InpaintPipeline) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[15:25, 20:40] = True

    def repaint(**options: Any) -> np.ndarray:
        # the window is larger than the model's square: what is known is resampled too
        given = {"generator": torch.Generator().manual_seed(0), "padding_mask_crop": 60}
        out = tiny_pipe("a bear", pixels, mask, **given, **options)
        return np.asarray(out.images[0])

    usual, whole = repaint(), repaint(composite=False)
    assert (usual[~mask] == pixels[~mask]).all() and (whole[mask] == usual[mask]).all()
    assert (whole[~mask] != pixels[~mask]).any() and (repaint(composite=True) == usual).all()


def test_the_command_measures_both(nuwa: Path, benchmark: Benchmark, tmp_path: Path) -> None:
    files = {unpasted: tmp_path / f"{unpasted}.json" for unpasted in (False, True)}
    for unpasted, path in files.items():
        evaluate.images(
            benchmark.folder, model=str(nuwa), unpasted=unpasted, json=path, limit=2, save_images=path.with_suffix("")
        )
    pasted, whole = (json.loads(path.read_text()) for path in files.values())
    assert pasted["method"] == "nuwa" and pasted["known_max_change"] == 0 and "unpasted" not in pasted
    assert whole["method"] == "nuwa-unpasted" and whole["known_max_change"] > 0 and whole["unpasted"]
    with pytest.raises(InputError, match="pictures of another run"):
        evaluate.images(benchmark.folder, model=str(nuwa), limit=2, save_images=tmp_path / "True")
    with pytest.raises(InputError, match="--unpasted .* give --model"):
        evaluate.images(benchmark.folder, baseline="telea", unpasted=True)
    with pytest.raises(InputError, match="--baseline-model is for --baseline glide"):
        evaluate.images(benchmark.folder, baseline="telea", baseline_model="x")
