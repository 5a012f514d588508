"""Figures on disk: whole or not there, of one run only."""

from pathlib import Path

import numpy as np
import pytest

from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.store import Store

STAMP = {"a/stamp": np.array([1, 2])}


def test_what_is_saved_is_there_for_the_next_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "work", {"seed": 0})
    assert not store.folder.exists() and not store.has(0, STAMP)
    for i in range(3):
        store.save(i, {**STAMP, "a/figures": np.array([i, np.nan])})
    again = Store(tmp_path / "work", {"seed": 0})
    assert again.has(1, STAMP) and not again.has(1, {"a/stamp": np.array([1, 3])})
    found = again.load(3, ["a/figures"])["a/figures"]
    np.testing.assert_array_equal(found, [[i, np.nan] for i in range(3)])
    again.clear()
    assert not again.folder.exists()


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "work", {})
    store.save(0, STAMP)
    (store.folder / "00000.safetensors").write_bytes(b"half")
    assert not store.has(0, STAMP)


def test_another_run_is_refused_or_thrown_away(tmp_path: Path) -> None:
    Store(tmp_path / "work", {"seed": 0}).save(0, STAMP)
    with pytest.raises(InputError, match="figures of another run"):
        Store(tmp_path / "work", {"seed": 1})
    fresh = Store(tmp_path / "work", {"seed": 1}, fresh=True)
    assert not fresh.has(0, STAMP)


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other things"):
        Store(tmp_path, {}, fresh=True)
    model = tmp_path / "model"
    model.mkdir()
    (model / "mps2s.safetensors").write_bytes(b"weights")
    with pytest.raises(InputError, match="holds other things"):
        Store(model, {}, fresh=True)
    with pytest.raises(InputError, match="holds other things"):
        Store(tmp_path / "letter.txt", {})
