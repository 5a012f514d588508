"""Stage 2: accumulated parts equal the big batch, an interrupted run the one in one go, orders, captions."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.hub import ModelParts, load_model
from nuwa_lip.models import MPS2S
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.groups import group_sizes, rows_of
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.models.orders import ORDERS, order_by, order_keys, target_tokens
from nuwa_lip.models.transformer import Block
from nuwa_lip.sampling import Sampling
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training import mps2s
from nuwa_lip.training.mps2s import MPS2SStage, Pace
from nuwa_lip.training.prior import PriorStage
from nuwa_lip.training.recipes import MPS2S_RECIPES, MPS2SRecipe
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.tokens import TokenBatch, token_mask
from tests.folders import contents
from tests.small_runs import (
    MPS2S_CONFIG,
    NEEDS_COMPILER,
    compile_as_traced,
    interrupted,
    make_cpu_accelerator,
    mps2s_recipe,
    open_cache,
    run,
)


def make(cache: Path, recipe: MPS2SRecipe | None = None, precision: str = "no", **options: Any) -> MPS2SStage:
    recipe = recipe or mps2s_recipe()
    kind = PriorStage if recipe.trained == "prior" else MPS2SStage
    return kind(recipe, open_cache(cache, recipe), make_cpu_accelerator(precision), **options)


def gradients(stage: MPS2SStage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the first step, which moves no weight; and its figures."""
    stage.optimizer.step = stage.optimizer.zero_grad = lambda: None
    figures = stage.step(0, next(stage.batches(0)))
    found = {name: p.grad for name, p in stage.raw.named_parameters() if p.grad is not None}
    assert len(found) == len(list(stage.raw.parameters()))
    return found, figures


def gradients_twice(stage: MPS2SStage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the first step, and of the same again: its graphs are made once."""
    once, _ = gradients(stage)
    for parameter in stage.raw.parameters():
        parameter.grad = None
    return once, gradients(stage)[0]


def without_dropout(parts: int) -> MPS2SRecipe:
    recipe = mps2s_recipe(accumulate=parts, clip=1e6)
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dropout=0.0))


@pytest.fixture(scope="module")
def big_batch(cache: Path) -> Any:
    return gradients(make(cache, without_dropout(1)))


def with_dropout(**changes: Any) -> MPS2SRecipe:
    recipe = mps2s_recipe()
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dropout=0.3), **changes)


def test_checkpointed_gradients_are_the_same_and_blocks_run_twice(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def counting(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: runs.append(forward.__qualname__) or forward(*args)  # type: ignore[func-returns-value]

    for kind in (Block, DecoderBlock):
        monkeypatch.setattr(kind, "forward", counting(kind.forward))
    expected, _ = gradients(make(cache, with_dropout()))
    once = Counter(runs)
    runs.clear()
    found, _ = gradients(make(cache, with_dropout(gradient_checkpointing=True)))
    assert Counter(runs) == {name: 2 * count for name, count in once.items()} and len(once) == 2
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_averaged_copy_is_not_checkpointed(cache: Path) -> None:
    stage = make(cache, with_dropout(gradient_checkpointing=True))
    assert all("forward" in vars(block) for block in stage.raw.decoder.layers)
    assert not any("forward" in vars(block) for block in stage.average.model.decoder.layers)


@NEEDS_COMPILER
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_gradients_are_the_same(
    checkpointing: bool, cache: Path, big_batch: Any, apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts whose K differ, and so by graphs for all sizes; `test_compiled` makes C++ of them."""
    compile_as_traced(monkeypatch)
    recipe = without_dropout(2)
    changed = dataclasses.replace(recipe.schedule, compile=True)
    stage = make(cache, dataclasses.replace(recipe, schedule=changed, gradient_checkpointing=checkpointing))
    found, _ = gradients(stage)
    for name, gradient in big_batch[0].items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert 2 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6, "of encoders and decoder, for two parts"
    assert all(block._compiled_call_impl is None for block in stage.average.model.decoder.layers)


@NEEDS_COMPILER
def test_compiled_steps_in_bf16_with_dropout_are_the_same_every_time(
    cache: Path, apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the encoders; `test_compiled` makes C++ of the decoder's."""
    compile_as_traced(monkeypatch)
    monkeypatch.setattr(mps2s, "DecoderBlock", Block)  # of what `run_again_for_gradients` compiles
    recipe = with_dropout(gradient_checkpointing=True)
    recipe = dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, compile=True))
    once, again = gradients_twice(make(cache, recipe, precision="bf16"))
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_equal_the_big_batch(parts: int, cache: Path, big_batch: Any) -> None:
    stage = make(cache, without_dropout(parts))
    defective = token_mask(next(stage.batches(0)).masks, 4).flatten(1).sum(1)
    assert len(set(defective.tolist())) > 1, "K differs within the batch"
    found, figures = gradients(stage)
    wanted, wanted_figures = big_batch
    assert sum(g.square().sum() for g in wanted.values()) > 0.1
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in wanted_figures.items():
        torch.testing.assert_close(figures[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEEDS_COMPILER)])
