"""`nuwa-lip demo`: one sheet of the bundled photos, at a place that is printed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nuwa_lip.assets import asset

Run = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sheet_of_all_photos(nuwa_lip: Run, tiny_model: Path, here: Path) -> None:
    done = nuwa_lip("demo", "--model", tiny_model)
    captions = json.loads(asset("demo/captions.json").read_text())
    others = json.loads(asset("demo/other_captions.json").read_text())
    assert len([name for name in others if name in captions and len(others[name]) >= 2]) >= 3
    assert all(caption in done.out for name in others for caption in others[name])
    assert done.code == 0 and all(caption in done.out for caption in captions.values())
    assert done.out.splitlines()[-1] == f"the sheet is {here / 'demo.png'}"
    sheet = Image.open(here / "demo.png")
    assert sheet.width > 5 * 256 and sheet.height > len(captions) * 150
    first = (here / "demo.png").read_bytes()
    assert nuwa_lip("demo", "--model", tiny_model).code == 0, "its own sheet is replaced"
    assert (here / "demo.png").read_bytes() == first, "the same seed gives the same sheet"
    assert [path.name for path in here.iterdir()] == ["demo.png"]


def test_a_named_sheet_is_not_replaced_unless_asked(nuwa_lip: Run, tiny_model: Path, here: Path) -> None:
    Path("mine.png").write_bytes(b"mine")
    done = nuwa_lip("demo", "--model", tiny_model, "-o", "mine.png")
    assert done.code == 2 and "mine.png exists; give --overwrite" in done.err
    assert Path("mine.png").read_bytes() == b"mine"
    done = nuwa_lip("demo", "--model", tiny_model, "-o", "mine.png", "--overwrite", "--seed", "3")
    assert done.code == 0 and Image.open("mine.png").width > 3 * 256


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "mimi"), "there is no model 'mimi'"),
        (("-o", "no/sheet.png"), "there is no folder no"),
        (("-o", "sheet.txt"), "the ending must be one of .png"),
        (("--seed", "-1"), "--seed -1"),
    ],
)
def test_bad_input(words: tuple[str, ...], says: str, nuwa_lip: Run, here: Path) -> None:
    done = nuwa_lip("demo", *words)
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1
    assert list(here.iterdir()) == []
