"""The benchmarks run and report what they say; how fast anything is, is not a test's business."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from nuwa_lip.assets import asset
from nuwa_lip.bench import (
    compare,
    decoding,
    encoders,
    evaluation,
    growth,
    inpaint,
    memory,
    official,
    peers,
    quality,
    stages,
    tokenizer,
    training,
    whole,
)
from nuwa_lip.bench.compare import changes, differences
from nuwa_lip.bench.limits import Limits, has_bf16
from nuwa_lip.bench.measure import (
    Child,
    Row,
    Timing,
    child,
    children,
    gflop,
    interleaved,
    machine,
    markdown,
    times,
    timing,
    timings,
)
from nuwa_lip.bench.sizes import SMALL, Bench, photo, random_dfvqgan, random_mps2s
from nuwa_lip.commands import bench
from nuwa_lip.data.benchmark import read_benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.models.perceptual import squeezenet
from nuwa_lip.sampling.loop import CHUNK
from nuwa_lip.training.dfvqgan import SQUEEZENET
from tests.fake_gpu import GPU, fake_gpu


def test_interleaved_takes_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert set(times) == {"a", "b"} and min(times.values()) >= 0


def test_memory_is_that_of_the_process_alone() -> None:
    hoard = bytearray(400_000_000)  # must not count against the processes started from here
    done = children({"little": ("pass",), "much": ("x = bytearray(int(__import__('sys').argv[1]))", "200000000")}, 1)
    del hoard
    assert done["little"].peak_mb < 100
    assert 190 < done["much"].peak_mb - done["little"].peak_mb < 220


def test_memory_of_workers_is_added_to_that_of_the_process() -> None:
    code = """
import subprocess, sys, time
x = bytearray(50_000_000)
if int(sys.argv[2]):
    subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[1], str(int(sys.argv[2]) - 1)], check=True)