def test_grouped_parts_equal_the_big_batch(
    compiled: bool, cache: Path, apart: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpointed and, in graphs that take a mask in place of causal order, compiled."""
    compile_as_traced(monkeypatch)
    whole, parts = (dataclasses.replace(without_dropout(n), parallel=1.0) for n in (1, 2))
    wanted, _ = gradients(make(cache, whole))
    schedule = dataclasses.replace(parts.schedule, compile=compiled)
    found, _ = gradients(make(cache, dataclasses.replace(parts, schedule=schedule, gradient_checkpointing=True)))
    alone, _ = gradients(make(cache, without_dropout(1)))
    assert any(not torch.allclose(wanted[name], alone[name], atol=1e-4) for name in wanted)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_dropout_differs_between_parts_and_steps(cache: Path) -> None:
    recipe = mps2s_recipe(clip=1e6)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dropout=0.5))
    stage = make(cache, recipe)
    batch = next(stage.batches(0))
    rows = TokenBatch(
        *(value[:1] * 4 if isinstance(value, list) else value[:1].expand(4, *value.shape[1:]) for value in batch)
    )
    found: list[dict[str, Tensor]] = []
    losses = stage.losses
    stage.losses = lambda *part: found.append(losses(*part)) or found[-1]  # type: ignore[method-assign,func-returns-value]
    stage.optimizer.step = stage.optimizer.zero_grad = lambda: None
    stage.recipe = dataclasses.replace(
        recipe,
        orders={"raster": 1.0},
        caption_dropout=0.0,
        schedule=dataclasses.replace(recipe.schedule, accumulate=4),
    )
    for step in (0, 0, 1):
        stage.step(step, rows)
    values = [float(of_part["loss"].detach()) for of_part in found]
    assert len(set(values[:4])) == 4, "each part its own"
    assert values[:4] == values[4:8] and not set(values[:4]) & set(values[8:]), "a function of the step"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(optimizer: str, cache: Path, tmp_path: Path) -> None:
    recipe = mps2s_recipe(steps=5, accumulate=2, optimizer=optimizer)
    run(make(cache, recipe), recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(make(cache, recipe), at=2), recipe, tmp_path / "parts")
    assert [p.name for p in (tmp_path / "parts/checkpoints").iterdir()] == ["step-3"]
    run(make(cache, recipe), recipe, tmp_path / "parts", resume=True)
    whole, parts = (contents(tmp_path / name / "checkpoints/step-5") for name in ("whole", "parts"))
    assert set(whole) == {
        *("model.safetensors", "average.safetensors", "model.optimizer.safetensors", "buffers.safetensors"),
        *("tokenizer.json", "state.json"),
        *(["matrices.optimizer.safetensors"] if optimizer == "muon" else []),
    }
    assert [name for name in whole if whole[name] != parts.get(name)] == []
    assert contents(tmp_path / "whole/model") == contents(tmp_path / "parts/model")


def test_muon_takes_the_linear_layers_and_adamw_the_rest(cache: Path) -> None:
    stage = make(cache, mps2s_recipe(steps=2, optimizer="muon", weight_decay=0.0))
    of = {name: {id(p) for g in one.param_groups for p in g["params"]} for name, one in stage.optimizers.items()}
    linear = {id(m.weight) for m in stage.raw.modules() if isinstance(m, nn.Linear)}
    assert of == {"model": {id(p) for p in stage.raw.parameters()} - linear, "matrices": linear}
    before = {name: p.detach().clone() for name, p in stage.raw.named_parameters()}
    rate = 0.01
    for one in stage.optimizers.values():
        one.param_groups[0]["lr"] = rate
    stage.step(0, next(stage.batches(0)))
    moved = {name: p.detach() - before[name] for name, p in stage.raw.named_parameters()}
    weight = moved["decoder.blocks.0.mlp.layer.out.weight"]
    # singular values of about 1, times 0.2 of the root of the longer side: a step as long as AdamW's
    spectrum = torch.linalg.svdvals(weight) / (rate * 0.2 * max(weight.shape) ** 0.5)
    assert 0.5 < spectrum.median() < 1.5 and spectrum.max() < 1.5


def test_muon_is_for_linear_layers_that_are_whole(cache: Path) -> None:
    with pytest.raises(InputError, match=r"schedule\.optimizer muon .* --strategy ddp"):
        make(cache, mps2s_recipe(optimizer="muon"), sharded=True)


def test_the_sheet_shows_six_photos(cache: Path, tmp_path: Path) -> None:
    recipe = mps2s_recipe(steps=1)
    made = run(make(cache, recipe), recipe, tmp_path / "run")
    (path,) = (made.path / "sheets").iterdir()
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.width > 4 * 160 and sheet.height > 6 * 160 and max(sheet.size) < 1500


def test_a_batch_is_a_function_of_its_generator(cache: Path) -> None:
    stage = make(cache)
    batch = next(stage.batches(0))
    once, again, other = (stage.prepare(batch, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[-2], other[-2]), "other orders"


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_alone(name: str, cache: Path) -> None:
    stage = make(cache, mps2s_recipe(orders={name: 2.0}))
    batch = stage.cache.batch(0, 24, seed=0)
    *_, defective, order, _ = stage.prepare(batch, np.random.default_rng(0))
    assert torch.equal(defective, token_mask(batch.masks, 4))
    cells = defective.flatten(1)
    counts = cells.sum(1)
    assert order.shape == (24, counts.max())
    for row, own, count in zip(order, cells, counts, strict=True):
        assert sorted(row[:count].tolist()) == own.nonzero().flatten().tolist()
    if name != "random":
        assert torch.equal(order, order_by(order_keys(name, defective), defective)[0])
    else:
        assert not torch.equal(order, order_by(order_keys("raster", defective), defective)[0])


def test_orders_are_mixed_by_their_shares(cache: Path) -> None:
    stage = make(cache, mps2s_recipe(orders={"raster": 3.0, "border": 1.0}))
    seen = {"raster": 0, "border": 0}
    for step in range(10):
        *_, defective, order, _ = stage.prepare(stage.cache.batch(step, 24, seed=0), np.random.default_rng(step))
        rows = {name: order_by(order_keys(name, defective), defective)[0] for name in seen}
        differ = (rows["raster"] != rows["border"]).any(1)
        for name in seen:
            seen[name] += int((differ & (rows[name] == order).all(1)).sum())
    assert sum(seen.values()) > 100 and 0.62 < seen["raster"] / sum(seen.values()) < 0.88


def test_a_share_of_the_steps_predicts_in_groups(cache: Path) -> None:
    stage = make(cache, mps2s_recipe(parallel=0.25))
    paces = [stage.pace(np.random.default_rng(i)) for i in range(400)]
    grouped = [pace for pace in paces if pace is not None]
    assert 70 < len(grouped) < 130
    assert {pace.schedule for pace in grouped} == {"cosine", "constant"}
    assert all(2 <= pace.tokens <= 32 for pace in grouped)
    assert 70 < 200 * np.mean([pace.tokens < 8 for pace in grouped]) < 130, "as many between 2 and 8 as above"
    for pace in grouped:
        assert sum(pace.sizes(150)) == 150 and 150 / max(1, len(pace.sizes(150))) == pytest.approx(pace.tokens, rel=0.2)
    assert Pace(8.0, "cosine").sizes(0) == [] and Pace(8.0, "constant").sizes(3) == [3]
    assert all(make(cache).pace(np.random.default_rng(i)) is None for i in range(20))


def test_the_loss_of_groups_is_the_mean_of_samples_with_groups_of_their_own(cache: Path) -> None:
    stage = make(cache, mps2s_recipe(parallel=1.0))
    inputs = stage.prepare(stage.cache.batch(0, 4, seed=0), np.random.default_rng(0))
    assert len(set(inputs[4].flatten(1).sum(1).tolist())) > 1, "K differs within the batch"
    model, losses = stage.model.eval(), []
    for i in range(4):
        *first, tokens, defective, order, _ = (t[i : i + 1] for t in inputs)
        count = int(defective.sum())
        rows = rows_of(group_sizes(count, max(1, round(count / 4)), "cosine"))
        logits, real = model(*first, tokens, defective, order[:, :count], rows)
        losses.append(mps2s_loss(logits, target_tokens(tokens, order[:, :count]), real))
    found = stage.losses(inputs, Pace(4.0, "cosine"))["loss"]
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    assert abs(found - stage.losses(inputs)["loss"]) > 1e-5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_step_trains_at_its_pace(share: float, cache: Path) -> None:
    stage, seen = make(cache, mps2s_recipe(parallel=share, accumulate=2)), []
    losses = stage.losses
    stage.losses = lambda part, pace: seen.append(pace) or losses(part, pace)  # type: ignore[method-assign,func-returns-value]
    before = stage.raw.decoder.next_position.weight.clone()
    stage.step(0, next(stage.batches(0)))
    assert len(seen) == 2 and seen[0] == seen[1] and (seen[0] is not None) == bool(share)
    assert not torch.equal(before, stage.raw.decoder.next_position.weight)


def test_long_captions_are_cut_without_a_word(cache: Path, recwarn: pytest.WarningsRecorder) -> None:
    stage = make(cache)
    batch = stage.cache.batch(0, 4, seed=0)._replace(captions=["very " * 50] * 4)
    assert stage.prepare(batch, np.random.default_rng(0))[0].shape == (4, MPS2S_CONFIG.text_length)
    assert not list(recwarn)


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 0.0), (0.4, 0.4), (1.0, 1.0)])
def test_captions_are_dropped(dropout: float, share: float, cache: Path) -> None:
    stage = make(cache, mps2s_recipe(caption_dropout=dropout))
    empty, dropped = stage.tokenizer([""])[0], 0
    for step in range(10):
        batch = stage.cache.batch(step, 24, seed=0)
        ids = stage.prepare(batch, np.random.default_rng(step))[0]
        gone = (ids[:, : len(empty)] == empty).all(1)
        dropped += int(gone.sum())
        kept = stage.tokenizer([text for text, no in zip(batch.captions, gone, strict=True) if not no])
        assert torch.equal(ids[~gone][:, : kept.shape[1]], kept)
    assert dropped / 240 == pytest.approx(share, abs=0.1)


def test_the_loss_is_for_each_defective_token(cache: Path) -> None:
    stage = make(cache)
    part = stage.prepare(stage.cache.batch(0, 4, seed=0), np.random.default_rng(0))
    ids, images, masks, tokens, defective, order, _ = part
    stage.model.eval()
    with torch.no_grad():
        logits, real = stage.raw(ids, images, masks, tokens, defective, order)
        nats = [
            -logits[b, k].log_softmax(0)[tokens[b].flatten()[order[b, k]]]
            for b in range(4)
            for k in range(order.shape[1])
        ]
        each = torch.stack(nats).view(4, -1)
        wanted = torch.stack(
            [row[keep].mean() if keep.any() else row.sum() * 0 for row, keep in zip(each, real, strict=True)]
        )
        assert stage.losses(part)["loss"] == pytest.approx(float(wanted.mean()), rel=1e-5)
        assert stage.losses(part)["loss"] == pytest.approx(math.log(64), rel=0.5)
        elsewhere = tokens.where(defective[:, 0], (tokens + 1) % 64)
        assert stage.losses((*part[:3], elsewhere, *part[4:]))["loss"] != pytest.approx(float(wanted.mean()), rel=1e-5)


def test_a_batch_without_a_hole_is_no_error(cache: Path) -> None:
    stage = make(cache)
    batch = stage.cache.batch(0, 4, seed=0)
    figures = stage.step(0, batch._replace(masks=torch.zeros_like(batch.masks)))
    assert figures["loss"] == 0 and all(p.isfinite().all() for p in stage.raw.parameters())


def test_bf16_keeps_weights_in_fp32(cache: Path) -> None:
    recipe = without_dropout(1)
    exact = make(cache, recipe).step(0, open_cache(cache, recipe).batch(0, 4, seed=0))
    stage = make(cache, recipe, precision="bf16")
    figures = stage.step(0, stage.cache.batch(0, 4, seed=0))
    assert figures["loss"] == pytest.approx(float(exact["loss"]), rel=0.02) and figures["loss"] != exact["loss"]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in stage.raw.parameters())


def shrunk(recipe: MPS2SRecipe) -> MPS2SRecipe:
    """The same switches, orders and moments at a size for tests."""
    sizes = ("codebook_size", "grid", "image_size", "patch_size", "width", "heads", "text_vocab", "text_length")
    sizes += tuple(f"{part}_layers" for part in ("text", "pixel", "token", "decoder")) + ("text_width", "text_heads")
    model = dataclasses.replace(recipe.model, **{name: getattr(MPS2S_CONFIG, name) for name in sizes})
    size = 2 * recipe.schedule.accumulate
    schedule = dataclasses.replace(recipe.schedule, steps=2, batch_size=size, precision="fp32")
    return dataclasses.replace(recipe, model=model, schedule=schedule)


@pytest.mark.parametrize("name", MPS2S_RECIPES)
def test_every_recipe_trains(name: str, cache: Path, tmp_path: Path) -> None:
    recipe = shrunk(MPS2S_RECIPES[name]())
    stage = make(cache, recipe)
    stage.sheet = lambda: Image.new("RGB", (1, 1))  # type: ignore[method-assign]
    run(stage, recipe, tmp_path / "run")
    parts = load_model(tmp_path / "run/model")
    assert parts.mps2s is not None and parts.tokenizer is not None
    assert parts.mps2s.config == recipe.model and parts.sampling == recipe.sampling
    wanted, found = stage.average.model.state_dict(), parts.mps2s.state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert torch.equal(parts.dfvqgan.last_layer, stage.dfvqgan.last_layer)
    assert torch.equal(parts.tokenizer(["a red circle"]), stage.tokenizer(["a red circle"]))


def other_model(cache: Path) -> ModelParts:
    """A complete model whose tokenizer has read other captions."""
    torch.manual_seed(9)
    tokenizer = CaptionTokenizer.train(["zebra crossing"] * 5, MPS2S_CONFIG.text_vocab, MPS2S_CONFIG.text_length)
    dfvqgan = load_model(cache / "dfvqgan", need_mps2s=False).dfvqgan
    return ModelParts(dfvqgan, MPS2S(MPS2S_CONFIG), tokenizer, Sampling(), None)


def test_it_starts_from_a_models_weights_and_keeps_its_tokenizer(cache: Path, tmp_path: Path) -> None:
    recipe, parts = mps2s_recipe(steps=1), other_model(cache)
    assert parts.mps2s is not None and parts.tokenizer is not None
    stage = make(cache, recipe, weights=parts)
    for model in (stage.raw, stage.average.model):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), parts.mps2s.parameters(), strict=True))
    text = ["a zebra crossing at the top left"]
    wanted = parts.tokenizer(text)
    assert not torch.equal(wanted, make(cache, recipe).tokenizer(text))
    assert torch.equal(stage.tokenizer(text), wanted)
    made = run(stage, recipe, tmp_path / "run")
    resumed = make(cache, recipe)  # without naming the model again
    assert RunFolder(made.path, 4).restore(resumed) == 1
    assert torch.equal(resumed.tokenizer(text), wanted)
    assert torch.equal(load_model(made.path / "model").tokenizer(text), wanted)  # type: ignore[misc]


def test_exported_weights_can_be_split(cache: Path, tmp_path: Path) -> None:
    recipe = mps2s_recipe(steps=1)
    stage = make(cache, recipe, max_file_size=30_000)
    run(stage, recipe, tmp_path / "run")
    files = sorted((tmp_path / "run/model").glob("mps2s-*.safetensors"))
    assert len(files) > 1 and all(file.stat().st_size < 34_000 for file in files)
    assert load_model(tmp_path / "run/model").mps2s is not None


def test_batches_are_the_caches(cache: Path) -> None:
    stage = make(cache)
    assert torch.equal(next(stage.batches(0)).images, stage.cache.batch(0, 4, seed=0).images)
    assert torch.equal(next(stage.batches(3)).images, stage.cache.batch(3, 4, seed=0).images)
