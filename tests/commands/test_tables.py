"""`evaluate table1` to `table4` and `ratios` on drawn shapes: rows trained, given, spread over runs, put together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import save_file

from nuwa_lip.commands import tables, train
from nuwa_lip.commands.tables import job_of
from nuwa_lip.commands.tokenize import MASKS
from nuwa_lip.commands.variants import Plan, ratio_steps, table1_steps, table4_steps, tokenizer_steps
from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import tokenizers
from nuwa_lip.evaluation.images import Observer
from nuwa_lip.evaluation.job import Job, Weights
from nuwa_lip.hub import load_model
from tests.small_runs import efficientnet_state

Run = Callable[..., Any]
SMALL = (
    "tiny --schedule.steps 1 --schedule.batch-size 4 --schedule.precision fp32 --model.channels 8 8 16 "
    "--model.groups 4 --model.latent-channels 8 --model.codebook-dim 4"
)
SMALL2 = "tiny --schedule.steps 1 --schedule.batch-size 4 --schedule.precision fp32 --model.width 16"


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("tables") / "shapes"
    return build_benchmark(shape_samples(8, size=32), source="shapes", rule="rectangles-40-60", seed=0, out=out)


def rows(out: Path, table: str) -> dict[str, Any]:
    """Rows of a table's JSON by name."""
    content = json.loads((out / f"{table}.json").read_text())
    return {row["row"]: row for row in content["benchmarks"][0]["rows"]}


