"""`nuwa-lip models` and `pull`: what is at hand, and one line for what is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def cache(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one of our models and one of others."""
    folder = tmp_path / "hub"
    for name, config in (("models--us--tiny", None), ("models--them--large", {"architectures": ["Other"]})):
        snapshot = folder / name / "snapshots" / "0123abc"
        if config is None:
            shutil.copytree(tiny_model, snapshot)
        else:
            snapshot.mkdir(parents=True)
            (snapshot / "config.json").write_text(json.dumps(config))
        (folder / name / "refs").mkdir()
        (folder / name / "refs" / "main").write_text("0123abc")
        (folder / name / "blobs").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def test_what_is_at_hand_is_listed(nuwa_lip: Run, cache: Path) -> None:
    done = nuwa_lip("models")
    mini, tiny = done.out.splitlines()
    assert done.code == 0 and mini.startswith("nuwa-lip-mini  bundled, 128 x 128 pixels")
    listed = json.loads(nuwa_lip("models", "--json").out)
    assert [(one["name"], one["where"]) for one in listed] == [("nuwa-lip-mini", "bundled"), ("us/tiny", "cached")]
    assert tiny.startswith("us/tiny  cached, 32 x 32 pixels") and "0123abc" in tiny


def test_without_a_cache_there_is_what_is_bundled(
    nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    assert len(nuwa_lip("models").out.splitlines()) == 1


def test_a_model_is_fetched(nuwa_lip: Run, tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"us/tiny": tiny_model, "them/large": cache / "models--them--large/snapshots/0123abc"}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(folders[name]))
    done = nuwa_lip("pull", "us/tiny")
    assert done.code == 0 and "us/tiny: 32 x 32 pixels" in done.out
    done = nuwa_lip("pull", "them/large")
    assert done.code == 2 and "no NÜWA-LIP model" in done.err
    assert "is here already" in nuwa_lip("pull", "nuwa-lip-mini").out


def test_what_cannot_be_fetched_is_one_line(nuwa_lip: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    for name in ("some/model", "mimi", "../x"):
        done = nuwa_lip("pull", name)
        assert done.code == 2 and len(done.err.splitlines()) == 1 and name in done.err
