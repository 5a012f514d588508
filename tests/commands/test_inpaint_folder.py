"""`nuwa-lip inpaint` for a folder: a stopped run goes on, one bad photo never ends it, and all is said."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.commands.inpaint_folder import _duration
from nuwa_lip.pipeline import InpaintPipeline
from tests.folders import contents

Run = Callable[..., Any]


@pytest.fixture
def inpaint(nuwa_lip: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run it in the folder of the test, where photos/ has a.png, b.png and c.png, and mask.png is for all."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, name in enumerate("abc"):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{name}.png")
    mask = Image.new("L", (60, 40))
    mask.paste(255, (20, 15, 40, 25))
    mask.save("mask.png")

    def run(*words: object) -> Any:
        words = words if "-o" in words else (*words, "-o", "out")
        words = words if "--mask" in words else (*words, "--mask", "mask.png")
        return nuwa_lip("inpaint", "photos", *words, "--model", tiny_model, "--prompt", "a bear", "--seed", 0)

    return run


def test_a_second_run_goes_on_and_a_third_has_nothing_to_do(
    inpaint: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = inpaint()
    assert first.code == 0 and "out: 3 of 3 photos repainted" in first.out
    assert "1 of 3, " in first.out and "2 of 3, " in first.out and "3 of 3, " not in first.out
    before = contents(tmp_path)
    Path("out/b.png").unlink()
    again = inpaint("--json", "x.json")
    assert again.code == 0 and again.err == "" and "2 of 3 photos have a result already" in again.out
    assert "out: 1 of 1 photos repainted" in again.out
    assert [record["photo"] for record in json.loads(Path("x.json").read_text())] == ["photos/b.png"]
    Path("x.json").unlink()
    assert contents(tmp_path) == before
    monkeypatch.setattr(InpaintPipeline, "from_pretrained", lambda *_, **__: pytest.fail("there is nothing to do"))
    done = inpaint()
    assert (done.code, done.err) == (0, "") and contents(tmp_path) == before


def test_photos_in_the_folder_of_results_are_no_results(inpaint: Run, tmp_path: Path) -> None:
    before = contents(tmp_path)
    done = inpaint("-o", "photos")
    assert done.code == 2 and done.err.count("exists; give --overwrite") == 3 and contents(tmp_path) == before


def test_whatever_happens_to_one_photo_the_rest_goes_on(
    inpaint: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.symlink("loop.png", "photos/loop.png")
    Image.new("RGB", (60, 40)).save("photos/odd.tif", dpi=(1e30, 1e-30))
    os.mkfifo("photos/pipe.png")
    call = InpaintPipeline.__call__

    def failing(self: InpaintPipeline, **options: Any) -> Any:
        if (options["image"].pixels[0, 0] == np.asarray(Image.open("photos/b.png"))[0, 0]).all():
            raise ZeroDivisionError("a bug")
        return call(self, **options)

    monkeypatch.setattr(InpaintPipeline, "__call__", failing)
    done = inpaint("--json", "x.json")
    assert done.code == 1 and "out: 3 of 6 photos repainted" in done.out
    b, loop, pipe = (line for line in done.err.splitlines() if "warning" not in line)
    assert b == "nuwa-lip: photos/b.png: ZeroDivisionError: a bug"
    assert "photos/loop.png cannot be read" in loop and "photos/pipe.png is a pipe" in pipe
    assert set(contents(tmp_path / "out")) == {"a.png", "c.png", "odd.png"}
    failed = [record["error"] for record in json.loads(Path("x.json").read_text()) if "error" in record]
    assert len(failed) == 3


def test_every_ending_that_pillow_reads_and_what_is_passed_over(inpaint: Run) -> None:
    for ending in ("jfif", "jpe", "qoi", "tga"):
        Image.new("RGB", (60, 40), "red").save(f"photos/{ending}.{ending}")
    for name in ("x.heic", "notes.txt", ".hidden"):
        Path("photos", name).touch()
    done = inpaint()
    assert done.code == 0 and "out: 7 of 7 photos repainted" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("nuwa-lip: warning: photos: passed over") and line.endswith(": notes.txt, x.heic")


def test_masks_that_say_what_they_are(inpaint: Run, tmp_path: Path) -> None:
    Path("masks").mkdir()
    for name in ("a.png", "a_mask.png", "b_mask.png", "c-mask.png"):
        os.link("mask.png", f"masks/{name}")
    assert inpaint("--mask", "masks").code == 0
    for name in ("a_mask.png", "b_mask.png", "c-mask.png"):
        os.link("mask.png", f"photos/{name}")
    done = inpaint("--mask", "photos", "--overwrite")
    assert done.code == 0, done.err
    assert set(contents(tmp_path / "out")) == {"a.png", "b.png", "c.png"}


def test_names_of_one_text_are_one_name(inpaint: Run, tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "bär") for form in ("NFC", "NFD"))
    for name in "abc":
        Path(f"photos/{name}.png").rename(f"photos/{name}x.png" if name != "a" else f"photos/{composed}.png")
    Path("masks").mkdir()
    for name in (decomposed, "bx", "cx"):
        os.link("mask.png", f"masks/{name}.png")
    done = inpaint("--mask", "masks")
    assert done.code == 0 and "out: 3 of 3" in done.out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (75, "75 s"), (119, "2 min"), (600, "10 min"), (9e3, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_names_that_a_terminal_would_obey_are_spelled_out(inpaint: Run) -> None:
    Path("photos/a.png").rename("photos/\x1b[2Ja.png")
    Path("photos/b.png").write_text("no picture")
    Path("photos/b.png").rename("photos/\x1b[2Jb.png")
    done = inpaint()
    assert done.code == 1 and "\x1b" not in done.out + done.err
    assert r"\x1b[2Jb.png is not a picture" in done.err and r"photos/\x1b[2Ja.png: 60x40" in done.out
