"""Reports of the same settings are compared, beyond their noise."""

import json
from pathlib import Path

import pytest

from nuwa_lip.bench import stages
from nuwa_lip.bench.compare import changes, differences
from nuwa_lip.bench.measure import Row, machine
from nuwa_lip.commands import bench
from nuwa_lip.errors import InputError


def test_changes_within_the_noise_are_not_reported() -> None:
    old = [Row(what=w, value=10.0, unit="ms", noise=0.05) for w in ("same", "noisy", "slower", "gone")]
    new = [
        Row(what="same", value=10.2, unit="ms"),
        Row(what="noisy", value=12.0, unit="ms", noise=0.2),
        Row(what="slower", value=12.0, unit="ms", noise=0.05),
        Row(what="new", value=1.0, unit="ms"),
    ]
    assert changes(old, new) == ["slower: 10 → 12 ms (+20%)"]


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