time.sleep(0.5)  # until it is looked at
"""
    alone, all_three = child(code, code, "2"), child(code, code, "2", workers=True)
    assert alone.peak_mb < 100
    assert 100 < all_three.peak_mb - alone.peak_mb < 160
    assert child("pass", workers=True).peak_mb < 50


def test_a_failing_process_is_reported_by_its_last_line() -> None:
    with pytest.raises(RuntimeError, match="ValueError: broken"):
        child("raise ValueError('broken')")


def test_markdown_says_which_bars_are_missed() -> None:
    rows = [
        Row(what="good", value=1.0, unit="x", bar=1.1),
        Row(what="bad", value=1.2, unit="x", bar=1.1),
        Row(what="fast", value=250.0, unit="x", bar=240, at_least=True),
        Row(what="slow", value=230.0, unit="x", bar=240, at_least=True),
        Row(what="free", value=2.0, unit="s"),
        Row(what="unknown", value=math.nan, unit="MB", bar=700),
        Row(what="unknown too", value=math.nan, unit="x", bar=2, at_least=True),
        Row(what="free and unknown", value=math.nan, unit="MB"),
    ]
    assert [row.missed for row in rows] == [False, True, False, True, False, True, True, False]
    assert markdown(rows).splitlines()[2:] == [
        "| good | 1 x | ≤ 1.1 |",
        "| bad | 1.2 x | ≤ 1.1 missed |",
        "| fast | 250 x | ≥ 240 |",
        "| slow | 230 x | ≥ 240 missed |",
        "| free | 2 s |  |",
        "| unknown | not measured | ≤ 700 missed |",
        "| unknown too | not measured | ≥ 2 missed |",
        "| free and unknown | not measured |  |",
    ]


def test_the_divergence_of_a_form_stands_beside_its_speed() -> None:
    known = Row(what="step, bf16 int8", value=2.0, unit="ms", divergence=0.00123)
    rows = [known, Row(what="peer", value=3.0, unit="ms")]
    assert markdown(rows).splitlines() == [
        "| what | measured | bar | divergence, nats a token |",
        "|---|---:|---:|---:|",
        "| step, bf16 int8 | 2 ms |  | 0.0012 |",
        "| peer | 3 ms |  | |",
    ]
    limits = Limits(products={}, size=1, read=1.0)
    bench_ = Bench(sizes=SMALL, limits=limits, rounds=1)
    exact = quality.beside(bench_, rows, "fp32", None)
    assert [row.divergence for row in exact] == [None, None] and not bench_.losses
    few = quality.beside(bench_, rows, "fp32", "int4")
    assert few[0].divergence == few[1].divergence == bench_.losses["fp32 int4"].divergence > 0  # type: ignore[union-attr]


def test_timings_repeat_what_is_short_and_tell_the_noise() -> None:
    calls: list[str] = []
    timings({"a": lambda: calls.append("a")}, rounds=2, least=1e-3)
    assert len(calls) > 100
    calls.clear()
    timings({"a": lambda: calls.append("a")}, rounds=2, warm_up=False)
    assert calls == ["a"] * 2
    assert timing([1.0, 2.0, 5.0]) == Timing(2.0, 1.0)
    ratio = times("slow / fast", Timing(6.0, 0.1), Timing(2.0, 0.2), bar=2.5)
    assert (ratio.value, ratio.at_least, ratio.missed) == (3.0, True, False)
    assert ratio.noise == pytest.approx(0.3)


def test_timings_by_another_clock() -> None:
    ticks = itertools.count(0, 3)
    found = timings({"a": lambda: None, "b": lambda: next(ticks)}, rounds=2, clock=lambda: next(ticks))
    assert found == {"a": Timing(3.0, 0.0), "b": Timing(6.0, 0.0)}


def test_changes_within_the_noise_are_not_reported() -> None:
    old = [Row(what=w, value=10.0, unit="ms", noise=0.05) for w in ("same", "noisy", "slower", "gone")]
    new = [
        Row(what="same", value=10.2, unit="ms"),
        Row(what="noisy", value=12.0, unit="ms", noise=0.2),
        Row(what="slower", value=12.0, unit="ms", noise=0.05),
        Row(what="new", value=1.0, unit="ms"),
    ]
    assert changes(old, new) == ["slower: 10 → 12 ms (+20%)"]


@pytest.mark.parametrize("name", stages.STAGES)
def test_every_stage_runs_small(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "LEAST", 0.0)
    out, before = tmp_path / "out.json", tmp_path / "before.json"
    rows = [{"what": "reading memory, best of ten", "value": 1e-9, "unit": "GB/s"}]
    before.write_text(json.dumps({**machine(), **stages.settings(small=True), "rows": rows}))
    bench.bench(stages=name, rounds=1, small=True, json=out, markdown=tmp_path / "out.md", compare=before)
    report = json.loads(out.read_text())
    assert report["stages"] == [name] and report["rows"]
    values = [row["value"] for row in report["rows"]]
    assert all(isinstance(value, float) for value in values)
    printed = capsys.readouterr()
    assert f"## {name}\n" in printed.out and (tmp_path / "out.md").read_text() in printed.out
    assert ("reading memory, best of ten: 1e-09 →" in printed.out) == (name == "limits")
    assert not [line for line in report["skipped"] if "failed" in line and "static cache" not in line]
    timed = [row for row in report["rows"] if "bf16 int4" in row["what"] and row["unit"] in ("ms", "s")]
    assert all(row["divergence"] > 0 for row in timed)
    assert timed or name not in ("step", "image") or not has_bf16()
    if name == "quality":
        figures = {row["what"].rpartition(", ")[2] for row in report["rows"]}
        assert {"increase of the loss", "divergence"} <= figures and "loss" not in figures
    assert not differences(report, {**machine(), **stages.settings(small=True)})


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", ["limits", "tokenizer", "encoders", "step", "image", "training"])
def test_every_stage_stays_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it is computed, but what would be mixed with the CPU, or left on it, fails."""
    weights = load_file(asset(SQUEEZENET))
    monkeypatch.setattr(decoding, "LEAST", 0.0)
    monkeypatch.setattr(decoding, "against_generate", lambda *_: [])  # it asks what is in tensors, for ever
    monkeypatch.setattr(whole, "pipelines", lambda _: [])
    monkeypatch.setattr(quality, "measure", lambda *_: None)
    monkeypatch.setattr(training, "child", lambda *_: Child(1.0, 1.0, "7.0"))
    monkeypatch.setattr(peers, "optional", lambda *_: None)
    with fake_gpu(monkeypatch, SMALL.defective):
        states = {key: torch.empty(weight.shape) for key, weight in weights.items()}
        monkeypatch.setattr(training, "load_perceptual", lambda _: squeezenet(states))
        found, skipped = stages.run([name], 1, small=True, device=GPU)
    rows = {row.what: row for row in found[name]}
    assert rows and not skipped
    bars = {what: row.bar for what, row in rows.items() if row.bar is not None}
    if name == "step":
        share = "share of the rate of reading, bf16 compiled"
        assert bars == {
            f"{share}, 1 candidate, 32 tokens": 0.35,
            f"{share}, layers of a 7 B model, 1 candidate, 32 tokens": 0.7,
        }
    elif name == "training":
        assert bars == {"training step, stage 2, ours, compiled: share of the matrix rate, bf16": 0.45}
        assert [row.value for row in rows.values() if row.unit == "MB"] == [7.0, 7.0]
    else:
        assert not bars, "those of two CPU cores mean nothing here"


