"""Training a GLIDE: resumed as uninterrupted, in parts as at once, and from the command to a measurement."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from nuwa_lip.baselines.glide.folder import is_glide, load_glide, save_glide
from nuwa_lip.baselines.glide.recipe import GLIDE_RECIPES, GLIDERecipe, glide_tiny
from nuwa_lip.baselines.glide.training import GLIDEStage, captions_of
from nuwa_lip.commands import evaluate
from nuwa_lip.data.benchmark import Benchmark
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.streamed import StreamedPhotos
from nuwa_lip.errors import InputError
from nuwa_lip.training import recipes
from tests.folders import contents
from tests.small_runs import interrupted, make_cpu_accelerator, run, schedule


def recipe(steps: int = 4, **changes: Any) -> GLIDERecipe:
    tiny = glide_tiny()
    sampling = dataclasses.replace(tiny.sampling, steps=2, finer_steps=2)
    model = dataclasses.replace(tiny.model, dropout=0.1)
    return dataclasses.replace(
        tiny, model=model, sampling=sampling, schedule=schedule(steps=steps, **changes), caption_dropout=0.3
    )


def test_a_resumed_run_is_an_uninterrupted_one(photos: PhotoSet, tmp_path: Path) -> None:
    made = recipe()

    def stage() -> GLIDEStage:
        return GLIDEStage(made, photos, make_cpu_accelerator())

    run(stage(), made, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(stage(), 1), made, tmp_path / "parts")
    assert is_glide(tmp_path / "parts/model")
    run(stage(), made, tmp_path / "parts", resume=True)
    for name in ("checkpoints/step-4", "model"):
        assert contents(tmp_path / "whole" / name) == contents(tmp_path / "parts" / name)
    lines = [json.loads(line) for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and {"base", "finer", "gradient"} <= lines[0].keys()
    assert len(list((tmp_path / "parts/sheets").iterdir())) == 2


def test_parts_give_what_the_whole_batch_gives(photos: PhotoSet) -> None:
    weights, losses = [], []
    for parts in (1, 2):
        made = recipe(accumulate=parts)
        made = dataclasses.replace(made, model=dataclasses.replace(made.model, dropout=0.0))
        stage = GLIDEStage(made, photos, make_cpu_accelerator())
        figures = stage.step(0, next(stage.batches(0)))
        losses.append([float(figures[name]) for name in ("base", "finer", "gradient")])
        weights.append([p.detach().clone() for p in stage.raw.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert all(loss > 0 for loss in losses[0])


def test_known_pixels_teach_nothing(photos: PhotoSet) -> None:
    stage = GLIDEStage(recipe(), photos, make_cpu_accelerator())
    (part,) = stage.prepare(0, next(stage.batches(0)))
    assert len(part.base.noisy) == 4 and len(part.finer.noisy) == 2, "half of the batch"
    for pair in (part.base, part.finer):
        hole = pair.condition.mask.expand_as(pair.noisy)
        assert (pair.condition.known[hole] == 0).all()
    again = GLIDEStage(recipe(), photos, make_cpu_accelerator()).prepare(0, next(stage.batches(0)))[0]
    assert torch.equal(again.base.noisy, part.base.noisy) and torch.equal(again.text_ids, part.text_ids)


def test_it_learns(photos: PhotoSet) -> None:
    made = dataclasses.replace(recipe(40, learning_rate=3e-3), finer=1.0)
    stage = GLIDEStage(made, photos, make_cpu_accelerator())
    batches = stage.batches(0)
    losses = [{k: float(v) for k, v in stage.step(i, next(batches)).items()} for i in range(40)]
    for name in ("base", "finer"):
        first, last = (sum(figures[name] for figures in part) for part in (losses[:8], losses[-8:]))
        assert last < 0.8 * first, name


def test_captions_of_a_set_and_of_a_stream(shards: Path, photos: PhotoSet) -> None:
    found = list(captions_of(photos))
    assert found and sorted(found) == sorted(captions_of(StreamedPhotos(shards, 40, workers=0)))


def test_the_folder_comes_back(photos: PhotoSet, tmp_path: Path) -> None:
    stage = GLIDEStage(recipe(), photos, make_cpu_accelerator())
    folder = run(stage, recipe(1), tmp_path / "run").path / "model"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "glide.safetensors", "tokenizer.json"]
    parts = load_glide(folder)
    assert parts.sampling == recipe().sampling and parts.model.config == recipe().model and not parts.model.training
    save_glide(tmp_path / "again", parts)
    assert contents(folder) == contents(tmp_path / "again")
    config = json.loads((folder / "config.json").read_text())
    for change, says in (
        ({"model": {**config["model"], "depth": 3}}, "model in .* has the unknown field 'depth': update"),
        ({"model": {**config["model"], "base_channels": [12, 32]}}, "base_channels 12 cannot be divided into 8 groups"),
        ({"model": {**config["model"], "text_width": 32}}, "does not fit config.json"),
        ({"sampling": {"steps": 0}}, "steps is 0; it must be 1 or more"),
        ({"format_version": 99}, "has format_version 99"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=says) as error:
            load_glide(folder)
        assert "\n" not in str(error.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        load_glide(folder)


def test_recipes_that_cannot_be() -> None:
    with pytest.raises(InputError, match="masks.nothing is 0.1; without a hole nothing is learned"):
        dataclasses.replace(recipe(), masks=MaskRecipe(nothing=0.1))
    with pytest.raises(InputError, match="finer is 0.0; it must be above 0"):
        dataclasses.replace(recipe(), finer=0.0)
    with pytest.raises(InputError, match="base_resolution 12 must divide resolution 32"):
        dataclasses.replace(recipe().model, base_resolution=12)
    with pytest.raises(InputError, match="base_attention 2 does not exist: levels are 0 to 1"):
        dataclasses.replace(recipe().model, base_attention=(2,))
    mini = GLIDE_RECIPES["mini"]().model
    assert (mini.base_resolution, mini.resolution) == (64, 128)


def test_from_the_command_to_a_measurement(
    shards: Path,
    benchmark: Benchmark,
    nuwa_lip: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    words = ["train", "glide", "tiny", "--data", shards, "--schedule.batch-size", 2, "--schedule.precision", "fp32"]
    words += ["--sampling.steps", 2, "--sampling.finer-steps", 1]
    first, second = tmp_path / "first", tmp_path / "second"
    done = nuwa_lip(*words, "-o", first, "--schedule.steps", 1)
    assert done.code == 0 and done.out == f"{first / 'model'}\n", done.err
    assert recipes.from_file("glide", first / "recipe.json").sampling.steps == 2
    AcceleratorState._reset_state(reset_partial_state=True)
    still = ["--schedule.learning-rate", 1e-12, "--schedule.weight-decay", 0]
    done = nuwa_lip(*words, "-o", second, *still, "--schedule.steps", 1, "--init-from", first / "model")
    assert done.code == 0, done.err
    before, after = (load_glide(folder / "model").model.state_dict() for folder in (first, second))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=1e-5)
    out = tmp_path / "figures.json"
    model = str(first / "model")
    evaluate.images(benchmark.folder, baseline="glide", baseline_model=model, json=out, limit=2, work=tmp_path / "work")
    assert f"glide: weights {model}, steps its own, guidance its own, seed 0" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["method"] == "glide" and report["known_max_change"] == 0
    assert report["baseline_options"]["model"] == model
    with pytest.raises(InputError, match="is a GLIDE: give it as --baseline glide"):
        evaluate.images(benchmark.folder, model=model)
    with pytest.raises(InputError, match="figures of another run"):
        evaluate.images(
            benchmark.folder, baseline="glide", baseline_model=model, baseline_steps=1, limit=2, work=tmp_path / "work"
        )
