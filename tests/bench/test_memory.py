"""Peaks of memory and their bars."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.bench import compare, memory, stages
from nuwa_lip.bench.limits import Limits
from nuwa_lip.bench.measure import Child, machine
from nuwa_lip.bench.sizes import SMALL, Bench
from nuwa_lip.commands import bench


def test_what_the_system_does_not_tell_is_no_end_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no /proc no process's memory is known."""

    def unknown(function: Any, folder: str, *_: object) -> Child:
        if function is memory.save_random:
            (Path(folder) / "model.safetensors").write_bytes(bytes(10**6))
        return Child(1.0, math.nan, '{"added": NaN}')

    monkeypatch.setattr(memory, "call_apart", unknown)
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
    def measured(function: Any, folder: str, *args: object) -> Child:
        if function is memory.save_random:
            (Path(folder) / "model.safetensors").write_bytes(bytes(10**6))
        elif args[0] == "int8":
            raise RuntimeError("no VNNI")
        return Child(1.0, 5000.0, '{"added": 0.2}')

    monkeypatch.setattr(memory, "call_apart", measured)
    monkeypatch.setattr("nuwa_lip.bench.sizes.precisions", lambda device: ["fp32", "bf16"])
    sizes = dataclasses.replace(SMALL, small=False)
    bench_ = Bench(sizes=sizes, limits=Limits(products={}, size=1, read=1.0), rounds=1)
    rows = [(row.what.rpartition(", ")[::2], row.value, row.bar) for row in memory.measure_memory(bench_)]
    peak = "peak of loading and filling a photo"
    assert rows == [
        (("model files", "bf16"), 1.0, None),
        (("peak that loading adds / the files' size", "bf16"), 0.2, 0.1),
        ((peak, "bf16"), 5000, 4500),
        *(((peak, f"bf16 {weights}"), 5000, None) for weights in ("packed", "int4")),
    ]
    assert bench_.skipped == ["memory of bf16 int8: no VNNI"]
