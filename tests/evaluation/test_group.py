"""Photos that processes share as torchrun starts them: the figures are those of one process, and the first reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.commands import evaluate
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.group import Group
from nuwa_lip.evaluation.store import Store
from tests.demo_photos import demo_benchmark
from tests.processes import together


def measure(benchmark: Path, model: Path, folder: Path) -> None:
    """Measure in this process of several, and note what it has measured and printed."""
    import contextlib
    import io
    import os

    kept: list[str] = []
    save = Store.save

    def noted(store: Store, name: str, arrays: Any) -> None:
        kept.append(name)
        save(store, name, arrays)

    Store.save = noted  # type: ignore[method-assign]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        evaluate.images(benchmark, model=str(model), seed=3, json=folder / "report.json")
    report = {"kept": kept, "out": out.getvalue()}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report))


def test_two_processes_have_the_figures_of_one(tiny_model: Path, tmp_path: Path) -> None:
    crops = {"gull": (0, 0, 64, 64), "bear": (60, 60, 124, 110), "riders": (20, 40, 84, 104)}
    benchmark = demo_benchmark(tmp_path / "bench", crops).folder
    evaluate.images(benchmark, model=str(tiny_model), seed=3, json=tmp_path / "alone.json")
    together(2, tmp_path, measure, benchmark, tiny_model, tmp_path)
    ours, alone = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("report", "alone"))
    assert {**ours, "command": ""} == {**alone, "command": ""}
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first["kept"] == [0, 2] and second["kept"] == [1]
    assert "n = 3" in first["out"] and not second["out"]
    assert not (tmp_path / "report.json.work").exists()


def test_what_only_other_machines_see_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    with pytest.raises(InputError, match="lacks photo 0, .* give --work DIR"):
        Group(0, 2).wait(Store(tmp_path / "work", {}), 2)


def test_a_process_that_has_ended_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise RuntimeError("[gloo] Connection closed by peer\nand a stack")

    monkeypatch.setattr("torch.distributed.barrier", gone)
    with pytest.raises(RuntimeError, match="^another process has ended.*closed by peer.*go on from there$"):
        Group(0, 2).wait(Store(tmp_path / "work", {}), 2)


def test_torchrun_and_other_ways_to_share_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nuwa_lip: Callable[..., Any]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = nuwa_lip("evaluate", "images", tmp_path, "--baseline", "telea", "--shard", "1/2", "--work", tmp_path / "w")
    assert done.code == 2 and "torchrun shares the photos" in done.err
