"""Quality against parallel steps: the pass that predicts all groups at once, the curve, its comparisons in pairs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.commands import bench
from nuwa_lip.data.benchmark import Benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import steps
from nuwa_lip.evaluation.images import MEANS, SETS, Figures
from nuwa_lip.evaluation.likelihood import caption_bits
from nuwa_lip.evaluation.tokenizers import Squares
from nuwa_lip.hub import load_model
from nuwa_lip.models.groups import group_sizes, rows_of
from nuwa_lip.models.orders import ORDERS, decoding_order, target_tokens
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import sample
from tests.demo_photos import demo_benchmark


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Three of the bundled photos, cut to sizes of their own."""
    crops = {"gull": (0, 0, 48, 48), "riders": (20, 40, 70, 80), "bear": (60, 60, 96, 100)}
    return demo_benchmark(tmp_path / "bench", crops)


@pytest.mark.parametrize(("order", "schedule"), [*((order, "cosine") for order in ORDERS), ("raster", "constant")])
@torch.inference_mode()
def test_groups_predicted_in_one_pass_are_those_of_the_sampler(
    order: str, schedule: str, tiny_pipe: InpaintPipeline
) -> None:
    model, generator = tiny_pipe.mps2s, torch.Generator().manual_seed(0)
    token_mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    token_mask[..., 2:6, 1:6] = token_mask[..., 0, 7] = True
    mask = token_mask.repeat_interleave(4, 2).repeat_interleave(4, 3)
    image = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    tokens = torch.randint(64, (1, 8, 8), generator=generator)
    memory = model.encode(tiny_pipe.tokenizer(["a bear"]), image, mask, tokens, token_mask)
    at = decoding_order(order, token_mask, torch.Generator().manual_seed(4))[None]
    for count in (1, 2, 5, 11, 21):
        seeded = torch.Generator().manual_seed(4)
        how: dict[str, Any] = {"order": order, "schedule": schedule, "num_inference_steps": count}
        drawn, mean = sample(model, memory, generator=seeded, **how)
        targets = target_tokens(drawn, at)
        logits = model.decoder.predict(memory, targets, at, rows_of(group_sizes(21, count, schedule)))
        found = logits.log_softmax(-1).gather(-1, targets[..., None]).mean()
        torch.testing.assert_close(found, mean[0], atol=1e-5, rtol=0)


def test_bits_of_one_token_a_step_are_those_of_the_likelihood(tiny_model: Path, benchmark: Benchmark) -> None:
    pipe = steps.Paced.from_pretrained(tiny_model)
    for item in (Squares(benchmark, pipe.resolution)[i] for i in range(3)):
        one, all_at_once = steps.true_bits(pipe, item, [1, 10**6], "raster", "cosine")
        assert one == pytest.approx(caption_bits(load_model(tiny_model), item, [item.caption])[0], abs=1e-4)
        assert all_at_once != one and all_at_once == pytest.approx(math.log2(64), rel=0.3)


def test_a_step_decides_so_many_tokens_whatever_the_window(tiny_model: Path, benchmark: Benchmark) -> None:
    paced, plain = steps.Paced.from_pretrained(tiny_model), InpaintPipeline.from_pretrained(tiny_model)
    assert isinstance(paced, steps.Paced)
    item, seen = benchmark[0], []
    inputs: dict[str, Any] = {"image": Image.fromarray(item.image), "mask_image": Image.fromarray(item.mask)}
    plain(
        item.caption,
        **inputs,
        num_inference_steps=10**6,
        callback_on_step_end=lambda _, step, total, __: seen.append((step, total)),
    )
    windows = [total for step, total in seen if step == 1]
    for a_step in (1, 3, 10**6):
        paced.steps = 0
        result = paced.repaint(item, a_step, "raster", "cosine", seed=5)
        assert paced.steps == sum(math.ceil(total / a_step) for total in windows)
        if a_step == 1:
            generator = torch.Generator().manual_seed(5)
            same = plain(item.caption, **inputs, num_inference_steps=10**6, order="raster", generator=generator)
            assert (result == np.asarray(same.images[0])).all()