def test_the_cpu_keeps_its_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.limits, "measure", lambda *_: Limits(products={}, size=1, read=1.0))
    monkeypatch.setattr(stages.limits, "settle", lambda _: None)
    found, skipped = stages.run(["data", "evaluation"], 1, small=True, device=GPU)
    assert not found and [line.partition(":")[0] for line in skipped] == ["data", "evaluation"]


def test_what_the_system_does_not_tell_is_no_end_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no /proc no process's memory is known."""

    def unknown(code: str, folder: str, *_: str) -> Child:
        if code == memory.SAVE:
            (Path(folder) / "model.safetensors").write_bytes(bytes(10**6))
        return Child(1.0, math.nan, '{"added": NaN}')

    monkeypatch.setattr(memory, "child", unknown)
    monkeypatch.setattr("nuwa_lip.bench.sizes.precisions", lambda device: ["fp32", "bf16"])
    out = tmp_path / "out.json"
    for before in (None, out):  # which is read back, too
        bench.bench(stages="memory", rounds=1, small=True, json=out, compare=before)
        values = [row["value"] for row in json.loads(out.read_text())["rows"]]
        assert values == [1.0, None, None, None]
        assert capsys.readouterr().out.count("| not measured |") == 3
    known = compare.read(out, {**machine(), **stages.settings(small=True)})
    assert [row.value for row in known[:1]] == [1.0] and all(math.isnan(row.value) for row in known[1:])


def test_memory_is_held_to_its_bars_at_the_official_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(code: str, folder: str, *words: str) -> Child:
        if code == memory.SAVE:
            (Path(folder) / "model.safetensors").write_bytes(bytes(10**6))
        elif words[0] == "int8":
            raise RuntimeError("no VNNI")
        return Child(1.0, 5000.0, '{"added": 0.2}')

    monkeypatch.setattr(memory, "child", measured)
    monkeypatch.setattr("nuwa_lip.bench.sizes.precisions", lambda device: ["fp32", "bf16"])
    sizes = dataclasses.replace(SMALL, small=False)
    bench_ = Bench(sizes=sizes, limits=Limits(products={}, size=1, read=1.0), rounds=1)
    rows = [(row.what.rpartition(", ")[::2], row.value, row.bar) for row in memory.run(bench_)]
    peak = "peak of loading and filling a photo"
    assert rows == [
        (("model files", "bf16"), 1.0, None),
        (("peak that loading adds / the files' size", "bf16"), 0.2, 0.1),
        ((peak, "bf16"), 5000, 4500),
        *(((peak, f"bf16 {weights}"), 5000, None) for weights in ("packed", "int8-weights", "int4")),
    ]
    assert bench_.skipped == ["memory of bf16 int8: no VNNI"]


