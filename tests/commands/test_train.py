"""`nuwa-lip train`: recipes and overrides, interruption and resuming, budgets, and one line for bad input."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from nuwa_lip.commands import train
from nuwa_lip.errors import InputError
from nuwa_lip.hub import load_model
from nuwa_lip.training import loop, recipes, runs
from nuwa_lip.training.dfvqgan import DFVQGANStage
from nuwa_lip.training.mps2s import MPS2SStage
from tests.folders import contents
from tests.small_runs import make_cache, make_shards

Run = Callable[..., Any]
STAGES = {"dfvqgan": DFVQGANStage, "mps2s": MPS2SStage}
SHORT = "--schedule.batch-size 4 --schedule.log-every 1 --schedule.precision fp32".split()
SMALL = {
    "dfvqgan": [
        *("tiny", *SHORT, "--model.channels", 8, 8, 16, "--model.groups", 4, "--model.latent-channels", 8),
        *("--model.codebook-dim", 4, "--perceptual", "squeezenet", "--adversary.weight", 0.5),
        *("--adversary.start", 0, "--adversary.filters", 8, "--adversary.layers", 1),
    ],
    "mps2s": ["tiny", *SHORT, "--model.width", 16, "--model.text-width", 16, "--model.dropout", 0.1],
}
"""The words after `train STAGE` of a run that is done in a blink."""


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, and with sheets of few steps: a sheet would take longer than the rest of a run."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr("nuwa_lip.training.mps2s.SHEET_STEPS", 2)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each stage trains on."""
    folder = tmp_path_factory.mktemp("data")
    shards = make_shards(folder / "shards")
    return {"dfvqgan": shards, "mps2s": make_cache(folder / "tokens", shards)}


@pytest.fixture
def words(data: dict[str, Path], tmp_path: Path) -> Callable[..., list[Any]]:
    """The words of a small run of a stage into tmp_path/run, and more."""

    def join(stage: str, *more: object, out: Path | None = None) -> list[Any]:
        return ["train", stage, *SMALL[stage], "--data", data[stage], "-o", out or tmp_path / "run", *more]

    return join


