"""aMUSEd as a painter: its VQ's defect-free tokens, diffusers' own rules, and our orders."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nuwa_lip.models.groups import SCHEDULES
from nuwa_lip.models.orders import ORDERS
from nuwa_lip.painters.masked_token import MaskedToken
from nuwa_lip.painters.painter import Window
from nuwa_lip.painters.token_folder import load_masked_token
from nuwa_lip.sampling import Sampling
from tests.small_models import seeded
from tests.tiny_pipelines import save_amused

MASK = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
MASK[:, :, 4:12, 2:10] = True
"""4 x 4 of 8 x 8 tokens."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_amused(tmp_path_factory.mktemp("amused"))


@pytest.fixture(scope="module")
def painter(folder: Path) -> MaskedToken:
    """Whose logits depend on everything."""
    loaded = load_masked_token(folder, torch.float32)
    with torch.no_grad():
        for module in loaded.transformer.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                module.weight.mul_(4)
    return loaded


@pytest.fixture(scope="module")
def window() -> Window:
    image = torch.rand(1, 3, 16, 16, generator=seeded()) * 2 - 1
    return Window(image.masked_fill(MASK, 0), MASK)


def theirs(folder: Path, painter: MaskedToken) -> Any:
    from diffusers import AmusedInpaintPipeline

    pipe = AmusedInpaintPipeline.from_pretrained(folder)
    pipe.transformer = painter.transformer
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_tokenizer_is_theirs_without_a_hole(folder: Path, painter: MaskedToken) -> None:
    vqvae = theirs(folder, painter).vqvae
    image = torch.rand(1, 3, 16, 16, generator=seeded())
    with torch.no_grad():
        tokens = vqvae.quantize(vqvae.encode(image).latents)[2][2].reshape(1, 8, 8)
        decoded = vqvae.decode(tokens, force_not_quantize=True, shape=(1, 8, 8, 8)).sample
    assert torch.equal(painter.dfvqgan.encode(image * 2 - 1).tokens, tokens) and len(tokens.unique()) > 3
    assert torch.allclose((painter.dfvqgan.decode(tokens) + 1) / 2, decoded, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 10.0])
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_equal_noise_gives_the_tokens_of_diffusers(
    folder: Path, painter: MaskedToken, window: Window, guidance: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same known tokens; theirs, whose encoder sees the hole, are replaced by ours."""
    pipe, codes = theirs(folder, painter), painter.dfvqgan.quantiser
    encoding = painter.dfvqgan.encode(window.image, window.mask)
    latents = codes.lookup(encoding.tokens)
    monkeypatch.setattr(pipe.vqvae, "encode", lambda _: SimpleNamespace(latents=latents))

    def by_inversion(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(len(probabilities), 1, generator=generator, dtype=torch.float64)
        total = probabilities.double().cumsum(-1)
        return torch.searchsorted(total, uniform * total[:, -1:], right=True)

    monkeypatch.setattr(torch, "multinomial", by_inversion)
    monkeypatch.setattr(pipe.vqvae, "decode", lambda tokens, **_: SimpleNamespace(sample=seen.append(tokens) or blank))
    seen: list[Tensor] = []
    blank, kept = torch.zeros(1, 3, 16, 16), []
    pipe(
        prompt="a bear",
        image=Image.new("RGB", (16, 16)),
        mask_image=Image.fromarray(MASK[0, 0, ::2, ::2].numpy()),
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=seeded(3),
    )
    lookup = codes.lookup
    monkeypatch.setattr(codes, "lookup", lambda tokens: kept.append(tokens) or lookup(tokens))
    sampling = Sampling(guidance_scale=guidance, num_inference_steps=steps, schedule="confidence")
    painter.paint(window, "a bear", [3], sampling, None)
    assert torch.equal(kept[0], seen[0])
    assert len(seen[0][MASK[:, 0, ::2, ::2]].unique()) > 1, "tokens that say something"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_candidates_depend_on_their_seed_alone(painter: MaskedToken, window: Window, schedule: str) -> None:
    calls: list[tuple[int, int]] = []
    for order in ORDERS:
        sampling = Sampling(guidance_scale=3.0, num_inference_steps=3, schedule=schedule, order=order)
        three = painter.paint(window, "a bear", [5, 6, 7], sampling, lambda *step: calls.append(step))
        one = painter.paint(window, "a bear", [6], sampling, None)
        assert torch.equal(three.images[1], one.images[0]) and three.scores[1] == one.scores[0] < 0
        assert not torch.equal(three.images[0], three.images[1])
        assert three.tokens == 16
    assert calls[:9] == [(step, 9) for step in range(1, 10)]


def test_the_caption_and_the_options_matter(painter: MaskedToken, window: Window) -> None:
    def scores(prompt: str = "a bear", **options: Any) -> tuple[float, float]:
        sampling = Sampling(**({"num_inference_steps": 4, "schedule": "cosine"} | options))
        first, second = painter.paint(window, prompt, [0, 1], sampling, None).scores.tolist()
        return first, second

    plain = scores()
    for other in (scores("the sea"), scores(guidance_scale=5.0), scores(order="border"), scores(schedule="confidence")):
        assert other != plain
    greedy = scores(temperature=0.0)
    assert greedy[0] == greedy[1] > max(plain) and scores(top_k=1) == greedy


@pytest.mark.parametrize("content", [0.0, torch.nan, torch.inf, 7.0])
def test_nothing_of_the_hole_is_seen(painter: MaskedToken, window: Window, content: float) -> None:
    usual = painter.needs.sampling
    clean = painter.paint(window, "", [0], usual, None).images[0]
    assert torch.equal(
        painter.paint(Window(window.image.masked_fill(MASK, content), MASK), "", [0], usual, None).images[0], clean
    )


def test_the_decoder_gives_the_whole_square(painter: MaskedToken, window: Window) -> None:
    image = painter.paint(window, "", [0], painter.needs.sampling, None).images[0]
    assert image.shape == (1, 3, 16, 16) and np.isfinite(image.numpy()).all()
    assert not torch.equal(image[~MASK.expand_as(image)], window.image[~MASK.expand_as(image)]), "no connections"
