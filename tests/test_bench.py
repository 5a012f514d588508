"""The benchmarks run and report what they say; how fast anything is, is not a test's business."""

import json
from pathlib import Path

import pytest

from nuwa_lip.bench import tokenizer
from nuwa_lip.bench.measure import Row, child, children, interleaved, markdown
from nuwa_lip.commands import bench
from nuwa_lip.errors import InputError


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
    rows = [Row(what="good", value=1.0, unit="x", bar=1.1), Row(what="bad", value=1.2, unit="x", bar=1.1)]
    good, bad = markdown(rows).splitlines()[2:]
    assert good == "| good | 1 x | ≤ 1.1 |"
    assert bad == "| bad | 1.2 x | ≤ 1.1 missed |"


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
