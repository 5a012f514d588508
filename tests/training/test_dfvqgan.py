"""Stage 1: accumulated parts equal the big batch, an interrupted run the one in one go, revival, fine-tuning."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from nuwa_lip.assets import asset
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.data.photos import PhotoBatch, PhotoSet
from nuwa_lip.errors import InputError
from nuwa_lip.hub import load_model
from nuwa_lip.models import DFVQGAN
from nuwa_lip.models.perceptual import SqueezeNetFeatures
from nuwa_lip.training import dfvqgan
from nuwa_lip.training.dfvqgan import SQUEEZENET, DFVQGANStage, Phase, load_perceptual
from nuwa_lip.training.recipes import DFVQGAN_RECIPES, Adversary, DFVQGANRecipe
from tests.folders import contents
from tests.small_runs import (
    DFVQGAN_CONFIG,
    NEEDS_COMPILER,
    compile_as_traced,
    dfvqgan_recipe,
    efficientnet_state,
    interrupted,
    make_cpu_accelerator,
    run,
)

SIXTEEN = dataclasses.replace(DFVQGAN_CONFIG, codebook_size=16)


def make(photos: PhotoSet, **changes: Any) -> DFVQGANStage:
    return DFVQGANStage(dfvqgan_recipe(**changes), photos, make_cpu_accelerator())


def first_batch(stage: DFVQGANStage) -> PhotoBatch:
    return next(stage.batches(0))


def gradients(stage: DFVQGANStage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the first step, of generator and discriminator; and the step's figures. No weight is moved by them."""
    for optimizer in stage.optimizers.values():
        optimizer.step = optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
    figures = stage.step(0, first_batch(stage))
    found = {}
    for name in ("model", "critic"):
        for key, parameter in stage.modules[name].named_parameters():
            assert parameter.grad is not None
            found[f"{name}.{key}"] = parameter.grad
    return found, figures


def count_revivals(stage: DFVQGANStage) -> list[Tensor]:
    """The latents of every revival to come."""
    seen: list[Tensor] = []
    revive = stage.raw.quantiser.revive

    def counted(dead: Tensor, latents: Tensor, generator: torch.Generator) -> None:
        seen.append(latents)
        revive(dead, latents, generator)

    stage.raw.quantiser.revive = counted  # type: ignore[method-assign]
    return seen


