"""Data for the tests of training, made once."""

from pathlib import Path

import pytest
from accelerate import Accelerator

from nuwa_lip.data.photos import PhotoSet
from tests.small_runs import make_cache, make_cpu_accelerator, make_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="session")
def photos(shards: Path) -> PhotoSet:
    return PhotoSet.load(shards, 40)


@pytest.fixture(scope="session")
def cache(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("data") / "tokens", shards)


@pytest.fixture
def accelerator() -> Accelerator:
    return make_cpu_accelerator()
