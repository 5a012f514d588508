"""Figures of the machine, and Weights & Biases on demand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nuwa_lip.errors import InputError
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.watching import in_short, machine_figures, open_wandb


def test_figures_of_the_machine() -> None:
    figures = machine_figures(rate=10.0, flops=2e12, peak=1e14)
    assert figures["mfu"] == pytest.approx(0.2) and figures["memory_gb"] > 0.01
    assert "mfu" not in machine_figures(rate=1.0, flops=2e12, peak=0)


def test_what_a_training_took_is_said_in_a_line() -> None:
    figures = {"hours": 1.5, "memory_gb": 3.04, "images_per_second": 12.34, "waiting": 0.021, "loss": 4.0}
    said = "1.50 h, 3.0 GB, 12.3 samples a second at last, 2.1% of the time waiting for data"
    assert in_short(figures) == said and in_short(figures | {"mfu": 0.35}) == f"{said}, MFU 35%"


def test_weights_and_biases_is_imported_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with RunFolder(tmp_path, 4).logging(1, 0) as log:
        log(1, {"loss": 1.0})
    with pytest.raises(InputError, match="--wandb lip needs Weights & Biases: pip install wandb"):
        open_wandb("lip", tmp_path)


def test_weights_and_biases_gets_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    run = SimpleNamespace(log=lambda figures, step: said.append((step, figures)), finish=lambda: said.append("end"))
    module = SimpleNamespace(init=lambda **words: said.append(words) or run)  # type: ignore[func-returns-value]
    monkeypatch.setitem(sys.modules, "wandb", module)
    with RunFolder(tmp_path, 4, wandb="lip").logging(2, 0) as log:
        log(1, {"loss": 1.5})
    words, (step, figures), end = said
    assert words["project"] == "lip" and words["resume"] == "allow" and "/" not in words["id"]
    assert step == 1 and figures["loss"] == 1.5 and "hours_left" in figures and end == "end"