def test_the_bundled_model_is_held_to_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Child(1.0, 1.0, "")
    monkeypatch.setattr(inpaint, "own_work", lambda *_: 1.5)
    monkeypatch.setattr(inpaint, "children", lambda cases, rounds: dict.fromkeys(cases, done))
    monkeypatch.setattr(peers, "optional", lambda *_: None)
    limits = Limits(products={}, size=1, read=1.0)
    alone = inpaint.run("nuwa-lip-mini", 1, (48, 32))[0]
    beside = whole.pipelines(Bench(sizes=SMALL, limits=limits, rounds=1))[0]
    for row in (alone, beside):
        assert (row.value, row.bar, row.missed) == (1.5, 1.0, True)


def test_evaluation_is_held_to_its_bars_at_the_official_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def measured(code: str, *args: str, workers: bool) -> Child:
        benchmark, results = read_benchmark(Path(args[2])), Path(args[4])
        for item in benchmark:
            finished = np.asarray(Image.open(results / f"{item.name}.png"))
            changed = (finished != item.image).any(-1)
            assert finished.shape == (32, 32, 3) and changed.any() and not changed[~item.mask].any()
        calls.append((len(benchmark), len(list(results.iterdir())), args[5:], workers))
        return Child(200.0 + 100 * len(calls), 1000.0 * len(calls), "")

    monkeypatch.setattr(evaluation, "child", measured)
    monkeypatch.setattr(evaluation, "timings", lambda cases, rounds, clock: dict.fromkeys(cases, Timing(0.1, 0.2)))
    limits = Limits(products={}, size=1, read=1.0)
    rows = evaluation.run(Bench(sizes=dataclasses.replace(SMALL, small=False), limits=limits, rounds=5))
    assert calls == [(4, 4, ("--workers", "2"), True)] * 2
    *built, time, memory = rows
    rules = ("rectangles", "block", "strokes", "border", "centre")
    assert [row.what for row in built] == [f"building a benchmark, {rule}-40-60, in a CPU second" for rule in rules]
    assert all((row.value, row.bar, row.at_least, row.missed, row.noise) == (40, 60, True, True, 0.2) for row in built)
    assert (time.value, time.bar, time.missed) == (350, 240, True)
    assert (memory.value, memory.bar, memory.missed) == (2000, 2000, False)
    small = evaluation.run(Bench(sizes=SMALL, limits=limits, rounds=1))
    assert not any(row.bar or row.at_least for row in small)


@torch.inference_mode()
def test_the_official_way_of_encoding_gives_the_same_known_part_at_twice_the_work() -> None:
    model = random_dfvqgan(SMALL.dfvqgan, "fp32")
    image, mask = tokenizer.picture(model.config.resolution)
    mask = torch.zeros_like(mask)
    mask[..., 5:17, 3:20] = mask[..., 28, 30] = True
    ours = model.encode(image, mask)
    for unbiased, error in ((False, 1e-5), (True, 5e-3)):  # n - 1 in place of n, the one known difference
        theirs = official.masked_encode(model, image, mask, unbiased=unbiased)
        assert ours.skips is not None and theirs.skips is not None
        assert ours.token_mask is not None and torch.equal(ours.token_mask, theirs.token_mask)
        pairs = [*zip(ours.skips, theirs.skips, strict=True)]
        pairs.append(((ours.latents, ours.token_mask), (theirs.latents, theirs.token_mask)))
        for (a, m), (b, n) in pairs:
            assert torch.equal(m, n) and (a - b).masked_fill(m, 0).abs().max() < error
            assert not unbiased or a is ours.skips[0][0] or (a - b).masked_fill(m, 0).abs().max() > 1e-5
    known = ~ours.token_mask[:, 0]
    assert torch.equal(ours.tokens[known], official.masked_encode(model, image, mask, unbiased=False).tokens[known])
    once = gflop(lambda: model.encode(image, mask))
    assert 1.9 < gflop(lambda: official.masked_encode(model, image, mask)) / once <= 2


