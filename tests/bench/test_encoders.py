"""Encoding: ratios at equal operations, and the hole's cost."""

import json
from pathlib import Path

import pytest
import torch

from nuwa_lip.bench import encoders
from nuwa_lip.bench.measure import Timing
from nuwa_lip.commands import bench


def test_a_ratio_at_equal_operations_knows_nothing_of_size() -> None:
    x = torch.zeros(4, 8)
    cases = {"small": lambda: x @ x.T, "large": lambda: [x @ x.T for _ in range(3)]}
    found = {"small": Timing(2.0, 0.1), "large": Timing(6.0, 0.2)}
    small, large = (encoders.per_gflop(cases, found, (name,)) for name in cases)
    assert small.seconds == pytest.approx(large.seconds) and large.noise == 0.2


def test_a_hole_costs_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, by two processes; bfloat16's are started alike."""
    monkeypatch.setattr("nuwa_lip.bench.sizes.precisions", lambda device: ["fp32"])
    bench.bench(stages="tokenizer", rounds=1, small=True, json=tmp_path / "out.json", markdown=tmp_path / "out.md")
    report = json.loads((tmp_path / "out.json").read_text())
    values = {row["what"]: row["value"] for row in report["rows"]}
    for what in ("defect-free / plain, time, fp32", "plain / diffusers VQModel, time, fp32"):
        assert values[what] > 0
    assert 0.9 < values["defect-free / plain, memory, fp32"] < 1.2
    assert report["threads"] >= 1
    assert capsys.readouterr().out == (tmp_path / "out.md").read_text()
