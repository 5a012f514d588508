"""Curves of growth and their fits."""

import json
from pathlib import Path

import pytest

from nuwa_lip.bench import decoding, growth
from nuwa_lip.bench.measure import Child
from nuwa_lip.bench.sizes import SMALL, random_mps2s
from nuwa_lip.commands import bench


@pytest.mark.usefixtures("no_processes")
def test_growth(tmp_path: Path) -> None:
    bench.growth(rounds=1, small=True, json=tmp_path / "out.json")
    values = {row["what"]: row["value"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert values["time, candidates, 8 candidates"] > 0
    for what in ("defective tokens", "image size", "candidates", "model size"):
        assert any(name.startswith(f"time, {what}, each further ") for name in values)
        assert any(name.startswith(f"time, {what}, power of its growth by ") for name in values)
    assert "time beyond that, 0.04 megapixels" in values and "memory beyond, each further megapixel" in values


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
    monkeypatch.setattr(growth, "call_apart", lambda _, name, value: Child(1.0, 500 + curve.size(value), ""))
    rows = growth.peaks("model", curve)
    assert rows[0].value == 0 and rows[1].what == "memory beyond the least, model size, 64 channels"
    assert (rows[-1].what, rows[-1].unit) == ("memory, model size, each further million weights", "MB")
    assert rows[-1].value == pytest.approx(1)
