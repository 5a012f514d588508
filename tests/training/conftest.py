"""Data for the tests of training, made once."""

from pathlib import Path

import pytest
from accelerate import Accelerator

from tests.small_runs import make_cache, make_cpu_accelerator


@pytest.fixture(scope="session")
def cache(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("data") / "tokens", shards)


@pytest.fixture(autouse=True)
def sheets_of_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sheet would take longer than the rest of a run."""
    monkeypatch.setattr("nuwa_lip.training.mps2s.SHEET_STEPS", 2)


@pytest.fixture
def accelerator() -> Accelerator:
    return make_cpu_accelerator()