def test_the_curve(
    benchmark: Benchmark, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out, sheet, work = tmp_path / "steps.json", tmp_path / "steps.md", tmp_path / "work"
    repaint, calls = steps.Paced.repaint, []

    def counted(self: steps.Paced, item: Any, a_step: int, *rest: Any) -> np.ndarray:
        calls.append((item.index, a_step))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return repaint(self, item, a_step, *rest)

    monkeypatch.setattr(steps.Paced, "repaint", counted)
    monkeypatch.setattr("sys.argv", ["/bin/nuwa-lip", "bench", "steps", "my photos"])
    options: dict[str, Any] = {"model": str(tiny_model), "tokens": "8, 1,2", "json": out, "markdown": sheet}
    with pytest.raises(KeyboardInterrupt):
        bench.steps(benchmark.folder, **options, work=work)
    bench.steps(benchmark.folder, **options, work=work, shard="2/2")  # of three photos the second, which is there
    assert len(calls) == 7 and not out.exists()
    bench.steps(benchmark.folder, **options, work=work)
    assert calls[6:] == [(2, 1), (2, 1), (2, 2), (2, 8)]  # what was measured is not measured again
    report = json.loads(out.read_text())
    assert (report["n"], report["order"], report["schedule"]) == (3, "raster", "cosine")
    assert report["command"] == "nuwa-lip bench steps 'my photos'"
    one, two, eight = report["points"]
    assert [point["tokens_per_step"] for point in report["points"]] == [1, 2, 8]
    assert one["steps"] > two["steps"] > eight["steps"] and one["known_max_change"] == 0
    for name, exact in (("fsd", 1), ("lpips_squeeze_hole", 1), ("bits", 1), ("krd", 0), ("psnr_hole", 0)):
        assert one["compared"][name] == {"value": exact, "interval_95": [exact, exact]}
    assert eight["compared"]["fsd"]["value"] == pytest.approx(eight["fsd"] / one["fsd"])
    assert eight["compared"]["ssim_hole"]["value"] == pytest.approx(eight["ssim_hole"] - one["ssim_hole"])
    value, (low, high) = eight["compared"]["bits"].values()
    assert low <= value <= high and value == pytest.approx(eight["bits"] / one["bits"])
    shown = capsys.readouterr().out
    assert ", raster order, cosine schedule, n = 3" in shown
    assert sheet.read_text() in shown and f"n = 3, seed 0, benchmark sha256 {benchmark.sha256}" in shown
    lines = sheet.read_text().splitlines()
    assert lines[0].startswith("| tokens a step | steps | s a photo | FSD ↓ | FSD, times |")
    assert "≤ 1.05" in lines[4] and "≤ 1.05" not in lines[3]
    with pytest.raises(InputError, match="holds figures of another run"):
        bench.steps(benchmark.folder, **options | {"tokens": "1,4"}, work=work)


def test_by_confidence_there_are_pictures_and_no_bits(
    benchmark: Benchmark, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "steps.json"
    bench.steps(benchmark.folder, model=str(tiny_model), tokens="1,8", schedule="confidence", json=out, limit=2)
    report = json.loads(out.read_text())
    one, eight = report["points"]
    assert report["schedule"] == "confidence" and one["bits"] is eight["bits"] is None
    assert one["steps"] > eight["steps"] and one["known_max_change"] == 0
    assert "bits" not in eight["compared"] and eight["fsd"] > 0
    assert ", raster order among equals, confidence schedule, n = 2" in capsys.readouterr().out


def test_the_bar_is_against_one_token_a_step(
    benchmark: Benchmark, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tokens, held in (("1,8", True), ("4,8", False)):
        bench.steps(benchmark.folder, model=str(tiny_model), tokens=tokens, limit=2, json=tmp_path / f"{tokens}.json")
        last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 8 |")]
        assert ("≤ 1.05" in last[0]) == held


def test_what_cannot_be_measured_is_named(benchmark: Benchmark) -> None:
    for tokens in ("", "0,1", "1;2", "two"):
        with pytest.raises(InputError, match=f"--tokens '{tokens}' is not numbers from 1 on"):
            bench.steps(benchmark.folder, tokens=tokens)
    with pytest.raises(InputError, match="--limit 1 is too small"):
        bench.steps(benchmark.folder, limit=1)
    with pytest.raises(InputError, match="--shard needs --work"):
        bench.steps(benchmark.folder, shard="1/2")
    for option in ("json", "markdown"):
        with pytest.raises(InputError, match="is a folder; name a file"):
            bench.steps(benchmark.folder, model="nowhere/model", **{option: benchmark.folder})  # told before that


def test_repeated_photos_do_not_narrow_the_interval_of_a_ratio_of_sets() -> None:
    """A resample lifts both distances by as much, which would draw their ratio towards 1."""

    def figures(fsd: float, lifted: float) -> Figures:
        resampled = dict.fromkeys(SETS, fsd + lifted + np.array([-0.2, 0.1, 0.1]) * fsd)
        means = dict.fromkeys(MEANS, 1.0)
        sets = dict.fromkeys(SETS, fsd)
        return Figures(n=2, sets=sets, means=means, intervals={}, resampled=resampled, known_max_change=0)

    rows = np.ones((2, len(MEANS)))
    plain, lifted = (
        steps.compare(figures(2.0, by), replace(figures(3.0, by), resampled=figures(2.0, by).resampled), rows, rows)
        for by in (0.0, 50.0)
    )
    assert plain["fsd"][0] == lifted["fsd"][0] == 1.5
    assert lifted["fsd"][1] == pytest.approx(plain["fsd"][1]) and lifted["krd"][1] == pytest.approx(plain["krd"][1])
    assert lifted["fsd"][1][1] - lifted["fsd"][1][0] > 0.1
