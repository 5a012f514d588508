"""Time and memory are those of the work alone; how fast anything is, is not a test's business."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from nuwa_lip.bench.measure import Row, Timing, child, children, gflop, markdown, times, timing, timings


def test_timings_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    found = timings({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert set(found) == {"a", "b"} and min(timing.seconds for timing in found.values()) >= 0


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


def test_operations_are_counted_with_those_of_attention() -> None:
    x, weight = torch.zeros(2, 3, 8, 16), torch.zeros(5, 16)
    with torch.inference_mode():
        assert gflop(lambda: F.linear(x, weight)) * 1e9 == pytest.approx(2 * 2 * 3 * 8 * 16 * 5)
        attention = gflop(lambda: F.scaled_dot_product_attention(x, x, x))
        assert attention * 1e9 == pytest.approx(2 * 2 * 2 * 3 * 8 * 8 * 16)