def interrupt(stage: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during step `at`."""
    kind = STAGES[stage]
    step = kind.step

    def interrupted(self: Any, number: int, batch: Any) -> Any:
        if number == at:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, batch)

    monkeypatch.setattr(kind, "step", interrupted)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_its_interruption_and_its_resumption(
    stage: str, words: Run, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--schedule.steps", 4, "--schedule.accumulate", 2, "--schedule.checkpoint-every", 3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = nuwa_lip(*words(stage, *more, out=whole))
    assert done.code == 0, done.err
    assert done.out == f"{whole / 'model'}\n" and f"{whole}: 4 steps on cpu\n" in done.err
    assert sorted(p.name for p in whole.iterdir()) == [
        *("checkpoints", "metrics.jsonl", "model", "recipe.json", "sheets", "tensorboard")
    ]
    with monkeypatch.context() as patch:
        interrupt(stage, 1, patch)
        done = nuwa_lip(*words(stage, *more, out=parts))
    assert done.code == 1 and done.out == "" and done.err.splitlines()[-1] == "nuwa-lip: stopped"
    assert "Traceback" not in done.err
    assert [p.name for p in (parts / "checkpoints").iterdir()] == ["step-2"]
    assert load_model(parts / "model", need_mps2s=stage == "mps2s")
    done = nuwa_lip(*words(stage, *more, "--resume", out=parts))
    assert done.code == 0, done.err
    for name in ("checkpoints/step-4", "model"):
        assert contents(whole / name) == contents(parts / name)
    assert (whole / "recipe.json").read_bytes() == (parts / "recipe.json").read_bytes()
    lines = metrics(parts)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line, other in zip(lines, metrics(whole), strict=True):
        machine = {"images_per_second", "memory_gb", "waiting"}
        assert line.keys() == other.keys() > machine and 0 <= line["waiting"] <= 1
        assert [line[name] for name in line.keys() - machine] == [other[name] for name in line.keys() - machine]
    assert [p.name for p in sorted((parts / "sheets").iterdir())] == ["step-0000002.png", "step-0000004.png"]


def test_recipe_and_overrides_are_what_is_written(words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    done = nuwa_lip(*words("dfvqgan", "--schedule.steps", 1, "--masks.ratio", 0.1, 0.3, "--model.no-mid-attention"))
    assert done.code == 0, done.err
    recipe = recipes.from_file("dfvqgan", tmp_path / "run/recipe.json")
    tiny = recipes.named("dfvqgan", "tiny")
    assert recipe.masks == dataclasses.replace(tiny.masks, ratio=(0.1, 0.3))
    assert recipe.model.channels == (8, 8, 16) and not recipe.model.mid_attention
    assert recipe.model.codebook_size == tiny.model.codebook_size and recipe.augmentation == tiny.augmentation
    again = tmp_path / "again"
    file = ("--recipe", tmp_path / "run/recipe.json")
    # the same words again, although what was switched off is the default now
    done = nuwa_lip("train", "dfvqgan", *file, "--data", words("dfvqgan")[-3], "-o", again, "--model.no-mid-attention")
    assert done.code == 0, done.err
    assert contents(tmp_path / "run/model") == contents(again / "model")


def parse(stage: str, *more: object) -> Any:
    return train.parse(stage, [str(word) for word in (*more, "--data", "d", "-o", "nowhere/run")])


def test_overrides() -> None:
    _, recipe = parse("mps2s", "tiny", "--schedule.steps", 3, "--orders.raster", 0, "--orders.border", 2.5)
    assert recipe.schedule.steps == 3 and recipe.orders == {"raster": 0, "random": 0, "border": 2.5}
    _, recipe = parse(
        "mps2s", "tiny", "--orders.random", 1, "--sampling.top-k", 9, "--model.perspectives", "text", "tokens"
    )
    assert recipe.orders == {"raster": 1, "random": 1, "border": 0}
    assert recipe.sampling.top_k == 9 and recipe.model.perspectives == ("text", "tokens")
    options, recipe = parse(
        "mps2s", "mini", "--model.text-encoder", '{"kind": "clip"}', "--cache", "none", "--workers", 0
    )
    assert recipe.model.text_encoder == {"kind": "clip"} and options.cache == "none" and options.workers == 0
    options, recipe = parse("dfvqgan", "mini", "--model.connection-weights", "1", "inf", "--unquantised=0.25")
    assert recipe.model.connection_weights == (1, float("inf")) and recipe.unquantised == 0.25
    assert options.data == ("d",) and options.out == Path("nowhere/run") and options.init_from is None


def test_several_shards_are_several_words() -> None:
    options, _ = train.parse("dfvqgan", ["tiny", "--data", "a.tar", "b.tar", "--out=x"])
    assert options.data == ("a.tar", "b.tar") and options.out == Path("x")


@pytest.mark.parametrize(
    ("stage", "more", "says"),
    [
        ("dfvqgan", ["maxi"], "no dfvqgan recipe is called 'maxi'; there are: mini, "),
        ("dfvqgan", ["maxi", "--resume"], "no dfvqgan recipe is called 'maxi'"),
        ("mps2s", ["paper-f8-8192"], "no mps2s recipe is called 'paper-f8-8192'"),
        ("dfvqgan", [], "train dfvqgan needs a recipe: mini, "),
        ("dfvqgan", ["tiny", "--recipe", "r.json"], "the recipe is 'tiny' or --recipe r.json, not both"),
        ("mps2s", ["--recipe", "nowhere.json"], "cannot read nowhere.json: No such file"),
        ("dfvqgan", ["tiny", "--max-minutes", "0"], "--max-minutes is 0.0; it must be above 0"),
        ("dfvqgan", ["tiny", "--max-file-mb", "0"], "--max-file-mb is 0; it must be 1 or more"),
        ("dfvqgan", ["tiny", "--workers", "0"], "--workers is 0; it must be 1 or more"),
        ("dfvqgan", ["tiny", "--weights", "1", "3"], "--weights has 2 numbers for 1 of --data: give one for each"),
        ("dfvqgan", ["tiny", "--resume", "--overwrite"], "--resume goes on with a run, --overwrite replaces it"),
        ("dfvqgan", ["tiny", "--init-from", "nothing"], "there is no model 'nothing'"),
        ("dfvqgan", ["tiny", "--perceptual", "nothing"], "there is no file nothing; --perceptual is squeezenet"),
        ("dfvqgan", ["tiny", "--data", "nowhere.tar"], "no shard at nowhere.tar"),
        ("mps2s", ["tiny", "--data", "nowhere"], "nowhere is not a token cache"),
        ("mps2s", ["tiny", "--data", "a", "b"], "a is not a token cache"),
        ("mps2s", ["mini"], "has pictures of 32 pixels, 8 x 8 tokens and 64 codes; the recipe's model has 128"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    stage: str, more: list[str], says: str, data: dict[str, Path], nuwa_lip: Run, tmp_path: Path
) -> None:
    given = [] if "--data" in more else ["--data", data[stage]]
    done = nuwa_lip("train", stage, *more, *given, "-o", tmp_path / "run")
    assert done.code == 2 and done.out == "" and says in done.err, done.err
    assert len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "more", "says"),
    [
        ("dfvqgan", ["--schedule.pace", "3"], "--schedule.pace"),
        ("dfvqgan", ["--schedule.steps", "many"], "--schedule.steps"),
        ("dfvqgan", ["--schedule.steps", "0"], "schedule.steps is 0; it must be 1 or more"),
        ("dfvqgan", ["--schedule.seed", "1" + "0" * 30], "it must be 0 or more, and below 2**63"),
        ("dfvqgan", ["--schedule.batch-size", "8", "--schedule.accumulate", "5"], "8 cannot be split into 5"),
        ("dfvqgan", ["--adversary.filters", "12"], "adversary.filters is 12; it must be"),
        ("dfvqgan", ["--pixel-loss", "l3"], "--pixel-loss"),
        ("dfvqgan", ["another"], "another"),
        ("mps2s", ["--model.text-encoder", "{"], "--model.text-encoder"),
        ("mps2s", ["--orders.spiral", "1"], "--orders.spiral"),
        ("mps2s", ["--orders.raster", "0"], "one of them must be"),
        ("mps2s", ["--sampling.order", "spiral"], "there is no order 'spiral'"),
        ("mps2s", ["--sampling.temperature", "-1"], "temperature is -1.0; it must be"),
    ],
)
def test_wrong_usage_is_2(stage: str, more: list[str], says: str, nuwa_lip: Run, tmp_path: Path) -> None:
    done = nuwa_lip("train", stage, "tiny", *more, "--data", "d", "-o", tmp_path / "run")
    assert done.code == 2 and "Traceback" not in done.err and says in done.err and len(done.err.splitlines()) < 25
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", STAGES)
def test_without_any_words(stage: str, nuwa_lip: Run) -> None:
    done = nuwa_lip("train", stage)
    assert done.code == 2 and done.err.startswith(f"nuwa-lip: train {stage} needs a recipe: ")
    assert "--data" in nuwa_lip("train", stage, "tiny").err  # which is missing


@pytest.mark.parametrize("stage", STAGES)
def test_help_shows_every_field(stage: str, nuwa_lip: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = nuwa_lip("train", stage, "--help")
    assert done.code == 0 and f"Example: nuwa-lip train {stage} mini" in done.out

    def flags(value: Any, prefix: str) -> list[str]:
        found = []
        for field in dataclasses.fields(value):
            name = f"{prefix}{field.name.replace('_', '-')}"
            held = getattr(value, field.name)
            if held is True:
                name = f"{prefix}no-{field.name.replace('_', '-')}"
            found += flags(held, f"{name}.") if dataclasses.is_dataclass(held) else [name]
        return found

    for flag in [*flags(recipes.named(stage, "mini"), ""), "data", "out", "resume", "init-from", "max-minutes"]:
        assert f"--{flag}" in done.out, flag


@pytest.mark.parametrize(("stage", "name"), [(s, n) for s, (_, named) in recipes.STAGES.items() for n in named])
def test_what_a_negative_flag_switches_off_is_a_question(stage: str, name: str, nuwa_lip: Run) -> None:
    """`--no-flip` before "Mirror half of the photos" says the contrary of what it does."""
    shown = " ".join(nuwa_lip("train", stage, name, "--help").out.split())
    for flag, word in re.findall(r"--([\w.-]*\bno-[\w-]+) (\w+)", shown):
        assert word in ("Whether", "Off", "On"), flag


DOCUMENTS = [Path(__file__).parents[2] / name for name in ("README.md", "docs/training.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_can_be_parsed(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")  # commands of several lines
    found = re.findall(r"^(?:nuwa-lip|accelerate launch -m nuwa_lip) train (.*)$", text, re.MULTILINE)
    assert len(found) >= 2
    for line in found:
        stage, *words = shlex.split(line)
        options, _ = train.parse(stage, words)
        assert options.data and options.out


def test_flags_in_the_tutorial_exist(nuwa_lip: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    groups = ("train dfvqgan", "train mps2s", "tokenize", "inpaint", "data shapes", "data benchmark", "evaluate images")
    known = "".join(nuwa_lip(*name.split(), "--help").out for name in groups)
    known = known.replace("--model.no-", "--model.").replace("--augmentation.no-", "--augmentation.")
    text = re.sub(r"^img2dataset(.*\\\n)*.*", "", DOCUMENTS[1].read_text(), flags=re.MULTILINE)  # another's command
    for flag in set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)) - {"--help"}:
        assert f"{flag} " in known or f"{flag}\n" in known or f"{flag}." in known, flag


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What the command sees of a run that is there."""
    run = tmp_path / "run"
    run.mkdir()
    tiny = recipes.named("dfvqgan", "tiny")
    recipe = dataclasses.replace(tiny, schedule=dataclasses.replace(tiny.schedule, steps=2000))
    (run / "recipe.json").write_text(json.dumps(recipes.to_json(recipe)))
    (run / "metrics.jsonl").write_text("{}\n")
    return run


def test_an_existing_run_is_not_replaced(finished: Path, words: Run, nuwa_lip: Run) -> None:
    before = contents(finished)
    done = nuwa_lip(*words("dfvqgan"))
    assert done.code == 2 and f"{finished} holds a run: give --resume to go on with it, or --overwrite" in done.err
    assert len(done.err.splitlines()) == 1 and contents(finished) == before
    done = nuwa_lip(*words("dfvqgan", "--schedule.steps", 1, "--overwrite"))
    assert done.code == 0 and [line["step"] for line in metrics(finished)] == [1]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--schedule.steps", "5"], "where schedule.steps is 2000, not 5: leave it out"),
        (["--model.channels", "8", "16"], "where model.channels is (16, 32, 32), not (8, 16)"),
        (["--masks.nothing", "0.3", "--schedule.seed", "1"], "where schedule.seed is 0, not 1"),
        (["--model.no-normalise-codes"], "where model.normalise_codes is True, not False"),
    ],
)
def test_a_resumed_run_keeps_its_settings(more: list[str], says: str, finished: Path, nuwa_lip: Run) -> None:
    before = contents(finished)
    done = nuwa_lip("train", "dfvqgan", "tiny", "--data", "d", "-o", finished, "--resume", *more)
    assert done.code == 2 and f"--resume follows {finished / 'recipe.json'}, {says}" in done.err, done.err
    assert len(done.err.splitlines()) == 1 and contents(finished) == before