def test_table2_trains_measures_and_assembles_row_by_row(
    benchmark: Benchmark, shards: Path, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results"
    words = ("evaluate", "table2", benchmark.folder, "-o", out, "--limit", 3, "--pictures", 2, "--codes", 16, 24, 32)
    train = ("--train", "--data", shards, "--stage1", SMALL)
    done = nuwa_lip(*words, *train, "--only", "vqgan-coarse-16", "--only", "partial-coarse-16")
    assert done.code == 0, done.err
    assert [p.name for p in sorted((out / "models").iterdir())] == ["vqgan-coarse-16", "vqgan-coarse-16.json"]
    config = load_model(out / "models/vqgan-coarse-16/model", need_mps2s=False).dfvqgan.config
    assert not config.relative_estimation and not config.symmetrical_connections and config.codebook_size == 16
    done = nuwa_lip(*words, *train, "--only", "df-vqgan-fine-32")
    assert done.code == 0, done.err
    finer = load_model(out / "models/df-vqgan-fine-32/model", need_mps2s=False).dfvqgan.config
    assert finer.relative_estimation and finer.codebook_size == 32 and finer.grid == 2 * config.grid
    monkeypatch.setattr(tokenizers, "measure", None)  # nothing is measured again
    monkeypatch.setattr(tokenizers, "probe", None)
    done = nuwa_lip(*words, "--row", f"vqgan-coarse-16={out / 'models/vqgan-coarse-16/model'}")
    assert done.code == 0, done.err
    found = rows(out, "table2")
    measured = {name for name, row in found.items() if row["seeds"]}
    assert measured == {"vqgan-coarse-16", "vqgan-p-coarse-16", "partial-coarse-16", "df-vqgan-fine-32"}
    plain, pasted, partial = (found[f"{name}-coarse-16"] for name in ("vqgan", "vqgan-p", "partial"))
    assert plain["figures"]["oracle/fsd"] != pasted["figures"]["oracle/fsd"]
    assert plain["figures"]["reconstruction/fsd"] == pasted["figures"]["reconstruction/fsd"]
    assert plain["figures"]["distance"] != partial["figures"]["distance"]
    assert plain["figures"]["reconstruction/fsd"] == pytest.approx(partial["figures"]["reconstruction/fsd"])
    assert "--model.no-relative-estimation" in plain["training"][0][0] and plain["paper"]["average distance ↓"] == 5.75
    assert all((out / f"table2{ending}").is_file() for ending in (".csv", ".md", ".html", "-shapes.png"))
    assert "data:image/jpeg" in (out / "table2.html").read_text() and not (out / "work").exists()
    assert "VQGAN-P, 16 codes" in done.out


def test_table4_trains_perspectives_and_judges_by_bits(
    benchmark: Benchmark, shards: Path, nuwa_lip: Run, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    words = ("evaluate", "table4", benchmark.folder, "-o", out, "--limit", 3, "--pictures", 1, "--others", 2)
    train = ("--train", "--data", shards, "--stage1", SMALL, "--stage2", SMALL2, "--tokenize", "--variants 1")
    done = nuwa_lip(*words, *train, "--only", "pixels-tokens", "--only", "all")
    assert done.code == 0, done.err
    found = rows(out, "table4")
    both = [found["all"], found["pixels-tokens"]]
    assert all(row["figures"]["bits"] > 0 and row["figures"]["known_max_change"] == 0 for row in both)
    assert both[0]["figures"]["caption_rank"] is not None and both[1]["figures"]["caption_rank"] is None
    claims = json.loads((out / "table4.json").read_text())["benchmarks"][0]["claims"]
    claim, listens = [claim for claim in claims if claim["answer"] != "not measured"]
    assert "bits gained by the true caption" in listens["text"] and listens["interval_95"]
    gain = both[1]["figures"]["bits"] - both[0]["figures"]["bits"]
    assert claim["value"] == pytest.approx(gain, abs=1e-5) and "paired over photos" in claim["text"]
    assert len(both[0]["training"][0]) == 3  # stage 1, token cache, stage 2
    # 8 photos: no more than 7 other captions, however many are asked for
    done = nuwa_lip(*words[:-1], 99, "--only", "all", "--row", f"all={out / 'models/table4-all/model'}")
    assert done.code == 0, done.err
    known = json.loads((out / "rows/shapes-first-3/stage2/all.json").read_text())
    assert known["identity"]["likelihood"] < 8 and "chance 0.1" in (out / "table4.md").read_text()
    model = load_model(out / "models/table4-pixels-tokens/model").mps2s
    assert model is not None and model.config.perspectives == ("pixels", "tokens")


def test_stage2_takes_further_figures(
    benchmark: Benchmark, tiny_model: Path, clip_folder: Path, nuwa_lip: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tables, "Job", partial(Job, weights=Weights(clip=str(clip_folder))))
    for table, row in (("table4", "text"), ("ratios", "ratio-20-40")):
        words = ("evaluate", table, benchmark.folder, "-o", tmp_path, "--limit", 2, "--pictures", 0, "--others", 1)
        done = nuwa_lip(*words, "--metrics", "clip", "--row", f"{row}={tiny_model}")
        assert done.code == 0, done.err
        figures = rows(tmp_path, table)[row]["figures"]
        assert 0 <= figures["clip_score"] <= 100 and figures["bits"] > 0 and "CLIP score" in done.out
        assert "fid needs 2048 photos" in nuwa_lip(*words, "--metrics", "clip,fid").err


def test_every_table_takes_the_third_witness(
    benchmark: Benchmark, tiny_model: Path, nuwa_lip: Run, tmp_path: Path
) -> None:
    lite = tmp_path / "lite.safetensors"
    save_file(efficientnet_state(), lite)
    for table, row, key in (
        ("table1", "nuwa-lip", "fed"),
        ("table2", "vqgan-coarse-1024", "oracle/fed"),
        ("table3", "vqgan-coarse-16", "oracle/fed"),
        ("table4", "text", "fed"),
    ):
        codes = ("--codes", 16) if table == "table3" else ()
        words = ("evaluate", table, benchmark.folder, "-o", tmp_path, "--limit", 2, "--pictures", 0, *codes)
        asked = ("--row", f"{row}={tiny_model}", "--metrics", "fed")
        done = nuwa_lip(*words, *asked, "--lite", tmp_path / "absent.safetensors", "--train", "--data", "none.tar")
        assert done.code == 2 and "--lite" in done.err and "absent.safetensors is missing" in done.err
        done = nuwa_lip(*words, *asked, "--lite", lite)
        assert done.code == 0, done.err
        assert rows(tmp_path, table)[row]["figures"][key] > 0 and "FED" in done.out
        content = json.loads((tmp_path / f"{table}.json").read_text())["benchmarks"][0]
        assert any("EfficientNet-Lite0" in note for note in content["notes"])
        assert any("FED" in claim["text"] for claim in content["claims"])
        (measured,) = (tmp_path / "rows/shapes-first-2").rglob(f"{row}.json")
        identity = json.loads(measured.read_text())["identity"]
        assert identity["metrics"] == ["fed"] and str(tmp_path) not in json.dumps(identity)
        measured.unlink()


def test_ours_is_measured_with_windows_and_with_the_whole_photo(
    benchmark: Benchmark, tiny_model: Path, nuwa_lip: Run, tmp_path: Path
) -> None:
    words = ("evaluate", "table1", benchmark.folder, "-o", tmp_path, "--limit", 3, "--pictures", 0)
    given = [word for row in ("nuwa-lip", "nuwa-lip-whole") for word in ("--row", f"{row}={tiny_model}")]
    done = nuwa_lip(*words, *given)
    assert done.code == 0, done.err
    windows, whole = (rows(tmp_path, "table1")[name] for name in ("nuwa-lip", "nuwa-lip-whole"))
    assert (windows["settings"][0]["whole"], whole["settings"][0]["whole"]) == (False, True)
    assert whole["figures"]["known_max_change"] == 0 and not whole["paper"]
    assert whole["figures"] == windows["figures"]  # photos no larger than the model have no smaller window
    assert "NÜWA-LIP, whole photo" in done.out


def test_table1_takes_models_pictures_and_methods(
    benchmark: Benchmark, tiny_model: Path, nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for item in benchmark:
        Image.fromarray(item.image).save(pictures / f"{item.name}.png")
    out = tmp_path / "results"
    words = ("evaluate", "table1", benchmark.folder, "-o", out, "--limit", 3, "--pictures", 1, "--best-of", 2)
    given = (f"nuwa-lip={tiny_model}", f"nuwa={tiny_model}", f"perfect={pictures}", "telea=telea")
    more = [word for row in given for word in ("--row", row)]
    done = nuwa_lip(*words, *more)
    assert done.code == 0, done.err
    found = rows(out, "table1")
    measured = {name for name, row in found.items() if row["seeds"]}
    best = {"nuwa-lip.best-of-2", "nuwa.best-of-2"}
    assert measured == {"nuwa-lip", "nuwa", "perfect", "telea"} | best
    assert found["perfect"]["figures"]["psnr"] == 100 and found["perfect"]["figures"]["fsd"] == pytest.approx(0)
    assert found["nuwa-lip"]["figures"]["known_max_change"] == 0
    assert found["nuwa"]["settings"][0]["unpasted"] and not found["nuwa-lip"]["settings"][0]["unpasted"]
    assert found["nuwa-lip"]["settings"][0]["best_of"] == 1 and found["nuwa-lip"]["paper"]["FID ↓"] == 12
    assert found["nuwa-lip.best-of-2"]["settings"][0]["best_of"] == 2
    monkeypatch.setattr(Observer, "observe", None)  # nothing is measured again, the pictures' row neither
    assert nuwa_lip(*words, *more).code == 0


def test_what_rows_are_trained_by(tmp_path: Path) -> None:
    plan = Plan(models=tmp_path, data=("a.tar",), stage1=f"{SMALL}", stage2=SMALL2, finetune="tiny", seed=1)
    first, cache, last = ratio_steps(plan, "ratio-60-80")
    assert first.out.name == "df-vqgan-coarse-64-seed1" and first.words[-1] == "--resume"
    assert " --masks.ratio 0.6 0.8 " in cache.command and "--schedule.seed 1" in first.command
    assert "--model.codebook-size 64 --model.grid 8 8 --model.image-size 32" in last.command
    perspectives = [" ".join(table4_steps(plan, row)[-1].words) for row in ("text", "text-pixels")]
    assert (
        "--model.perspectives text --" in perspectives[0] and "--model.perspectives text pixels --" in perspectives[1]
    )
    for row in ("df-vqgan", "df-vqgan-text-pixels"):
        assert table4_steps(plan, row)[0].words == first.words
    assert table1_steps(plan, "nuwa-p") == table1_steps(plan, "nuwa") == table1_steps(plan, "nuwa.best-of-4")
    ours = table1_steps(plan, "nuwa-lip")
    assert ours and table1_steps(plan, "nuwa-lip-whole") == table1_steps(plan, "nuwa-lip-whole.best-of-2") == ours
    assert table1_steps(plan, "telea") == table1_steps(plan, "nuwa-lip-finetuned") == []
    (glide,) = table1_steps(plan, "glide")
    assert glide.words[:3] == ("train", "glide", "mini") and glide.out.name == "table1-glide-seed1"
    holes = replace(plan, tokenize="--variants 1 --masks.ratio=0.3 0.6", glide="mini --masks.strokes 0.2")
    masks = train.parse("glide", list(table1_steps(holes, "glide")[0].words[2:]))[1].masks
    assert masks == replace(MASKS, ratio=(0.3, 0.6), strokes=0.2)  # those of stage 2, and what GLIDE's own words say
    tuned = Plan(models=tmp_path, data=("a.tar",), finetune_data=("b.tar",), stage1=SMALL, stage2=SMALL2)
    *_, cache, last = table1_steps(tuned, "nuwa-lip-finetuned")
    assert "--data b.tar" in cache.command and f"--init-from {tmp_path / 'table4-df-vqgan/model'}" in last.command
    paper = Plan(models=tmp_path, data=("a.tar",), stage1="paper-f16-1024")
    (step,) = tokenizer_steps(paper, "df-vqgan-fine-8192")
    assert step.words[:3] == ("train", "dfvqgan", "paper-f8-8192")
    with pytest.raises(InputError, match="--stage1 '--x' must begin with the name of a recipe"):
        tokenizer_steps(Plan(models=tmp_path, data=("a",), stage1="--x"), "vqgan-coarse-16")


def test_what_a_row_may_be_given_as(benchmark: Benchmark, tiny_model: Path, tmp_path: Path) -> None:
    def of(row: str, model: object) -> Job:
        return job_of(row, str(model), benchmark, 2, (), 7)

    ours = of("nuwa-lip", tiny_model)
    assert (ours.model, ours.best_of, ours.seed, ours.unpasted) == (str(tiny_model), 2, 7, False)
    assert of("nuwa", tiny_model).unpasted and of("nuwa.best-of-2", tiny_model).unpasted
    assert not of("nuwa-p", tiny_model).unpasted and not of("nuwa-lip-whole", tiny_model).unpasted
    assert all(of(row, tiny_model).whole for row in ("nuwa-p", "nuwa-lip-whole", "nuwa-lip-whole.best-of-2"))
    assert not ours.whole
    assert ours.blend is False and of("nuwa", tiny_model).blend is False  # whatever the model says
    assert of("anybody", tmp_path).results == tmp_path
    assert of("telea", "telea").baseline == "telea"
    lama = of("lama", "lama:weights.pt")
    assert lama.baseline == "lama" and lama.baseline_options.model == "weights.pt"
    (tmp_path / "base_inpaint.pt").touch()  # published weights
    glide = of("glide", tmp_path)
    assert glide.baseline == "glide" and glide.baseline_options.model == str(tmp_path)
    assert of("glide-longer", tmp_path).baseline == "glide"


def test_a_model_that_was_trained_otherwise_is_not_taken(tmp_path: Path) -> None:
    (step,) = tokenizer_steps(Plan(models=tmp_path, data=("a.tar",), stage1=SMALL), "vqgan-coarse-16")
    ran: list[list[str]] = []

    def call(words: list[str]) -> None:
        ran.append(words)
        step.out.mkdir()

    step.run(call)
    step.run(call)
    assert ran == [list(step.words)]
    (other,) = tokenizer_steps(Plan(models=tmp_path, data=("b.tar",), stage1=SMALL), "vqgan-coarse-16")
    with pytest.raises(InputError, match="was made by other words"):
        other.run(call)


def test_a_model_from_what_was_trained_otherwise_is_not_taken(tmp_path: Path) -> None:
    shorter, longer = (
        Plan(models=tmp_path, data=("a.tar",), stage1=f"{SMALL} {more}", stage2=SMALL2)
        for more in ("", "--max-minutes 9")
    )
    for step in table4_steps(shorter, "text"):
        step.run(lambda words, step=step: step.out.mkdir())  # type: ignore[misc]
    first, *rest = table4_steps(longer, "text")
    assert [step.words for step in rest] == [step.words for step in table4_steps(shorter, "text")[1:]]
    for step in (first, *rest):  # removing the first alone is not enough
        with pytest.raises(InputError, match="was made by other words"):
            step.done()


def test_bad_input_is_named(benchmark: Benchmark, nuwa_lip: Run, tmp_path: Path) -> None:
    words = ("evaluate", "table4", benchmark.folder, "-o", tmp_path / "results")
    for more, says in (
        (("--only", "texts"), "--only 'texts' is no row of table4"),
        (("--row", "text"), "--row 'text' is not like NAME=MODEL"),
        (("--row", "txt=m"), "--row 'txt' is no row of table4"),
        (("--train",), "--train needs --data"),
        (("--only", "text"), "--only text: there is no model to measure"),
        (("--limit", 1), "--limit 1 is too small"),
        (("--others", -1), "--others -1 is too small"),
        (("--row", "text=./none"), "there is no model './none'"),
        (("--pictures-of", "coco"), "--pictures-of coco is none of the benchmarks: shapes"),
        ((benchmark.folder,), "two benchmarks are called shapes"),
    ):
        done = nuwa_lip(*words[:3], *more, *words[3:]) if more == (benchmark.folder,) else nuwa_lip(*words, *more)
        assert done.code == 2 and says in done.err, done.err
    assert "needs a benchmark folder" in nuwa_lip("evaluate", "table4").err
    first = ("evaluate", "table1", *words[2:])
    assert "--row 'a/b': files are named after rows" in nuwa_lip(*first, "--row", "a/b=telea").err
    train = ("--train", "--data", "x.tar")
    only = (*train, "--only", "nuwa-lip-finetuned")
    assert "not trained by these options; give --row nuwa-lip-finetuned=MODEL, or --fin" in nuwa_lip(*first, *only).err
    assert "--metrics 'fdi' is unknown" in nuwa_lip(*first, *train, "--metrics", "fdi").err  # before any training
    assert "--stage2 '' must begin with" in nuwa_lip(*first, *train, "--stage2", "").err  # and before that of GLIDE
    assert not (tmp_path / "results").exists()
