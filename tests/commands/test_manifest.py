"""The manifest of a folder: what became of every photo, over several runs, whatever the names are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.commands.manifest import Manifest
from nuwa_lip.errors import InputError

HOSTILE = "b\x1b[2J\u202e.png"


@pytest.fixture
def inpaint(nuwa_lip: Callable[..., Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, name in enumerate(("a.png", HOSTILE)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{name}")
    Path("photos/broken.png").write_bytes(b"no picture")
    Image.new("RGB", (60, 40)).save("photos/a.bmp")
    return lambda *words: nuwa_lip(
        *("inpaint", "photos", "-o", "out", "--box", 20, 15, 20, 10, "--model", tiny_model),
        *("--prompt", "a bear", "--seed", 5, "--manifest", *words),
    )


def lines() -> list[dict[str, Any]]:
    text = Path("out/manifest.jsonl").read_text()
    assert text.isascii() and "\x1b" not in text
    return [json.loads(line) for line in text.splitlines()]


def test_every_input_has_its_line(inpaint: Any) -> None:
    assert inpaint().code == 1
    found = {record["input"]: record for record in lines()}
    assert found.keys() == {"photos/a.bmp", "photos/a.png", f"photos/{HOSTILE}", "photos/broken.png"}
    states = {name.removeprefix("photos/"): record["state"] for name, record in found.items()}
    assert states == {"a.bmp": "done", "a.png": "failed", HOSTILE: "done", "broken.png": "failed"}
    assert found["photos/a.bmp"]["results"] == ["out/a.png"] and found["photos/a.bmp"]["seeds"] == [5]
    assert "would replace" in found["photos/a.png"]["error"] and "broken.png" in found["photos/broken.png"]["error"]


def test_a_later_run_appends_and_drops_a_torn_line(inpaint: Any) -> None:
    inpaint()
    path = Path("out/manifest.jsonl")
    text = path.read_text()
    path.write_text(text[:-20])  # as of a killed process; the last line is of broken.png
    assert inpaint().code == 1
    assert [record["input"] for record in lines()].count("photos/broken.png") == 1
    path.unlink()
    inpaint()
    assert [record["state"] for record in lines()].count("kept") == 2


def test_a_file_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    for text in ("no JSON\nat all\n", '{"name": 1}\n', "[]\n"):
        path.write_text(text + '{"input": "x"}\n')
        with pytest.raises(InputError, match="rename it"):
            Manifest(path)
        assert path.read_text().startswith(text)
