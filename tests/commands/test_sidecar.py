"""`inpaint --sidecar` and `--from`: the same bytes again, or a line that says what is not as it was."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.images.files import read_photo, save_image
from tests.folders import contents

Run = Callable[..., Any]


@pytest.fixture
def made(nuwa_lip: Run, tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path) -> Path:
    """The sidecar of the second of two candidates, in a folder of its own."""
    words = (
        "--mask",
        mask_file,
        "--prompt",
        "a.json bear",
        "--model",
        tiny_model,
        "-n",
        2,
        "--seed",
        0,
        "--sidecar",
        "--top-k",
        9,
    )
    done = nuwa_lip("inpaint", photo_file, *words, "-o", tmp_path / "out" / "x.png", "--order", "border", "--dilate", 1)
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"x-{number}.png{ending}" for number in (1, 2) for ending in ("", ".json")
    }
    return tmp_path / "out" / "x-2.png.json"


def test_the_same_bytes_come_again(nuwa_lip: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (made.parent / "x-2.png").read_bytes()
    monkeypatch.chdir(made.parent)
    done = nuwa_lip("inpaint", "--from", made.name, "-o", tmp_path / "again.png")
    assert done.code == 0 and "the same bytes" in done.out and (tmp_path / "again.png").read_bytes() == before
    done = nuwa_lip("inpaint", "--from", made.name)
    assert done.code == 2 and "x-2.png exists; give --overwrite" in done.err
    (made.parent / "x-2.png").write_bytes(b"lost")
    assert nuwa_lip("inpaint", "--from", made.name, "--overwrite").code == 0
    assert (made.parent / "x-2.png").read_bytes() == before


def test_a_drawn_hole_comes_again(nuwa_lip: Run, tiny_model: Path, photo_file: Path, tmp_path: Path) -> None:
    words = ("--box", 5, 5, 9, 9, "--circle", 30, 20, 5, "--prompt", "", "--model", tiny_model, "--sidecar")
    assert nuwa_lip("inpaint", photo_file, *words, "-o", tmp_path / "x.tif", "--no-provenance").code == 0
    done = nuwa_lip("inpaint", "--from", tmp_path / "x.tif.json", "-o", tmp_path / "y.tif")
    assert done.code == 0 and (tmp_path / "x.tif").read_bytes() == (tmp_path / "y.tif").read_bytes()


def test_other_bytes_are_said(nuwa_lip: Run, made: Path, tmp_path: Path) -> None:
    content = json.loads(made.read_text())
    content["options"]["seed"] += 1
    made.write_text(json.dumps(content))
    done = nuwa_lip("inpaint", "--from", made, "-o", tmp_path / "again.png")
    assert done.code == 1 and "again.png is not what it was" in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"photo": "nowhere.png"}, "there is no file .*nowhere.png"),
        ({"options": {"speed": 1}}, "unknown field 'speed'"),
        ({"options": {"num": "2"}}, "num is '2'"),
        ({"options": {"steps": 0}}, "--steps 0 is too small"),
        ({"options": {"json": "new.json"}}, "json is .new.json"),
        ({"prompt": 1}, "prompt is 1"),
        ({"result": "x.webp"}, "the same ending"),
    ],
)
def test_a_bad_sidecar_is_one_line(nuwa_lip: Run, made: Path, tmp_path: Path, change: Any, says: str) -> None:
    made.write_text(json.dumps(json.loads(made.read_text()) | change))
    before = contents(tmp_path)
    done = nuwa_lip("inpaint", "--from", made, "-o", tmp_path / "again.png")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and contents(tmp_path) == before
    assert re.search(says, done.err)


def test_a_strangers_sidecar_writes_nothing_else(nuwa_lip: Run, made: Path, tmp_path: Path) -> None:
    content = json.loads(made.read_text())
    options = content["options"] | {"num": 3, "grid": True, "save_mask": True, "force": True}
    made.write_text(json.dumps(content | {"result": "../x-2.png", "options": options}))
    before = contents(tmp_path)
    done = nuwa_lip("inpaint", "--from", made, "--overwrite")
    assert done.code == 0 and contents(tmp_path) == before


def test_another_photo_is_refused(nuwa_lip: Run, made: Path, photo_file: Path, tmp_path: Path) -> None:
    photo = read_photo(photo_file)
    photo.pixels[0, 0] ^= 1
    save_image(photo.shown(photo.pixels), photo_file)
    done = nuwa_lip("inpaint", "--from", made, "-o", tmp_path / "again.png")
    assert done.code == 2 and "is not the photo that it was" in done.err and not (tmp_path / "again.png").exists()


def test_sidecars_are_not_replaced_unasked_and_need_names(
    nuwa_lip: Run, tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    words = ("--mask", mask_file, "--prompt", "", "--model", tiny_model, "--sidecar", "-o")
    (tmp_path / "x.png.json").write_text("mine")
    done = nuwa_lip("inpaint", photo_file, *words, tmp_path / "x.png")
    assert done.code == 2 and "x.png.json exists; give --overwrite" in done.err
    assert (tmp_path / "x.png.json").read_text() == "mine" and not (tmp_path / "x.png").exists()
    done = nuwa_lip("inpaint", photo_file, *words, "-")
    assert done.code == 2 and "--sidecar names the files" in done.err
