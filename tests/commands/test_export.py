"""`nuwa-lip export`: a folder of files, or one line and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_a_folder_is_made_once(nuwa_lip: Run, tiny_model: Path, tmp_path: Path) -> None:
    done = nuwa_lip("export", tiny_model, "--format", "diffusers", "-o", tmp_path / "out")
    assert done.code == 0 and "pipeline.py" in done.out
    done = nuwa_lip("export", tiny_model, "-o", tmp_path / "out")
    assert done.code == 2 and "exists already" in done.err
    done = nuwa_lip("export", "no/such/model", "--format", "torch", "-o", tmp_path / "other")
    assert done.code == 2 and not (tmp_path / "other").exists()