@pytest.fixture(scope="module")
def big_batch(photos: PhotoSet) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    stage = make(photos, revive_after=1)
    return *gradients(stage), stage.raw.quantiser.codebook.detach()


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_equal_the_big_batch(parts: int, photos: PhotoSet, big_batch: Any) -> None:
    stage = make(photos, revive_after=1, accumulate=parts)
    revivals = count_revivals(stage)
    found, figures = gradients(stage)
    wanted, wanted_figures, codebook = big_batch
    assert sum(g.square().sum() for g in wanted.values()) > 0.5, "gradients are not all but zero"
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert set(figures) == set(wanted_figures) and figures["adversary_weight"] > 0
    for name, value in wanted_figures.items():
        torch.testing.assert_close(figures[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert [len(latents) for latents in revivals] == [4], "once a step, from the latents of the whole batch"
    torch.testing.assert_close(stage.raw.quantiser.codebook.detach(), codebook, atol=1e-5, rtol=1e-4)


@NEEDS_COMPILER
def test_compiled_gradients_are_the_same(photos: PhotoSet, apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two levels: each has graphs of its own, which are slow to make."""
    compile_as_traced(monkeypatch)
    shallow = dataclasses.replace(DFVQGAN_CONFIG, channels=(8, 16))
    wanted, wanted_figures = gradients(make(photos, model=shallow))
    stage = make(photos, model=shallow, accumulate=2, compile=True)
    found, figures = gradients(stage)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(figures["adversary_weight"], wanted_figures["adversary_weight"], atol=1e-4, rtol=1e-3)
    assert 4 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 16, "one for each kind and size of block"
    assert all(block._compiled_call_impl is None for block in stage.average.model.modules())


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> Adversary:
    path = tmp_path_factory.mktemp("weights") / "efficientnet_lite0.safetensors"
    save_file(efficientnet_state(), path)
    return Adversary(kind="projected", features=str(path), start=0.0, filters=8, crop=16)


@pytest.mark.parametrize("kind", ["patch", "projected"])
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(
    kind: str, photos: PhotoSet, projected: Adversary, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"adversary": projected} if kind == "projected" else {}
    recipe = dfvqgan_recipe(steps=5, accumulate=2, revive_after=4, **changes)

    def made() -> DFVQGANStage:
        return make(photos, steps=5, accumulate=2, revive_after=4, **changes)

    run(made(), recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(made(), at=2), recipe, tmp_path / "parts")
    assert [p.name for p in (tmp_path / "parts/checkpoints").iterdir()] == ["step-3"]
    idle = load_file(tmp_path / "parts/checkpoints/step-3/buffers.safetensors")["idle"]
    assert idle.max() == 3, "some codes are about to be revived"
    run(made(), recipe, tmp_path / "parts", resume=True)
    whole, parts = (contents(tmp_path / name / "checkpoints/step-5") for name in ("whole", "parts"))
    assert set(whole) == {
        *(f"{name}.safetensors" for name in ("model", "average", "critic", "buffers")),
        *(f"{name}.optimizer.safetensors" for name in ("model", "critic")),
        "state.json",
    }
    assert [name for name in whole if whole[name] != parts.get(name)] == []
    assert contents(tmp_path / "whole/model") == contents(tmp_path / "parts/model")


def test_the_sheet_shows_eight_photos(photos: PhotoSet, tmp_path: Path) -> None:
    made = run(make(photos, steps=1), dfvqgan_recipe(steps=1), tmp_path / "run")
    (path,) = (made.path / "sheets").iterdir()
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and path.name == "step-0000001.png"
        assert sheet.width > 4 * 160 and sheet.height > 8 * 160 and max(sheet.size) < 2000


def test_only_photos_with_a_hole_are_decoded_with_connections(photos: PhotoSet) -> None:
    masks = MaskRecipe(rectangles=0.5, nothing=0.5)
    seen = {}
    for connect in (0.0, 0.5, 1.0):
        stage = make(photos, connect=connect, masks=masks)
        batches = [stage.prepare(step, photos.batch(step, 12, seed=0)) for step in range(6)]
        holes = torch.cat([batch.mask.flatten(1).any(1) for batch in batches])
        on = torch.cat([batch.connect for batch in batches])
        assert not (on & ~holes).any() and 20 < holes.sum() < 52
        seen[connect] = on.sum() / holes.sum()
    assert seen[0.0] == 0 and 0.3 < seen[0.5] < 0.7 and seen[1.0] == 1


def test_a_batch_is_a_function_of_seed_and_step(photos: PhotoSet) -> None:
    stage, batch = make(photos), photos.batch(0, 4, seed=0)
    once, again, other = (stage.prepare(step, batch) for step in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once.image, other.image) and not torch.equal(once.mask, other.mask)
    assert once.image.shape == (4, 3, 32, 32) and once.mask.shape == (4, 1, 32, 32)
    halves = once.parts(2)
    assert all(torch.equal(torch.cat(h), w) for h, w in zip(zip(*halves, strict=True), once, strict=True))
    differently = make(photos, seed=1).prepare(3, batch)
    assert not torch.equal(once.image, differently.image) and not torch.equal(once.mask, differently.mask)


@torch.no_grad()
def test_a_step_takes_the_merged_path(photos: PhotoSet) -> None:
    stage = make(photos, masks=MaskRecipe(), connect=1.0)
    batch = stage.prepare(0, first_batch(stage))
    output, _ = stage._forward(0, batch, Phase(quantised=True, critic=False, adversarial=False))
    known, whole = stage.raw.encode(batch.image, batch.mask), stage.raw.encode(batch.image)
    defective = known.token_mask.expand_as(known.latents)
    assert 0.1 < defective.float().mean() < 0.9
    torch.testing.assert_close(output.encoding.latents[~defective], known.latents[~defective], atol=1e-5, rtol=1e-4)
    merged = stage.raw.merge_encode(batch.image, batch.mask)
    assert torch.equal(output.encoding.latents, merged.latents)
    assert not torch.allclose(known.latents[~defective], whole.latents[~defective], atol=1e-3)
    hole = batch.mask.expand_as(batch.image)
    assert torch.equal(output.image[~hole], batch.image[~hole]) and (output.image != batch.image)[hole].any()
    plain, _ = stage._forward(0, batch._replace(connect=~batch.connect), Phase(True, False, False))
    assert not torch.equal(plain.image[~hole], batch.image[~hole])


def outputs_with(tokens: list[int], seed: int = 0) -> Any:
    """A part's output with these tokens and random latents."""
    latents = torch.randn(1, 4, 1, len(tokens), generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(
        quantised=SimpleNamespace(tokens=torch.tensor(tokens)[None, None]), encoding=SimpleNamespace(latents=latents)
    )


def test_usage_and_perplexity_of_the_whole_batch(photos: PhotoSet) -> None:
    stage = make(photos, revive_after=0, model=SIXTEEN)
    figures = stage._codebook_step(0, [outputs_with([5, 5, 5, 5]), outputs_with([1, 1, 9, 9])])
    assert figures["batch_usage"] == pytest.approx(3 / 16)
    assert figures["batch_usage_at_most"] == pytest.approx(8 / 16), "8 tokens for 16 codes"
    assert figures["perplexity"] == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))
    assert figures["perplexity"].dtype == torch.float32
    idle = stage.buffers["idle"]
    assert idle[[1, 5, 9]].tolist() == [0, 0, 0] and idle.sum() == 13
    many = stage._codebook_step(1, [outputs_with([5] * 20)])
    assert many["batch_usage_at_most"] == 1 and many["batch_usage"] == pytest.approx(1 / 16)


def test_revival_replaces_dead_codes_and_no_others(photos: PhotoSet) -> None:
    stage = make(photos, revive_after=2, model=SIXTEEN)
    before = stage.raw.quantiser.codebook.detach().clone()
    used = [0, 1, 2, 3, 4, 5, 6, 7]
    stage._codebook_step(0, [outputs_with(used), outputs_with([8, 9] * 4)])
    assert torch.equal(stage.raw.quantiser.codebook, before), "idle for one step only"
    last = [outputs_with(used, seed=1), outputs_with([10] * 8, seed=2)]
    stage._codebook_step(1, last)
    after = stage.raw.quantiser.codebook.detach()
    assert torch.equal(after[:11], before[:11])
    pool = torch.cat([output.encoding.latents[0, :, 0].T for output in last])
    for code in after[11:]:
        assert (pool == code).all(1).any(), "a latent of this batch"
    assert stage.buffers["idle"].tolist() == [0] * 8 + [1, 1] + [0] * 6


def test_revival_can_be_switched_off(photos: PhotoSet) -> None:
    stage = make(photos, revive_after=0, model=SIXTEEN)
    before = stage.raw.quantiser.codebook.detach().clone()
    for step in range(5):
        stage._codebook_step(step, [outputs_with([0])])
    assert torch.equal(stage.raw.quantiser.codebook, before) and stage.buffers["idle"].max() == 5


def test_phases_begin_at_their_share_of_the_steps(photos: PhotoSet) -> None:
    adversary = Adversary(start=0.35, head_start=0.05, filters=8, layers=1)
    stage = make(photos, steps=10, unquantised=0.2, adversary=adversary)
    assert [stage.phase(step) for step in range(5)] == [
        Phase(False, False, False),
        Phase(False, False, False),
        Phase(True, False, False),
        Phase(True, True, False),
        Phase(True, True, True),
    ]
    assert not make(photos, adversary=Adversary(weight=0.0, start=0.0)).phase(1).adversarial


def test_a_discriminator_with_a_head_start_learns_alone(photos: PhotoSet) -> None:
    heads = Adversary(start=1.0, head_start=1.0, filters=8, layers=1)
    ahead, without = (make(photos, adversary=adversary) for adversary in (heads, Adversary(weight=0.0)))
    before = ahead.raw_critic.state_dict()["body.0.weight"].clone()
    figures, plain = (stage.step(0, first_batch(stage)) for stage in (ahead, without))
    assert "discriminator" in figures and "adversarial" not in figures and "discriminator" not in plain
    assert not torch.equal(ahead.raw_critic.state_dict()["body.0.weight"], before)
    for name, value in without.raw.state_dict().items():
        assert torch.equal(ahead.raw.state_dict()[name], value), name


def test_a_rehearsal_knows_the_cheap_and_the_dear_step(photos: PhotoSet) -> None:
    later = Adversary(start=0.6, filters=8, layers=1)
    assert not make(photos, steps=10**9, adversary=later).phase(0).adversarial
    assert make(photos, steps=1, adversary=later).phase(1).adversarial


def test_codes_start_from_latents_when_quantising_begins(photos: PhotoSet) -> None:
    stage = make(photos, steps=4, unquantised=0.5, adversary=Adversary(weight=0.0))
    seen = count_revivals(stage)
    codebook, batches = stage.raw.quantiser.codebook, stage.batches(0)
    stage.step(0, next(batches))
    assert not seen
    stage.step(1, next(batches))
    assert len(seen) == 1
    pool = seen[0].permute(0, 2, 3, 1).reshape(-1, 4)
    assert all((pool == code).all(1).any() for code in codebook.detach())


@pytest.mark.parametrize(("kind", "pixel"), [("l1", 0.5), ("l2", 0.25)])
def test_losses_by_hand(kind: Any, pixel: float, photos: PhotoSet) -> None:
    stage = make(photos, pixel_loss=kind, perceptual_weight=0.0, pixel_weight=3.0)
    batch = stage.prepare(0, first_batch(stage))
    quantised = SimpleNamespace(codebook_loss=torch.tensor(2.0), commitment_loss=torch.tensor(1.0))
    output: Any = SimpleNamespace(image=batch.image + 0.5, quantised=quantised)
    losses = stage.losses(batch, output)
    assert losses["pixel"] == pytest.approx(pixel) and set(losses) == {"pixel", "codebook", "commitment"}
    assert stage._reconstruction(losses) == pytest.approx(3 * pixel)


def test_the_perceptual_loss_has_its_weight(photos: PhotoSet) -> None:
    stage = make(photos, pixel_weight=1.0, perceptual_weight=2.0)
    batch = stage.prepare(0, first_batch(stage))
    quantised = SimpleNamespace(codebook_loss=torch.tensor(0.0), commitment_loss=torch.tensor(0.0))
    losses = stage.losses(batch, SimpleNamespace(image=-batch.image, quantised=quantised))  # type: ignore[arg-type]
    assert losses["perceptual"] > 0.1
    assert stage._reconstruction(losses) == pytest.approx(float(losses["pixel"] + 2 * losses["perceptual"]))
    assert isinstance(stage.q, SqueezeNetFeatures) and not any(p.requires_grad for p in stage.q.parameters())


def test_a_step_moves_generator_and_discriminator_by_their_own_losses(photos: PhotoSet) -> None:
    stage = make(photos, ema=0.0)
    before = {name: [p.detach().clone() for p in module.parameters()] for name, module in stage.modules.items()}
    figures = stage.step(0, first_batch(stage))
    for name, module in stage.modules.items():
        # not the biases: of the discriminator's last one real and decoded patches cancel out
        pairs = [(a, b) for a, b in zip(before[name], module.parameters(), strict=True) if a.ndim > 1]
        assert pairs and not any(torch.equal(a, b) for a, b in pairs), name
    assert set(figures) == {
        *("pixel", "codebook", "commitment", "perceptual", "adversarial", "adversary_weight", "gradient"),
        *("discriminator", "batch_usage", "batch_usage_at_most", "perplexity"),
    }
    assert all(p.grad is None for p in [*stage.raw.parameters(), *stage.raw_critic.parameters()])


def test_the_decoder_alone_learns(photos: PhotoSet) -> None:
    stage = make(photos, ema=0.0, decoder_only=True, revive_after=1, model=SIXTEEN)
    before = {name: value.clone() for name, value in stage.raw.state_dict().items()}
    for step in range(3):
        figures = stage.step(step, photos.batch(step, 4, seed=0))
    assert stage.buffers["idle"].max() > 1, "codes that would have been revived"
    for name, value in stage.raw.state_dict().items():
        if name.startswith(("encoder.", "quantiser.")):
            assert torch.equal(value, before[name]), name
        elif value.ndim > 1:
            assert not torch.equal(value, before[name]), name
    assert all(math.isfinite(float(value)) for value in figures.values()) and "codebook" in figures


def test_it_starts_from_weights_without_a_refinement(photos: PhotoSet, accelerator: Accelerator) -> None:
    weights = DFVQGAN(DFVQGAN_CONFIG).eval()
    recipe = dfvqgan_recipe(model=dataclasses.replace(DFVQGAN_CONFIG, refinement=4))
    stage = DFVQGANStage(recipe, photos, accelerator, weights)
    tokens = torch.arange(64).view(1, 8, 8)
    torch.testing.assert_close(stage.average.model.decode(tokens), weights.decode(tokens).detach())
    stage.step(0, first_batch(stage))
    assert stage.raw.last_layer.any(), "it begins to learn at once"
    with pytest.raises(InputError, match="do not fit the configuration: decoder.refinement"):
        DFVQGANStage(dfvqgan_recipe(), photos, accelerator, stage.raw)


@pytest.mark.parametrize("attention_levels", [(), (1,)], ids=["plain", "attention"])
def test_it_starts_from_weights_whose_decoder_is_shallower(
    photos: PhotoSet, accelerator: Accelerator, attention_levels: tuple[int, ...]
) -> None:
    config = dataclasses.replace(DFVQGAN_CONFIG, attention_levels=attention_levels)
    weights = DFVQGAN(config).eval()
    recipe = dfvqgan_recipe(model=dataclasses.replace(config, decoder_level_blocks=(1, 3, 2)))
    stage = DFVQGANStage(recipe, photos, accelerator, weights)
    tokens = torch.arange(64).view(1, 8, 8)
    torch.testing.assert_close(stage.average.model.decode(tokens), weights.decode(tokens).detach())
    stage.step(0, first_batch(stage))
    added = {name for name, _ in stage.raw.named_parameters()} - {name for name, _ in weights.named_parameters()}
    assert {name.split(".")[2] for name in added} == {"1", "2"}
    assert all(stage.raw.get_parameter(name).any() for name in added if "conv2" in name), "they begin to learn at once"
    with pytest.raises(InputError, match="do not fit the configuration: decoder.levels.1"):
        DFVQGANStage(dfvqgan_recipe(model=config), photos, accelerator, stage.raw)


def test_a_projected_discriminator_judges_a_square_that_moves(photos: PhotoSet, projected: Adversary) -> None:
    stage = make(photos, adversary=projected)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    places = torch.stack([y, x])[None]
    squares = [stage._crop(step, places) for step in (0, 0, 1, 2, 3)]
    assert all(square.shape == (1, 2, 16, 16) for square in squares) and torch.equal(squares[0], squares[1])
    assert len({tuple(square[0, :, 0, 0].tolist()) for square in squares}) > 2
    before = {name: p.detach().clone() for name, p in stage.raw_critic.named_parameters()}
    stage.step(0, first_batch(stage))
    for name, value in stage.raw_critic.named_parameters():
        moves = value.requires_grad and value.ndim > 1
        assert torch.equal(value, before[name]) != moves or not moves, name
        assert moves or value.requires_grad or torch.equal(value, before[name]), f"{name} is fixed"


def test_a_projected_discriminator_needs_its_features(photos: PhotoSet, projected: Adversary, tmp_path: Path) -> None:
    save_file({"conv_stem.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    for features in ("", str(tmp_path / "nowhere"), str(tmp_path / "other.safetensors")):
        with pytest.raises(InputError, match="adversary.features .* EfficientNet-Lite0") as error:
            make(photos, adversary=dataclasses.replace(projected, features=features))
        assert "\n" not in str(error.value)


def test_bf16_keeps_weights_in_fp32(photos: PhotoSet) -> None:
    recipe = dfvqgan_recipe(precision="bf16", adversary=Adversary(start=0.5, filters=8, layers=1))
    exact = make(photos, adversary=recipe.adversary).step(0, photos.batch(0, 4, seed=0))
    stage = DFVQGANStage(recipe, photos, make_cpu_accelerator("bf16"))
    before = stage.raw.last_layer.detach().clone()
    figures = stage.step(0, photos.batch(0, 4, seed=0))
    assert figures["pixel"] == pytest.approx(float(exact["pixel"]), rel=0.02) and figures["pixel"] != exact["pixel"]
    assert stage.raw.last_layer.dtype == torch.float32 and not torch.equal(stage.raw.last_layer, before)
    later = stage.step(1, photos.batch(1, 4, seed=0))
    assert "discriminator" in later and all(math.isfinite(float(value)) for value in later.values())


def shrunk(recipe: DFVQGANRecipe, features: str) -> DFVQGANRecipe:
    """The same switches and moments at a size for tests."""
    model = dataclasses.replace(
        recipe.model,
        resolution=32,
        channels=tuple(8 for _ in recipe.model.channels),
        groups=4,
        latent_channels=8,
        codebook_size=16,
        codebook_dim=4,
    )
    size = 2 * recipe.schedule.accumulate
    schedule = dataclasses.replace(recipe.schedule, steps=2, batch_size=size, precision="fp32")
    crop = 16 if recipe.adversary.crop else 0
    adversary = dataclasses.replace(recipe.adversary, filters=8, layers=1, crop=crop, features=features)
    return dataclasses.replace(recipe, model=model, schedule=schedule, adversary=adversary)


@pytest.mark.parametrize("name", DFVQGAN_RECIPES)
def test_every_recipe_trains(name: str, photos: PhotoSet, projected: Adversary, tmp_path: Path) -> None:
    recipe = shrunk(DFVQGAN_RECIPES[name](), projected.features)
    stage = DFVQGANStage(recipe, photos, make_cpu_accelerator())
    stage.sheet = lambda: Image.new("RGB", (1, 1))  # type: ignore[method-assign]
    run(stage, recipe, tmp_path / "run")
    parts = load_model(tmp_path / "run/model", need_mps2s=False)
    assert parts.mps2s is None and parts.dfvqgan.config == recipe.model
    assert torch.equal(parts.dfvqgan.last_layer, stage.average.model.last_layer)


def test_it_starts_from_a_models_weights(photos: PhotoSet, accelerator: Accelerator) -> None:
    torch.manual_seed(7)
    weights = DFVQGAN(DFVQGAN_CONFIG)
    stage = DFVQGANStage(dfvqgan_recipe(), photos, accelerator, weights)
    for model in (stage.raw, stage.average.model):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights.parameters(), strict=True))
    before = weights.last_layer.detach().clone()
    stage.step(0, first_batch(stage))
    assert torch.equal(weights.last_layer, before), "the given model itself is left alone"


def test_exported_weights_can_be_split(photos: PhotoSet, accelerator: Accelerator, tmp_path: Path) -> None:
    recipe, limit = dfvqgan_recipe(steps=1), 20_000
    stage = DFVQGANStage(recipe, photos, accelerator, max_file_size=limit)
    run(stage, recipe, tmp_path / "run")
    files = sorted((tmp_path / "run/model").glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size < limit + 4000 for file in files)  # and the files' heads
    loaded = load_model(tmp_path / "run/model", need_mps2s=False).dfvqgan.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in stage.average.model.state_dict().items())


def test_q_is_found_by_name_and_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfvqgan, "_cached_vgg16", lambda: None)
    for name in ("squeezenet", "auto", str(asset(SQUEEZENET))):
        assert isinstance(load_perceptual(name), SqueezeNetFeatures)
    monkeypatch.setattr(dfvqgan, "vgg16", lambda state: sorted(state))
    save_file({"features.28.weight": torch.zeros(1)}, tmp_path / "vgg.safetensors")
    assert load_perceptual(str(tmp_path / "vgg.safetensors")) == ["features.28.weight"]
    monkeypatch.setattr(dfvqgan, "_cached_vgg16", lambda: str(tmp_path / "vgg.safetensors"))
    assert load_perceptual("auto") == load_perceptual("vgg16") == ["features.28.weight"]


def test_q_that_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfvqgan, "_cached_vgg16", lambda: None)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    for name, says in (
        ("vgg16", "timm/vgg16.tv_in1k"),
        ("nowhere.safetensors", "there is no file nowhere.safetensors"),
        (str(tmp_path / "other.safetensors"), "other.safetensors does not hold the weights"),
        (str(tmp_path / "damaged.safetensors"), "damaged.safetensors does not hold the weights"),
    ):
        with pytest.raises(InputError, match=says) as error:
            load_perceptual(name)
        assert "\n" not in str(error.value)
