"""Figures of a tokenizer alone: what they are for a DF-VQGAN, for a VQGAN, and from a command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nuwa_lip.commands import evaluate
from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shards import Sample
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.tokenizers import METHODS, Squares, probe
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from tests.demo_photos import demo_benchmark
from tests.small_runs import efficientnet_state


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("tokenizers") / "bench"
    return demo_benchmark(out, dict.fromkeys(("gull", "bear", "fog")))


def official(benchmark: Benchmark, folder: Path) -> Path:
    """The same photos in the official layout."""
    for name in ("gt", "mask", "guidance"):
        (folder / name).mkdir(parents=True)
    for item in benchmark:
        Image.fromarray(item.image).save(folder / "gt" / f"photo-{item.index}.png")
        Image.fromarray(item.mask).save(folder / "mask" / f"photo-{item.index}.png")
        (folder / "guidance" / f"photo-{item.index}.txt").write_text(item.caption)
    return folder


def make(**changes: bool) -> DFVQGAN:
    torch.manual_seed(0)
    config = dataclasses.replace(DFVQGANConfig.preset("tiny"), resolution=64, **changes)  # type: ignore[arg-type]
    model = DFVQGAN(config).eval()
    torch.nn.init.normal_(model.quantiser.codebook)
    return model


VQGAN = {"relative_estimation": False, "symmetrical_connections": False}


def test_squares_are_the_whole_photo_and_any_defective_pixel(benchmark: Benchmark) -> None:
    item, square = benchmark[0], Squares(benchmark, 64)[0]  # 256 to 64: cells of 4 x 4
    cells = item.mask.reshape(64, 4, 64, 4).any((1, 3))
    assert np.array_equal(square.mask, cells)
    means = item.image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(square.image - means).max() <= 1


def test_a_dfvqgan_keeps_known_pixels_and_a_vqgan_does_not(benchmark: Benchmark) -> None:
    item = Squares(benchmark, 64)[0]
    ours, plain = probe(make(), item).photos, probe(make(**VQGAN), item).photos
    assert tuple(ours) == METHODS
    assert np.array_equal(ours["oracle"], ours["pasted"])
    assert np.array_equal(ours["oracle"][~item.mask], item.image[~item.mask])
    assert not np.array_equal(plain["oracle"][~item.mask], item.image[~item.mask])
    assert np.array_equal(plain["pasted"], np.where(item.mask[..., None], plain["oracle"], item.image))


@pytest.mark.parametrize("switches", [{}, VQGAN], ids=["DF-VQGAN", "VQGAN"])
def test_distance_and_changed_codes_are_taken_over_known_tokens(
    benchmark: Benchmark, switches: dict[str, bool]
) -> None:
    model, item = make(**switches), Squares(benchmark, 64)[0]
    arrays = probe(model, item).arrays
    y = torch.from_numpy(item.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    m = torch.from_numpy(item.mask)[None, None]
    with torch.inference_mode():
        whole, known = model.encode(y), model.encode(y, m)
    distances, changes = [], []
    for row in range(16):
        for column in range(16):
            if not item.mask[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].any():
                distances.append(float((whole.latents - known.latents)[0, :, row, column].norm()))
                changes.append(bool(whole.tokens[0, row, column] != known.tokens[0, row, column]))
    assert arrays["distance"][0] == pytest.approx(np.mean(distances), rel=1e-5) and arrays["distance"][0] > 0
    assert arrays["changed"][0] == pytest.approx(np.mean(changes))


def test_the_command_writes_all_figures_and_goes_on_where_it_was(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    save_model(tmp_path / "model", dfvqgan=model)
    again = {"model": str(tmp_path / "model"), "json": tmp_path / "a.json", "work": tmp_path / "work"}
    evaluate.tokenizer(benchmark.folder, **again, limit=2)  # type: ignore[arg-type]
    seen: list[int] = []
    load = Squares.__getitem__
    monkeypatch.setattr(Squares, "__getitem__", lambda self, i: (seen.append(i), load(self, i))[1])
    evaluate.tokenizer(benchmark.folder, **again)  # type: ignore[arg-type]
    assert seen == [2]
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["n"] == 3 and report["benchmark_sha256"] == benchmark.sha256 and report["side"] == 64
    for name in METHODS:
        assert report[name]["n"] == 3 and report[name]["fsd"] > 0
    assert report["oracle"]["known_max_change"] == 0 < report["reconstruction"]["known_max_change"]
    with torch.inference_mode():
        tokens = [
            model.encode(torch.from_numpy(item.image).permute(2, 0, 1)[None].float() / 127.5 - 1).tokens
            for item in (Squares(benchmark, 64)[i] for i in range(3))
        ]
    assert report["usage"] == pytest.approx(len(torch.cat(tokens).unique()) / 64)
    assert 1 <= report["perplexity"] <= 64 and 0 <= report["changed"] <= 1 and report["relative_distance"] > 0
    low, high = report["intervals_95"]["distance"]
    assert low <= report["distance"] <= high


@pytest.mark.usefixtures("workers_here")
def test_the_third_witness_judges_reconstructions_too(benchmark: Benchmark, tmp_path: Path) -> None:
    save_file(efficientnet_state(), tmp_path / "lite.safetensors")
    save_model(tmp_path / "model", dfvqgan=make())
    asked = {"model": str(tmp_path / "model"), "json": tmp_path / "a.json", "work": tmp_path / "work", "workers": 2}
    evaluate.tokenizer(benchmark.folder, **asked, metrics="fed", lite=tmp_path / "lite.safetensors")  # type: ignore[arg-type]
    report = json.loads((tmp_path / "a.json").read_text())
    assert all(report[name]["fed"] > 0 and report[name]["fed_hole"] > 0 for name in METHODS)
    with pytest.raises(InputError, match="another run"):  # which has no such features
        evaluate.tokenizer(benchmark.folder, **asked)  # type: ignore[arg-type]


def test_photos_of_any_name(benchmark: Benchmark, tmp_path: Path) -> None:
    save_model(tmp_path / "model", dfvqgan=make())
    reports = []
    for name, folder in (("own", benchmark.folder), ("official", official(benchmark, tmp_path / "MaskCOCO"))):
        evaluate.tokenizer(folder, model=str(tmp_path / "model"), json=tmp_path / f"{name}.json")
        reports.append(json.loads((tmp_path / f"{name}.json").read_text()))
    assert reports[0]["oracle"] == reports[1]["oracle"] and reports[0]["distance"] == reports[1]["distance"]


def test_where_nothing_is_known_there_is_no_distance(
    benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [Sample(key=item.name, image=Image.fromarray(item.image), captions=[item.caption]) for item in benchmark]
    out = tmp_path / "bench"
    build_benchmark(samples, source="demo", rule="rectangles-100-100", seed=0, out=out)
    save_model(tmp_path / "model", dfvqgan=make())
    evaluate.tokenizer(out, model=str(tmp_path / "model"), json=tmp_path / "a.json")
    report = json.loads((tmp_path / "a.json").read_text())
    for name in ("distance", "relative_distance", "changed"):
        assert report[name] is None and report["intervals_95"][name] is None
    assert report["usage"] > 0 and report["oracle"]["fsd"] > 0
    shown = capsys.readouterr().out
    assert "average distance -; relative -\n" in shown and "changes with the hole: -\n" in shown


def test_processes_give_the_figures_of_one(benchmark: Benchmark, tmp_path: Path, measured_here: list[str]) -> None:
    save_model(tmp_path / "model", dfvqgan=make())
    reports = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.json"
        evaluate.tokenizer(benchmark.folder, model=str(tmp_path / "model"), json=out, workers=workers)
        reports.append(json.loads(out.read_text()))
    assert measured_here == ["00000", "00001", "00002", "00000", "00002"]  # of two processes, a share each
    one, two = reports
    # a process may have fewer threads, which moves last bits; where decoded pixels are rounded to 8 bits, a last bit
    # becomes a whole step
    for name in ("distance", "relative_distance", "changed", "usage", "perplexity"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    for method in METHODS:
        assert two[method]["psnr"] == pytest.approx(one[method]["psnr"], rel=1e-3)
        assert two[method]["fsd"] == pytest.approx(one[method]["fsd"], rel=1e-3)
    with pytest.raises(InputError, match="--workers 0"):
        evaluate.tokenizer(benchmark.folder, model=str(tmp_path / "model"), workers=0)
