"""`evaluate images` end to end on a small benchmark of real photos."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from nuwa_lip.assets import asset
from nuwa_lip.baselines import methods
from nuwa_lip.commands import evaluate
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem, build_benchmark
from nuwa_lip.data.shards import Sample
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.images import Observer
from nuwa_lip.evaluation.job import Job
from nuwa_lip.models.perceptual import SqueezeNetFeatures
from tests.demo_photos import demo_benchmark


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Three of the bundled photos, two of them cut to other sizes."""
    crops = {"gull": (0, 0, 96, 96), "riders": (20, 40, 140, 120), "bear": (60, 60, 140, 150)}
    return demo_benchmark(tmp_path / "bench", crops)


def save_results(benchmark: Benchmark, folder: Path, change: int = 0) -> Path:
    """The originals themselves, with the hole's pixels changed."""
    folder.mkdir()
    for item in benchmark:
        photo = np.where(item.mask[..., None], item.image ^ np.uint8(change), item.image)
        Image.fromarray(photo).save(folder / f"{item.name}.png")
    return folder


def test_perfect_results_get_perfect_figures(benchmark: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    evaluate.images(benchmark.folder, results=save_results(benchmark, tmp_path / "same"), json=out, metrics="detail")
    report = json.loads(out.read_text())
    assert report["n"] == 3
    assert report["benchmark_sha256"] == benchmark.sha256
    assert report["lpips_squeeze"] == report["lpips_squeeze_hole"] == report["ring"] == 0
    assert report["known_max_change"] == 0 and report["sharpness"] == report["seam"] == 1
    assert report["ssim"] == pytest.approx(1)
    assert report["fsd"] == pytest.approx(0, abs=1e-6)


def test_baseline_beside_results_with_a_sheet(
    benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "figures.json", tmp_path / "sheet.png"
    results = save_results(benchmark, tmp_path / "inverted", change=255)
    evaluate.images(benchmark.folder, results=results, baseline="telea", json=out, sheet=sheet)
    report = json.loads(out.read_text())
    telea = report["compared"]["opencv-telea"]
    assert report["known_max_change"] == telea["known_max_change"] == 0
    assert telea["lpips_squeeze_hole"] < report["lpips_squeeze_hole"]
    assert telea["psnr"] > telea["psnr_hole"] > report["psnr_hole"]
    for name, interval in telea["intervals_95"].items():
        assert interval[0] <= telea[name] <= interval[1]
    assert telea["krd_hole"] < report["krd_hole"]
    assert report["resize"]["squeezenet"].startswith("227")
    assert not {"fid", "kid", "lpips", "clip_score"} & report.keys()  # never under these names
    shown = capsys.readouterr().out
    assert "opencv-telea" in shown and f"n = 3, sha256 {benchmark.sha256[:12]}" in shown and "227 x 227" in shown
    assert Image.open(sheet).format == "PNG"


def test_limit(benchmark: Benchmark, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    evaluate.images(benchmark.folder, baseline="navier-stokes", json=out, limit=2)
    assert json.loads(out.read_text())["n"] == 2


def test_what_cannot_be_written_is_told_before_the_work(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nuwa_lip.evaluation.job.measure", lambda *_, **__: pytest.fail("there was work"))
    for option in ("json", "sheet"):
        with pytest.raises(InputError, match="is a folder; name a file"):
            evaluate.images(benchmark.folder, baseline="telea", work=tmp_path / "work", **{option: tmp_path})


@pytest.mark.parametrize("name", methods.BASELINES)
def test_baselines_do_not_see_the_hole(benchmark: Benchmark, name: str) -> None:
    item = benchmark[0]
    other = np.where(item.mask[..., None], np.uint8(255) - item.image, item.image)
    twin = BenchmarkItem(index=0, name=item.name, image=other, mask=item.mask, caption=item.caption)
    repaint = methods.baseline(name)
    np.testing.assert_array_equal(repaint(item), repaint(twin))


def test_kept_pictures_are_not_made_again(benchmark: Benchmark, tmp_path: Path) -> None:
    made = []

    def repaint(item: BenchmarkItem) -> np.ndarray:
        made.append(item.name)
        return item.image

    run: dict[str, object] = {"model": "m", "seed": 0}
    folder = tmp_path / "kept"
    first = methods.kept(repaint, folder, run)
    first(benchmark[0]), first(benchmark[1])
    again = methods.kept(repaint, folder, run)
    for item in benchmark:
        np.testing.assert_array_equal(again(item), item.image)
    assert made == ["00000", "00001", "00002"]
    with pytest.raises(InputError, match="another run"):
        methods.kept(repaint, folder, {**run, "seed": 1})


def test_pictures_of_a_model_are_not_those_of_one_trained_again(
    benchmark: Benchmark, tmp_path: Path, tiny_model: Path
) -> None:
    model, kept = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "kept"
    evaluate.images(benchmark.folder, model=str(model), save_images=kept, limit=2)
    evaluate.images(benchmark.folder, model=str(model), save_images=kept, limit=2)
    weights = next(model.glob("*.safetensors"))
    changed = {name: value.clone() for name, value in load_file(weights).items()}
    next(iter(changed.values())).flatten()[0] += 1
    save_file(changed, weights)
    with pytest.raises(InputError, match="kept .*another run"):
        evaluate.images(benchmark.folder, model=str(model), save_images=kept, limit=2)


def test_a_baselines_pictures_are_kept_for_other_commands(benchmark: Benchmark, tmp_path: Path) -> None:
    kept, page = tmp_path / "kept", tmp_path / "page.html"
    evaluate.images(benchmark.folder, baseline="telea", save_baseline=kept, limit=2)
    assert sorted(path.name for path in kept.iterdir()) == ["00000.png", "00001.png", "run.json"]
    evaluate.images(benchmark.folder, results=kept, limit=2)
    with pytest.raises(InputError, match="kept .*another run"):
        evaluate.images(benchmark.folder, baseline="navier-stokes", save_baseline=kept, limit=2)
    with pytest.raises(InputError, match="--save-baseline keeps a baseline's pictures; give --baseline"):
        evaluate.images(benchmark.folder, results=kept, save_baseline=page)


def test_two_methods_of_one_name_are_refused(benchmark: Benchmark, tmp_path: Path) -> None:
    results = save_results(benchmark, tmp_path / "opencv-telea")
    with pytest.raises(InputError, match="opencv-telea"):
        evaluate.images(benchmark.folder, results=results, baseline="telea")


def test_a_whole_photo_in_one_window_is_the_unpasted_picture_pasted(tmp_path: Path, tiny_model: Path) -> None:
    photo = Image.open(asset("demo/photos/bear.jpg")).convert("RGB")
    samples = [Sample(key="bear", image=photo, captions=["a bear"], meta={})]
    source = build_benchmark(samples, source="demo", rule="block-10-10", seed=0, out=tmp_path / "b")
    job = {"benchmark": source.folder, "model": str(tiny_model), "blend": False}
    jobs = [Job(**job), Job(**job, whole=True), Job(**job, unpasted=True)]  # type: ignore[arg-type]
    windows, whole, unpasted = (next(iter(job.repaints(source).values()))(source[0]) for job in jobs)
    item = source[0]
    np.testing.assert_array_equal(whole, np.where(item.mask[..., None], unpasted, item.image))
    assert not np.array_equal(whole, windows)
    assert "whole" not in jobs[0].describe(source) and jobs[1].describe(source)["whole"] is True


def test_a_model_is_printed_with_seeds_and_best_of(
    benchmark: Benchmark, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    evaluate.images(benchmark.folder, model=str(tiny_model), json=out, seed=5, best_of=2, limit=2)
    report = json.loads(out.read_text())
    assert (report["seeds"], report["best_of"], report["rank"]) == ([5, 6], 2, "likelihood")
    assert report["known_max_change"] == 0
    assert "seeds 5 to 6, best of 2 by likelihood" in capsys.readouterr().out


def equal_figures(a: Path, b: Path) -> None:
    one, other = (json.loads(path.read_text()) for path in (a, b))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name  # of float32 features
    for name, interval in one["intervals_95"].items():
        assert other["intervals_95"][name] == pytest.approx(interval, rel=1e-4, abs=1e-5), name


def test_processes_and_shards_give_the_figures_of_one_process(benchmark: Benchmark, tmp_path: Path) -> None:
    results = save_results(benchmark, tmp_path / "results", change=40)
    files = {name: tmp_path / f"{name}.json" for name in ("one", "workers", "shards")}
    evaluate.images(benchmark.folder, results=results, json=files["one"])
    sheet = tmp_path / "sheet.png"
    evaluate.images(benchmark.folder, results=results, json=files["workers"], workers=2, sheet=sheet)
    equal_figures(files["one"], files["workers"])
    work = tmp_path / "work"
    for shard in ("2/2", "1/2"):
        evaluate.images(benchmark.folder, results=results, work=work, shard=shard)
    evaluate.images(benchmark.folder, results=results, work=work, json=files["shards"])
    equal_figures(files["one"], files["shards"])
    assert sheet.exists()
    assert sorted(path.name for path in tmp_path.glob("*.work")) == []
    assert len(list(work.glob("*.safetensors"))) == 3


def test_a_stopped_run_goes_on(benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, out = save_results(benchmark, tmp_path / "results", change=40), tmp_path / "figures.json"
    (results / "00002.png").rename(tmp_path / "away.png")
    with pytest.raises(InputError, match="00002.png is missing"):
        evaluate.images(benchmark.folder, results=results, json=out)
    assert len(list((tmp_path / "figures.json.work").glob("*.safetensors"))) == 2 and not out.exists()
    (tmp_path / "away.png").rename(results / "00002.png")
    Image.fromarray(benchmark[0].image).save(results / "00000.png")  # another picture under an old name
    measured = []
    observe = Observer.observe
    monkeypatch.setattr(
        Observer, "observe", lambda self, item, photos: measured.append(item.name) or observe(self, item, photos)
    )
    evaluate.images(benchmark.folder, results=results, json=out)
    assert measured == ["00000", "00002"]
    evaluate.images(benchmark.folder, results=results, json=tmp_path / "again.json")
    equal_figures(out, tmp_path / "again.json")


def test_without_a_report_a_stopped_run_says_where_it_is(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    results = save_results(benchmark, tmp_path / "results", change=40)
    for name, kept in (("00000", 0), ("00002", 2)):
        (results / f"{name}.png").rename(tmp_path / "away.png")
        with pytest.raises(InputError, match=f"{name}.png is missing"):
            evaluate.images(benchmark.folder, results=results)
        (tmp_path / "away.png").rename(results / f"{name}.png")
        assert len(list((tmp_path / "temporary").rglob("*.safetensors"))) == kept
    (work,) = (tmp_path / "temporary").iterdir()
    said = capsys.readouterr().err
    assert said.count("what was measured is kept; to go on, add --work") == 1 and f"--work {work}\n" in said
    evaluate.images(benchmark.folder, results=results, work=work)
    assert len(list(work.glob("*.safetensors"))) == 3
    evaluate.images(benchmark.folder, results=results)
    assert list((tmp_path / "temporary").iterdir()) == [work]


def test_features_that_are_no_numbers_are_refused(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> SqueezeNetFeatures:
        network = SqueezeNetFeatures()
        network.features[0].bias.data[:] = float("nan")
        return network

    monkeypatch.setattr("nuwa_lip.evaluation.weights.squeezenet", damaged)
    with pytest.raises(InputError, match="squeezenet.* 00000 .*not finite"):
        evaluate.images(benchmark.folder, results=save_results(benchmark, tmp_path / "same"))


def test_bad_input_is_named(benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match="nothing to measure"):
        evaluate.images(benchmark.folder)
    with pytest.raises(InputError, match="exclude each other"):
        evaluate.images(benchmark.folder, model="m", results=tmp_path)
    with pytest.raises(InputError, match="--save-images"):
        evaluate.images(benchmark.folder, baseline="telea", save_images=tmp_path)
    with pytest.raises(InputError, match="--limit 1"):
        evaluate.images(benchmark.folder, baseline="telea", limit=1)
    with pytest.raises(InputError, match="--shard.*--work"):
        evaluate.images(benchmark.folder, baseline="telea", shard="1/2")
    with pytest.raises(InputError, match="--shard '3/2'"):
        evaluate.images(benchmark.folder, baseline="telea", shard="3/2", work=tmp_path / "work")
    with pytest.raises(InputError, match="--workers 0"):
        evaluate.images(benchmark.folder, baseline="telea", workers=0)
    with pytest.raises(InputError, match="--best-of.*--model"):
        evaluate.images(benchmark.folder, baseline="telea", best_of=2)
    with pytest.raises(InputError, match="'fd'.*fid, kid, lpips, clip"):
        evaluate.images(benchmark.folder, baseline="telea", metrics="kid,fd")
    with pytest.raises(InputError, match="fid .*2048.* 3.*KID"):
        evaluate.images(benchmark.folder, baseline="telea", metrics="fid")
    with pytest.raises(InputError, match="not a folder of results"):
        evaluate.images(benchmark.folder, results=tmp_path / "absent", json=tmp_path / "none.json")
    assert not list(tmp_path.glob("none*"))
    results = save_results(benchmark, tmp_path / "results")
    Image.new("RGB", (5, 4)).save(results / "00001.png")
    with pytest.raises(InputError, match="00001.png.*5x4.*120x80"):
        evaluate.images(benchmark.folder, results=results)
    (results / "00001.png").unlink()
    with pytest.raises(InputError, match="00001.png is missing"):
        evaluate.images(benchmark.folder, results=results)


def test_blending_is_said_and_may_be_switched_off(benchmark: Benchmark, tiny_model: Path, tmp_path: Path) -> None:
    """As in the bundled model, whose configuration switches it on."""
    model = shutil.copytree(tiny_model, tmp_path / "blending")
    config = json.loads((model / "config.json").read_text())
    config["sampling"]["blend"] = True
    (model / "config.json").write_text(json.dumps(config))
    reports: list[dict[str, Any]] = []
    for name, blend, folder in (("usual", None, model), ("off", "off", model), ("on", "on", tiny_model)):
        out = tmp_path / f"{name}.json"
        evaluate.images(benchmark.folder, model=str(folder), blend=blend, json=out, limit=2)  # type: ignore[arg-type]
        reports.append(json.loads(out.read_text()))
    usual, off, on = reports
    assert [report["blend"] for report in reports] == [True, False, True]
    assert usual["psnr_hole"] == on["psnr_hole"] != off["psnr_hole"]
    with pytest.raises(InputError, match="--blend"):
        evaluate.images(benchmark.folder, baseline="telea", blend="off")
