"""The benchmarks run and report what they say; how fast anything is, is not a test's business."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nuwa_lip.bench import decoding, encoders, growth, stages, tokenizer
from nuwa_lip.bench.compare import changes
from nuwa_lip.bench.measure import Row, Timing, child, children, gflop, interleaved, markdown, times, timing, timings
from nuwa_lip.bench.sizes import SMALL, random_mps2s
from nuwa_lip.commands import bench
from nuwa_lip.errors import InputError
from nuwa_lip.sampling import CHUNK


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
    ]
    assert markdown(rows).splitlines()[2:] == [
        "| good | 1 x | ≤ 1.1 |",
        "| bad | 1.2 x | ≤ 1.1 missed |",
        "| fast | 250 x | ≥ 240 |",
        "| slow | 230 x | ≥ 240 missed |",
        "| free | 2 s |  |",
    ]


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
    before.write_text('{"rows": [{"what": "reading memory, best of ten", "value": 1e-9, "unit": "GB/s"}]}')
    bench.bench(stages=name, rounds=1, small=True, json=out, markdown=tmp_path / "out.md", compare=before)
    report = json.loads(out.read_text())
    assert report["stages"] == [name] and report["rows"]
    values = [row["value"] for row in report["rows"]]
    assert all(isinstance(value, float) for value in values)
    printed = capsys.readouterr()
    assert f"## {name}\n" in printed.out and (tmp_path / "out.md").read_text() in printed.out
    assert ("reading memory, best of ten: 1e-09 →" in printed.out) == (name == "limits")
    assert not [line for line in report["skipped"] if "failed" in line and "static cache" not in line]


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
    assert "time grows with defective tokens to the power of" in values
    growth.once("image", "32", "1")
    assert growth.fit((1, 2, 4), [3.0, 12.0, 48.0]) == pytest.approx(2)


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


def test_a_report_to_compare_with_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        bench.bench(compare=tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="no report of nuwa-lip bench"):
        bench.bench(compare=tmp_path / "other.json")