def test_a_resumed_run_follows_its_recipe_whatever_the_name(finished: Path) -> None:
    changed = dataclasses.replace(recipes.named("dfvqgan", "tiny"), connect=0.125)
    (finished / "recipe.json").write_text(json.dumps(recipes.to_json(changed)))
    for form in (["--out", str(finished)], [f"--out={finished}"], ["-o", "elsewhere", "-o", str(finished)]):
        for name in (["tiny"], ["mini"], []):
            _, recipe = train.parse("dfvqgan", [*name, "--data", "d", *form, "--resume"])
            assert recipe == changed
    (finished / "recipe.json").write_text("{")
    with pytest.raises(InputError, match="recipe.json is not valid JSON"):
        train.parse("dfvqgan", ["tiny", "--data", "d", "-o", str(finished), "--resume"])


def test_a_damaged_checkpoint_is_one_line(words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    more = ("--schedule.steps", 2, "--schedule.checkpoint-every", 1)
    assert nuwa_lip(*words("dfvqgan", *more)).code == 0
    last = tmp_path / "run/checkpoints/step-2"
    (last / "average.safetensors").write_bytes(b"nothing")
    done = nuwa_lip(*words("dfvqgan", *more, "--resume"))
    assert done.code == 2 and "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith(f"nuwa-lip: cannot resume from {last}: ")
    assert "remove it to go on from the one before" in done.err
    shutil.rmtree(last)
    done = nuwa_lip(*words("dfvqgan", *more, "--resume"))
    assert done.code == 0 and last.is_dir() and [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


def test_a_full_disk_is_one_line_and_keeps_the_last_good_checkpoint(
    words: Run, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--schedule.steps", 3, "--schedule.checkpoint-every", 1)
    assert nuwa_lip(*words("dfvqgan", *more, out=tmp_path / "whole")).code == 0
    written = runs.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if path.parent.name == ".step-2.part" and path.name == "critic.safetensors":
            raise OSError(28, "No space left on device")
        written(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_file", full)
        done = nuwa_lip(*words("dfvqgan", *more))
    assert done.code == 1 and done.out == "" and "Traceback" not in done.err
    assert done.err.splitlines()[-1] == "nuwa-lip: OSError: [Errno 28] No space left on device"
    run = tmp_path / "run"
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-1"]
    assert load_model(run / "model", need_mps2s=False)
    assert nuwa_lip(*words("dfvqgan", *more, "--resume")).code == 0
    assert contents(run / "checkpoints/step-3") == contents(tmp_path / "whole/checkpoints/step-3")


def test_a_budget_fixes_the_steps_and_a_resume_follows_it(
    words: Run, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))  # whatever is timed takes one second
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    for module in (train, loop):
        monkeypatch.setattr(module, "time", clock)
    # a start, two rehearsals of four steps, an end: 17 s; a step takes 1 s; 94 % of 22.4 s less that is 4 s
    budget = ("--max-minutes", 22.4 / 60)
    with monkeypatch.context() as patch:
        interrupt("dfvqgan", 1, patch)  # of a rehearsal or of the run: the first that runs a step 1
        patch.setattr(loop, "_seconds_per_step", lambda stage, at=0: [next(ticks) for _ in range(8)] and 1.0)
        done = nuwa_lip(*words("dfvqgan", *budget))
    assert done.code == 1 and f"{tmp_path / 'run'}: 4 steps on cpu" in done.err
    recipe = recipes.from_file("dfvqgan", tmp_path / "run/recipe.json")
    assert recipe.schedule.steps == 4
    done = nuwa_lip(*words("dfvqgan", *budget, "--resume"))
    assert done.code == 0, done.err
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    rates = [recipe.schedule.learning_rate_at(step) for step in range(4)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates, rel=1e-5)
    assert recipes.from_file("dfvqgan", tmp_path / "run/recipe.json") == recipe


@pytest.mark.parametrize("stage", STAGES)
def test_a_budget_is_measured_on_real_steps(
    stage: str, words: Run, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, seen = iter(range(1000)), []
    for module in (train, loop):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    step = STAGES[stage].step

    def spy(self: Any, number: int, batch: Any) -> Any:
        figures = step(self, number, batch)
        seen.append((number, "discriminator" in figures, len(self.accelerator._models)))
        return figures

    monkeypatch.setattr(STAGES[stage], "step", spy)
    rehearsed = {"dfvqgan": 17, "mps2s": 9}[stage]  # seconds: only stage 1 has a second, dearer rehearsal
    more = ("--adversary.start", 0.5) if stage == "dfvqgan" else ()
    done = nuwa_lip(*words(stage, "--max-minutes", (rehearsed + 2.5) / 0.94 / 60, *more))
    assert done.code == 0, done.err
    models = 2 if stage == "dfvqgan" else 1  # those of a rehearsal are let go of
    if stage == "dfvqgan":
        assert seen == [(0, False, 2)] * 4 + [(1, True, 2)] * 4 + [(0, False, 2), (1, True, 2)]
    else:
        assert seen == [(0, False, 1)] * 5 + [(1, False, 1)]
    assert {count for *_, count in seen} == {models}
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


@pytest.mark.parametrize("stage", STAGES)
def test_it_starts_from_a_model(stage: str, words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert nuwa_lip(*words(stage, "--schedule.steps", 1, out=first)).code == 0
    # other sizes are asked for; the model's take their place
    plain = ["train", stage, "tiny", *SHORT, *words(stage)[-4:], "--schedule.steps", 2]
    slowly = ["--schedule.learning-rate", 1e-9, "--schedule.weight-decay", 0]
    done = nuwa_lip(*plain, *slowly, "--init-from", first / "model")
    assert done.code == 0, done.err
    recipe = recipes.from_file(stage, tmp_path / "run/recipe.json")
    assert recipe.model == recipes.from_file(stage, first / "recipe.json").model
    assert recipe.schedule.learning_rate == 1e-9
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2], "a new schedule"
    before, after = (load_model(p / "model", need_mps2s=stage == "mps2s") for p in (first, tmp_path / "run"))
    part = {"dfvqgan": 0, "mps2s": 1}[stage]
    for a, b in zip(before[part].parameters(), after[part].parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_stage_2_does_not_start_from_stage_1(data: dict[str, Path], nuwa_lip: Run, tmp_path: Path) -> None:
    model = data["mps2s"] / "dfvqgan"
    done = nuwa_lip("train", "mps2s", "tiny", "--data", data["mps2s"], "-o", tmp_path / "run", "--init-from", model)
    assert done.code == 2 and f"{model} holds a DF-VQGAN only" in done.err and len(done.err.splitlines()) == 1


def test_a_damaged_shard_is_skipped_counted_and_named(words: Run, nuwa_lip: Run, data: Any, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(data["dfvqgan"], shards)
    first = min(shards.iterdir())
    (shards / "broken.tar").write_bytes(first.read_bytes()[:700])
    (shards / "empty.tar").write_bytes(b"no tar")
    whole = nuwa_lip(*words("dfvqgan", "--schedule.steps", 1, out=tmp_path / "whole"))
    done = nuwa_lip(*words("dfvqgan", "--schedule.steps", 1, "--data", shards))
    assert done.code == 0 and whole.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "warning" in line]
    assert line.startswith("nuwa-lip: warning: skipped 2 that could not be read: ")
    assert "broken.tar" in line and "empty.tar" in line and "warning" not in whole.err
    assert contents(tmp_path / "run/model") == contents(tmp_path / "whole/model"), "the good photos are all there"


@pytest.mark.parametrize(("stage", "cache"), [("dfvqgan", "none"), ("dfvqgan", "device"), ("mps2s", "none")])
def test_where_photos_are_held(stage: str, cache: str, words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    workers = ("--workers", 0) if cache == "none" else ()
    done = nuwa_lip(*words(stage, "--schedule.steps", 1, "--cache", cache, *workers))
    assert done.code == 0 and load_model(tmp_path / "run/model", need_mps2s=stage == "mps2s"), done.err


def test_exported_files_are_split(words: Run, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_bytes", lambda options: options.max_file_mb * 2**10)  # a MiB is more than all of it
    done = nuwa_lip(*words("dfvqgan", "--schedule.steps", 1, "--max-file-mb", 20))
    assert done.code == 0 and len(list((tmp_path / "run/model").glob("dfvqgan-*.safetensors"))) > 2
    monkeypatch.undo()
    assert train._bytes(train.Options(data=("d",), out=Path("o"), max_file_mb=3)) == 3 * 2**20
    assert train._bytes(train.Options(data=("d",), out=Path("o"))) is None


@pytest.mark.parametrize("stage", STAGES)
def test_held_out_photos_are_measured_with_every_sheet(stage: str, words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    command = words(stage, "--schedule.steps", 3, "--schedule.log-every", 3, "--schedule.sheet-every", 2)
    data = command[command.index("--data") + 1]
    done = nuwa_lip(*command, "--validation", data)
    assert done.code == 0, done.err
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 3] and all(line["validation"] > 0 for line in lines)
    assert all(line["hours"] >= 0 for line in lines)
    assert done.err.splitlines()[-1].startswith(f"{tmp_path / 'run'}: 0.00 h, "), "at last, what it has taken"
    plain = tmp_path / "plain"
    assert nuwa_lip(*words(stage, "--schedule.steps", 3, out=plain)).code == 0
    assert contents(plain / "model") == contents(tmp_path / "run/model"), "measuring changes nothing"


def test_a_finished_run_is_lengthened(words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    assert nuwa_lip(*words("mps2s", "--schedule.steps", 1)).code == 0
    done = nuwa_lip(*words("mps2s", "--schedule.steps", 3, "--resume"))
    assert done.code == 0, done.err
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3]
    recipe = recipes.from_file("mps2s", tmp_path / "run/recipe.json")
    assert recipe.schedule.steps == 3 and recipe.schedule.warmup == pytest.approx(0.05 / 3)
    done = nuwa_lip(*words("mps2s", "--schedule.steps", 2, "--resume"))
    assert done.code == 2 and "schedule.steps is 3, not 2" in done.err


def test_a_run_that_is_stopped_names_its_checkpoint(
    words: Run, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt("mps2s", 1, monkeypatch)
    done = nuwa_lip(*words("mps2s", "--schedule.steps", 4))
    assert done.code == 1 and f"{tmp_path}/run/checkpoints/step-2 has what was learned" in done.err
    assert "--resume" in done.err.splitlines()[-2] and done.err.splitlines()[-1] == "nuwa-lip: stopped"


@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_the_recipes(stage: str, nuwa_lip: Run) -> None:
    done = nuwa_lip("train", stage, "--help")
    assert done.code == 0 and all(name in done.out for name in recipes.STAGES[stage][1])


def test_a_prior_has_no_validation(words: Run, nuwa_lip: Run, tmp_path: Path) -> None:
    done = nuwa_lip(*words("mps2s", "--trained", "prior", "--validation", tmp_path))
    assert done.code == 2 and "--validation is not for a prior" in done.err