@torch.inference_mode()
def test_a_token_of_the_official_pattern_runs_the_whole_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_mps2s(SMALL.mps2s, "fp32")
    inputs = photo(SMALL.mps2s)
    fused, attention = [], F.scaled_dot_product_attention

    def look(*args: Tensor, **options: Any) -> Tensor:
        fused.append(torch.backends.cuda.flash_sdp_enabled())
        return attention(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", look)
    everything = official.token(model, inputs)
    assert everything.shape == (1, 64, 64)
    assert len(fused) == 1 + 1 + 1 + 2 * 2 and not any(fused), "attention is written out, in every layer"
    order = torch.arange(64)[None]
    half = model.predict(model.encode(*inputs), inputs[3].flatten(1)[:, :32], order[:, :32])
    torch.testing.assert_close(half, everything[:, :32])


def test_each_form_is_compared_with_the_tokens_before_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(whole, "once", lambda work: float(next(seconds)))
    cases = ("one", "parallel", "loop", "parallel loop")
    monkeypatch.setattr(whole, "one_form", lambda *given, **graph: {case: Timing(2.0, 0.0) for case in cases})
    monkeypatch.setattr(whole, "form", lambda *given, **compiled: None)
    monkeypatch.setattr(quality, "measure", lambda *given: None)
    bench = Bench(sizes=SMALL, limits=Limits(products={}, size=1, read=1.0), rounds=1)
    rows = [row for row in whole.forms(bench) if row.what.startswith("official pattern / ours, one")]
    # call 0 warms up; between 1 and 2 is the first form
    assert [row.value for row in rows] == [(i + 1.5) * SMALL.defective / 2 for i in range(len(rows))]
    assert len(rows) > 2


def test_the_bytes_of_a_step_are_those_of_its_layers() -> None:
    model = random_mps2s(SMALL.mps2s, "fp32")
    layers = [layer for block in model.decoder.layers for layer in decoding.layers_of(block)]
    weights = sum(p.numel() * 4 for layer in [*layers, model.embedding] for p in layer.parameters())
    memory = 32 + 16 + 64  # caption, patches, tokens
    assert decoding.step_bytes(model, None, 1, 10) == weights + 2 * 2 * 32 * (memory + 10) * 4


def test_candidates_of_a_measured_step_differ_and_fillers_do_not() -> None:
    model = random_mps2s(SMALL.mps2s, "fp32")
    for candidates in (1, 3):
        logits = decoding.step(model, decoding.empty_cache(model, candidates, 4), candidates, 2)()
        assert len(logits) == CHUNK and len(logits.flatten(1).unique(dim=0)) == candidates


def test_operations_are_counted_with_those_of_attention() -> None:
    x, weight = torch.zeros(2, 3, 8, 16), torch.zeros(5, 16)
    with torch.inference_mode():
        assert gflop(lambda: F.linear(x, weight)) * 1e9 == pytest.approx(2 * 2 * 3 * 8 * 16 * 5)
        attention = gflop(lambda: F.scaled_dot_product_attention(x, x, x))
        assert attention * 1e9 == pytest.approx(2 * 2 * 2 * 3 * 8 * 8 * 16)


def test_a_ratio_at_equal_operations_knows_nothing_of_size() -> None:
    x = torch.zeros(4, 8)
    cases = {"small": lambda: x @ x.T, "large": lambda: [x @ x.T for _ in range(3)]}
    found = {"small": Timing(2.0, 0.1), "large": Timing(6.0, 0.2)}
    small, large = (encoders.per_gflop(cases, found, (name,)) for name in cases)
    assert small.seconds == pytest.approx(large.seconds) and large.noise == 0.2


def test_growth(tmp_path: Path) -> None:
    bench.growth(rounds=1, small=True, json=tmp_path / "out.json")
    values = {row["what"]: row["value"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert values["time, candidates, 8 candidates"] > 0
    for what in ("defective tokens", "image size", "candidates", "model size"):
        assert any(name.startswith(f"time, {what}, each further ") for name in values)
        assert any(name.startswith(f"time, {what}, power of its growth by ") for name in values)
    assert "time beyond that, 0.04 megapixels" in values and "memory beyond, each further megapixel" in values
    growth.once("image", "32", "1")


def test_fits_of_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    assert growth.power((1, 2, 4), [3.0, 12.0, 48.0]) == pytest.approx(2)
    assert growth.slope((1, 2, 4), [5.0, 7.0, 11.0]) == pytest.approx(2)
    assert growth.linear_share((1, 2, 4), [7.0, 18.0, 52.0]) == pytest.approx(5 * 4 / 52)  # 5 x + 2 x²
    curve = growth.curves(small=True)["model"]
    config = growth.widened(SMALL.mps2s, 64)
    model = random_mps2s(config, "fp32")
    layers = [layer for block in model.decoder.layers for layer in decoding.layers_of(block)]
    read = sum(p.numel() for layer in [*layers, model.embedding] for p in layer.parameters())
    assert curve.size(64) == pytest.approx(read / 1e6)
    monkeypatch.setattr(growth, "child", lambda code, name, value, small: Child(1.0, 500 + curve.size(int(value)), ""))
    rows = growth.peaks("model", curve, small=True)
    assert rows[0].value == 0 and rows[1].what == "memory beyond the least, model size, 64 channels"
    assert (rows[-1].what, rows[-1].unit) == ("memory, model size, each further million weights", "MB")
    assert rows[-1].value == pytest.approx(1)


def test_tokenizer_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = tokenizer.run
    monkeypatch.setattr(tokenizer, "run", lambda rounds: run(rounds, "tiny"))
    bench.tokenizer(rounds=1, json=tmp_path / "out.json", markdown=tmp_path / "out.md")
    report = json.loads((tmp_path / "out.json").read_text())
    values = {row["what"]: row["value"] for row in report["rows"]}
    for what in ("defect-free / plain, time, fp32", "plain / diffusers VQModel, time, fp32"):
        assert values[what] > 0
    assert 0.9 < values["defect-free / plain, memory, fp32"] < 1.2
    assert report["threads"] >= 1
    assert capsys.readouterr().out == (tmp_path / "out.md").read_text()


def test_bad_numbers_are_named() -> None:
    with pytest.raises(InputError, match="--rounds 0"):
        bench.tokenizer(rounds=0)
    with pytest.raises(InputError, match="--threads 0"):
        bench.inpaint(threads=0)
    with pytest.raises(InputError, match="'speed'; there are: limits, tokenizer"):
        bench.bench(stages="limits,speed")
    for name, says in (
        ("gpu", "cannot be used: Expected one of cpu"),
        ("meta", "cannot be measured: take cpu or cuda"),
    ):
        with pytest.raises(InputError, match=f"--device {name} {says}"):
            bench.bench(device=name)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda cannot be used: .*"):
            bench.bench(device="cuda")


@pytest.mark.parametrize("option", ["json", "markdown"])
@pytest.mark.parametrize("command", ["bench", "growth", "tokenizer", "inpaint"])
def test_a_report_that_cannot_be_written_is_told_before_the_work(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (stages, growth, tokenizer, inpaint):
        monkeypatch.setattr(stage, "run", lambda *_, **__: pytest.fail("there was work"))
    (tmp_path / "file").touch()
    for path, says in ((tmp_path, "is a folder; name a file"), (tmp_path / "file/x", "cannot write .*not a directory")):
        with pytest.raises(InputError, match=says):
            getattr(bench, command)(**{option: path})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_report_to_compare_with_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        bench.bench(compare=tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="no report of nuwa-lip bench"):
        bench.bench(compare=tmp_path / "other.json")


def test_only_like_is_compared_with_like(tmp_path: Path) -> None:
    now, path = {**machine(), **stages.settings(small=True)}, tmp_path / "old.json"
    path.write_text(json.dumps({**now, "load_before": 9.0, "rows": []}))
    assert differences(json.loads(path.read_text()), now) == []
    path.write_text(json.dumps({**now, "threads": 77, "torch": "2.0.0", "cpu": "an abacus", "cpus": 9, "rows": []}))
    with pytest.raises(InputError) as error:
        bench.bench(stages="limits", small=True, compare=path)
    text = str(error.value)
    assert f"threads 77, now {now['threads']}; torch 2.0.0, now " in text and text.count("\n") == 0
    assert "cpu an abacus, now " in text and "and 1 more: measure both in one setting" in text
    assert differences(stages.settings(small=False) | machine(), now)[0] == "small False, now True"
    path.write_text('{"rows": []}')
    with pytest.raises(InputError, match="it does not say its small, threads, torch, cpu, cpus, precisions, sizes"):
        bench.bench(stages="limits", small=True, compare=path)
