"""`nuwa-lip models` and `pull`: what is at hand, and one line for what is not."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.painters.known import KNOWN, TOKENIZERS
from tests.fake_hub import FakeHub, fake_hub

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
    assert done.code == 2 and "neither a NÜWA-LIP model" in done.err
    assert "is here already" in nuwa_lip("pull", "nuwa-lip-mini").out


def test_what_cannot_be_fetched_is_one_line(nuwa_lip: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    for name in ("some/model", "mimi", "../x"):
        done = nuwa_lip("pull", name)
        assert done.code == 2 and len(done.err.splitlines()) == 1 and name in done.err


FILES = {
    "migan_pipeline_v2.onnx": bytes(range(256)) * 4000,
    "README.md": b"---\nlicense: mit\n---\n# MI-GAN\n",
    "other.bin": b"not asked for",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub("andraniksargsyan/migan", dict(FILES), monkeypatch, tmp_path / "cache") as running:
        yield running


def test_a_known_model_is_fetched_after_its_licence_is_shown(nuwa_lip: Run, hub: FakeHub, tmp_path: Path) -> None:
    assert "migan  to be fetched, eraser, andraniksargsyan/migan, MIT" in nuwa_lip("models", "--known").out
    done = nuwa_lip("pull", "migan")
    assert done.code == 0, done.err
    first, second, last = done.out.splitlines()
    assert "licence MIT" in first and "28 MB" in second
    folder = Path(last.split(": ", 1)[1])
    assert (folder / "migan_pipeline_v2.onnx").read_bytes() == FILES["migan_pipeline_v2.onnx"]
    assert not (folder / "other.bin").exists()
    assert "migan  cached, eraser" in nuwa_lip("models", "--known").out
    listed = {one["name"]: one for one in json.loads(nuwa_lip("models", "--known", "--json").out)}
    assert listed["migan"]["where"] == "cached" and listed["amused-256"]["licence"]
    assert listed["llamagen-vq16"]["use"] == "tokenizer" and listed["sd-1.5"]["use"] == "painter"


def test_a_fetch_goes_on_where_it_stopped(nuwa_lip: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub.break_off = 100_000
    for _ in range(2):  # the library may itself try again
        done = nuwa_lip("pull", "andraniksargsyan/migan")
    assert done.code == 0, done.err
    ranges = [given for method, path, given in hub.asked if method == "GET" and path.endswith(".onnx")]
    assert any(given and given.startswith("bytes=") and given != "bytes=0-" for given in ranges[1:]), ranges


def test_a_damaged_file_is_found_by_its_hash(nuwa_lip: Run, hub: FakeHub) -> None:
    hub.damaged = True
    done = nuwa_lip("pull", "andraniksargsyan/migan")
    assert done.code == 2 and "came damaged and was removed" in done.err
    hub.damaged = False
    assert nuwa_lip("pull", "andraniksargsyan/migan").code == 0


def test_gated_and_offline_say_what_to_put_where(nuwa_lip: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = True
    done = nuwa_lip("pull", "andraniksargsyan/migan")
    assert done.code == 2 and "licence MIT" in done.out and "hf download" in done.err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = nuwa_lip("pull", "amused/amused-256")
    assert done.code == 2 and "*.safetensors" in done.err and len(done.err.splitlines()) == 1


def test_the_licence_of_a_model_of_ours_is_read_from_its_card(
    nuwa_lip: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    files["README.md"] = b"---\nlicense: cc-by-nc-4.0\n---\n"
    with fake_hub("us/tiny", files, monkeypatch, tmp_path / "cache"):
        done = nuwa_lip("pull", "us/tiny")
    assert done.code == 0, done.err
    assert "licence cc-by-nc-4.0" in done.out and "32 x 32 pixels" in done.out


def test_what_could_not_be_used_is_not_fetched(nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"config.json": b'{"architectures": ["Other"]}', "model.safetensors": b"large"}
    with fake_hub("them/large", files, monkeypatch, tmp_path / "cache") as hub:
        done = nuwa_lip("pull", "them/large")
        assert done.code == 2 and "its weights were not fetched" in done.err
        assert not any(path.endswith("model.safetensors") for _, path, _ in hub.asked)


def test_known_models_are_described() -> None:
    others = KNOWN | TOKENIZERS
    assert len({one.id.lower() for one in others.values()}) == len(others) == len(KNOWN) + len(TOKENIZERS)
    for one in others.values():
        assert one.licence and one.needs and re.fullmatch(r"[\d.]+ [MG]B", one.size)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", one.id) and "README.md" in one.patterns
