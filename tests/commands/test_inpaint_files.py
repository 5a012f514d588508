"""Files of `nuwa-lip inpaint`: rights, links, standard input and output, folders that are made, drawn holes."""

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from nuwa_lip.images.files import read_image, read_photo
from nuwa_lip.images.png import write_png
from nuwa_lip.images.provenance import Statement, hash_known, read_statement
from nuwa_lip.pipeline import InpaintPipeline
from tests.folders import contents

Run = Callable[..., Any]


@pytest.fixture
def inpaint(nuwa_lip: Run, tiny_model: Path) -> Run:
    def run(*words: object) -> Any:
        return nuwa_lip("inpaint", *words, "--model", tiny_model, "--prompt", "a bear", "--seed", 0)

    return run


def test_a_file_that_is_replaced_keeps_its_rights(inpaint: Run, photo_file: Path, mask_file: Path) -> None:
    photo_file.chmod(0o640)
    assert inpaint(photo_file, "--mask", mask_file, "-o", photo_file, "--overwrite").code == 0
    assert stat.S_IMODE(photo_file.stat().st_mode) == 0o640


def test_the_result_of_a_private_photo_is_private(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    photo_file.chmod(0o600)
    assert inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.png").code == 0
    assert stat.S_IMODE((tmp_path / "out.png").stat().st_mode) == 0o600


def test_a_write_protected_file_is_replaced_by_force_only(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    photo_file.chmod(0o444)
    before = contents(tmp_path)
    done = inpaint(photo_file, "--mask", mask_file, "-o", photo_file, "--overwrite")
    assert done.code == 2 and "is write-protected; give --force" in done.err and contents(tmp_path) == before
    assert inpaint(photo_file, "--mask", mask_file, "-o", photo_file, "--force").code == 0
    assert contents(tmp_path) != before and stat.S_IMODE(photo_file.stat().st_mode) == 0o444


def test_other_names_of_a_file_keep_the_old_picture(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    os.link(photo_file, tmp_path / "other.png")
    before = photo_file.read_bytes()
    done = inpaint(photo_file, "--mask", mask_file, "-o", photo_file, "--overwrite")
    assert done.code == 0 and "has 2 names (hard links); the others keep the old picture" in done.err
    assert (tmp_path / "other.png").read_bytes() == before != photo_file.read_bytes()


def test_a_file_that_appears_during_the_work_is_not_replaced(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, call = tmp_path / "out.png", InpaintPipeline.__call__

    def slow(self: InpaintPipeline, **options: Any) -> Any:
        out.write_bytes(b"of another process")
        return call(self, **options)

    monkeypatch.setattr(InpaintPipeline, "__call__", slow)
    done = inpaint(photo_file, "--mask", mask_file, "-o", out)
    assert done.code == 2 and done.err.count("\n") == 1 and str(out) in done.err
    assert set(contents(tmp_path)) == {"photo.png", "mask.png", "out.png"} and out.read_bytes() == b"of another process"


def test_folders_that_are_missing_are_made(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    assert inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "a/b/out.png").code == 0
    assert read_image(tmp_path / "a/b/out.png").size == (60, 40)
    done = inpaint(photo_file, "--mask", photo_file.with_name("nowhere.png"), "-o", tmp_path / "c/out.png")
    assert done.code == 2 and not (tmp_path / "c").exists()


def test_from_standard_input_to_standard_output(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.png").code == 0
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(photo_file.read_bytes())))
        patch.setattr(sys, "stdout", stdout)
        done = inpaint("-", "--mask", mask_file, "-o", "-")
    assert done.code == 0 and "60x40 RGB" in done.err
    assert stdout.buffer.getvalue() == (tmp_path / "out.png").read_bytes()  # type: ignore[attr-defined]
    done = inpaint("-", "--mask", "-", "-o", tmp_path / "x.png")
    assert done.code == 2 and "cannot both come from standard input" in done.err
    done = inpaint(photo_file, "--mask", mask_file, "-o", "-", "-n", 2)
    assert done.code == 2 and "standard output takes one picture" in done.err


def test_pipes_and_devices_do_not_hang(inpaint: Run, mask_file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in (tmp_path / "pipe.png", Path("/dev/zero")):
        done = inpaint(name, "--mask", mask_file, "-o", tmp_path / "out.png")
        assert done.code == 2 and done.err.count("\n") == 1 and str(name) in done.err


def test_holes_are_drawn(inpaint: Run, photo_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    words = (photo_file, "-o", out, "--save-mask", "--overwrite")
    done = inpaint(*words, "--box", 10, 5, 20, 8, "--box", 50, 30, 100, 100, "--circle", 5, 30, 2)
    assert done.code == 0 and "(drawn)" in done.out
    hole = np.zeros((40, 60), bool)
    hole[5:13, 10:30] = hole[30:, 50:] = True
    for down in range(-2, 3):
        for across in range(-2, 3):
            hole[30 + down, 5 + across] = down**2 + across**2 <= 4
    assert (np.asarray(read_image(tmp_path / "out-mask.png")) == hole).all()
    assert (np.asarray(read_image(out)) == np.asarray(read_image(photo_file)))[~hole].all()
    assert inpaint(*words, "--box", 10, 5, 20, 8, "--invert").code == 0
    assert not np.asarray(read_image(tmp_path / "out-mask.png"))[5:13, 10:30].any()
    for more, says in (
        (("--box", 60, 0, 5, 5), "--box 60 0 5 5 has no pixel within the photo of 60x40"),
        (("--box", 0, 0, 0, 5), "has no pixel"),
        (("--circle", 0, 0, -1), "--circle 0 0 -1 has no pixel"),
        (("--box", 0, 0, 60, 40, "--invert"), "nothing to repaint"),
        (("--box", 0, 0, 5, 5, "--mask", photo_file), "for photos without a mask"),
    ):
        done = inpaint(*words, *more)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1


def test_what_was_done_as_json(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    done = inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "-n", 2, "--json", tmp_path / "x.json")
    assert done.code == 0
    (record,) = json.loads((tmp_path / "x.json").read_text())
    assert record["results"] == [str(tmp_path / f"out-{i}.png") for i in (1, 2)] and sorted(record["seeds"]) == [0, 1]
    assert record["scores"] == sorted(record["scores"], reverse=True) and record["hole"] == pytest.approx(1 / 12)
    done = inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "new.png", "--json", "-")
    assert done.code == 2 and "--json - is standard output" in done.err and not (tmp_path / "new.png").exists()
    done = inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "new.png", "--json", mask_file)
    assert done.code == 2 and "is another file of this command" in done.err and not (tmp_path / "new.png").exists()
    assert (record["width"], record["height"], record["mode"], record["prompt"]) == (60, 40, "RGB", "a bear")


def test_what_cannot_be_kept_is_said_once_and_before_the_work(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    Image.open(photo_file).save(tmp_path / "in.png", exif=exif)
    said: list[str] = []
    call = InpaintPipeline.__call__

    def painted(self: InpaintPipeline, **options: Any) -> Any:
        said.append(sys.stderr.getvalue())  # type: ignore[attr-defined]
        return call(self, **options)

    monkeypatch.setattr(InpaintPipeline, "__call__", painted)
    done = inpaint(tmp_path / "in.png", "--mask", mask_file, "-o", tmp_path / "out.jpg", "-n", 2)
    assert done.code == 0 and done.err.count("not enough room for the EXIF block") == 2, "once for each file"
    assert said[0].count("not enough room for the EXIF block") == 2


def test_16_bit_colours_go_through(inpaint: Run, mask_file: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (40, 60, 3), dtype=np.uint16)
    write_png(values, tmp_path / "in.png")
    known = np.asarray(read_image(mask_file)) == 0
    for ending in ("png", "tif"):
        done = inpaint(tmp_path / "in.png", "--mask", mask_file, "-o", tmp_path / f"out.{ending}", "--grid")
        assert done.code == 0 and done.err == ""
        result = read_photo(tmp_path / f"out-1.{ending}").pixels
        assert result.dtype == np.uint16 and (result[known] == values[known]).all() and (result != values).any()


@pytest.mark.parametrize("block", [b"Exif\0\0torn", b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x02\0\0\0\x02ab\0\0"])
def test_odd_exif_stops_no_sheet(block: bytes, inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    Image.open(photo_file).save(tmp_path / "in.jpg", exif=block)
    done = inpaint(tmp_path / "in.jpg", "--mask", mask_file, "-o", tmp_path / "out.png", "--grid")
    assert done.code == 0, done.err
    assert read_image(tmp_path / "out.png").width > 256


def test_refusals_come_before_the_model_is_loaded(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        pytest.fail("the model is loaded")

    monkeypatch.setattr(InpaintPipeline, "from_pretrained", load)
    monkeypatch.setattr(InpaintPipeline, "clip", tmp_path / "nowhere")
    words = (photo_file, "--mask", mask_file, "-o", tmp_path / "out.png")
    device = "cuda:99" if torch.cuda.is_available() else "cuda"
    for more, says in (
        (("--device", device), f"--device {device} cannot be used"),
        (("--rank", "clip"), "rank 'clip' needs CLIP's weights"),
    ):
        done = inpaint(*words, *more)
        assert done.code == 2 and says in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_every_result_states_model_seed_and_known_pixels(
    ending: str, inpaint: Run, tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{ending}"
    done = inpaint(photo_file, "--mask", mask_file, "-o", out, "-n", 2, "--grid", "--save-mask")
    known = hash_known(read_photo(photo_file), np.asarray(read_image(mask_file)) > 0)
    said = {path.stem: read_statement(read_photo(path).info) for path in tmp_path.glob("out*.*")}
    seeds = {
        line.split(":")[0].rsplit("/")[-1]: int(line.split()[-1]) for line in done.out.splitlines() if "score" in line
    }
    assert sorted(seeds.values()) == [0, 1]
    assert said.pop("out-mask") is None and said.pop("out") == Statement(tiny_model.name, 0, known), "the sheet"
    assert said == {name.removesuffix(ending): Statement(tiny_model.name, seed, known) for name, seed in seeds.items()}


def test_a_switch_leaves_the_statement_out(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    words = (photo_file, "--mask", mask_file, "-o")
    assert inpaint(*words, tmp_path / "a.png").code == inpaint(*words, tmp_path / "b.png", "--no-provenance").code == 0
    said, silent = (read_photo(tmp_path / name) for name in ("a.png", "b.png"))
    assert (said.pixels == silent.pixels).all() and "xmp" in said.info and "xmp" not in silent.info
