"""`nuwa-lip verify`: a result of `inpaint` holds, a changed pixel is found and named."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from nuwa_lip.images.files import read_photo, save_image
from nuwa_lip.images.provenance import REPAINTED, read_statement
from tests.signers import make_signer

Run = Callable[..., Any]


@pytest.fixture
def repainted(nuwa_lip: Run, tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path) -> Path:
    out = tmp_path / "result.png"
    words = ("--mask", mask_file, "--prompt", "x", "--seed", 0, "--model", tiny_model, "-o", out)
    assert nuwa_lip("inpaint", photo_file, *words).code == 0
    return out


def test_a_result_holds(nuwa_lip: Run, repainted: Path, photo_file: Path, mask_file: Path) -> None:
    done = nuwa_lip("verify", repainted, "--original", photo_file, "--mask", mask_file)
    known = int((np.asarray(Image.open(mask_file).convert("L")) < 128).sum())
    assert done.code == 0 and f"outside the hole: 0 of {known} pixels changed" in done.out
    same = nuwa_lip("verify", photo_file, "--original", photo_file)
    assert same.code == 0 and "0 of 2400 pixels differ" in same.out


def test_a_changed_pixel_is_named(nuwa_lip: Run, repainted: Path, photo_file: Path, mask_file: Path) -> None:
    pixels = np.array(Image.open(repainted))
    hole = np.asarray(Image.open(mask_file).convert("L")) >= 128
    y, x = np.argwhere(~hole)[5]
    pixels[y, x, 1] ^= 1
    Image.fromarray(pixels).save(repainted)
    done = nuwa_lip("verify", repainted, "--original", photo_file, "--mask", mask_file)
    assert done.code == 1 and f"1x1+{x}+{y}" in done.err and "1 of" in done.out


def test_a_turned_photo_is_compared_as_it_is_seen(nuwa_lip: Run, photo_file: Path, tmp_path: Path) -> None:
    photo = Image.open(photo_file)
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=tags)
    assert "0 of 2400 pixels differ" in nuwa_lip("verify", photo_file, "--original", tmp_path / "turned.png").out


def test_transparency_is_the_mask(nuwa_lip: Run, tmp_path: Path) -> None:
    before = np.full((8, 9, 4), 255, np.uint8)
    before[2:5, 3:6, 3] = 0
    after = before.copy()
    after[2:5, 3:6] = (1, 2, 3, 255)
    Image.fromarray(before).save(tmp_path / "before.png")
    Image.fromarray(after).save(tmp_path / "after.png")
    done = nuwa_lip("verify", tmp_path / "after.png", "--original", tmp_path / "before.png")
    assert done.code == 0 and "all within 3x3+3+2" in done.out and "outside the hole: 0 of 63" in done.out


@pytest.mark.parametrize(("mode", "size"), [("L", (60, 40)), ("RGB", (60, 41))])
def test_what_cannot_be_compared_is_said(nuwa_lip: Run, photo_file: Path, tmp_path: Path, mode: str, size: Any) -> None:
    Image.new(mode, size).save(tmp_path / "other.png")
    done = nuwa_lip("verify", tmp_path / "other.png", "--original", photo_file)
    assert done.code == 2 and "60x40 RGB" in done.err and len(done.err.splitlines()) == 1


def test_a_result_states_what_it_is(nuwa_lip: Run, repainted: Path, tiny_model: Path, mask_file: Path) -> None:
    done = nuwa_lip("verify", repainted, "--mask", mask_file)
    assert done.code == 0 and f"by {tiny_model.name}, seed 0" in done.out and "all pixels are as stated" in done.out
    assert REPAINTED.rpartition("/")[-1] in done.out and str(tiny_model.parent) not in done.out
    photo = read_photo(repainted)
    statement = read_statement(photo.info)
    assert statement is not None and statement.known in done.out
    photo.pixels[-1, -1] ^= 1
    save_image(photo.shown(photo.pixels), repainted)
    assert nuwa_lip("verify", repainted).code == 0
    done = nuwa_lip("verify", repainted, "--mask", mask_file)
    assert done.code == 1 and "outside the hole" in done.err and len(done.err.splitlines()) == 1


def test_what_states_nothing_is_said(nuwa_lip: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    done = nuwa_lip("verify", photo_file)
    assert (done.code, done.out) == (1, "") and "states nothing" in done.err and len(done.err.splitlines()) == 1
    photo = read_photo(photo_file)
    photo.info["xmp"] = f'<x:xmpmeta><a iptc:DigitalSourceType="{REPAINTED}"/></x:xmpmeta>'.encode()
    save_image(photo.shown(photo.pixels), tmp_path / "other.png")
    done = nuwa_lip("verify", tmp_path / "other.png")
    assert done.code == 0 and REPAINTED.rpartition("/")[-1] in done.out and "seed" not in done.out
    done = nuwa_lip("verify", tmp_path / "other.png", "--mask", mask_file)
    assert done.code == 2 and "give --original" in done.err


def test_signatures_are_checked(
    nuwa_lip: Run, tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key, root = make_signer(tmp_path)
    out = tmp_path / "signed.png"
    words = ("inpaint", photo_file, "--mask", mask_file, "--prompt", "x", "--model", tiny_model, "-o", out)
    signing = ("--credential", chain, "--key", key)
    for refused in (("--key", key), ("--credential", chain), (*signing, "--sidecar"), (*signing, "-o", "-")):
        done = nuwa_lip(*words, *refused)
        assert done.code == 2 and "--credential" in done.err and done.err.count("\n") == 1 and not out.exists()
    assert nuwa_lip(*words, *signing, "--no-provenance").code == 0
    assert (np.asarray(Image.open(out))[:15] == np.asarray(Image.open(photo_file))[:15]).all()
    done = nuwa_lip("verify", out)
    assert done.code == 0 and "holds: Ada, Tests" in done.out and "within 20x10+20+15" in done.out
    done = nuwa_lip("verify", out, "--trust", root, "--original", photo_file, "--mask", mask_file)
    assert done.code == 0 and "(trusted)" in done.out and "outside the hole: 0 of" in done.out
    (tmp_path / "other").mkdir()
    assert nuwa_lip("verify", out, "--trust", make_signer(tmp_path / "other")[2]).code == 1
    assert nuwa_lip("verify", photo_file, "--trust", root, "--original", photo_file).code == 1
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "c2pa", None)
        done = nuwa_lip("verify", out, "--original", photo_file)
        assert done.code == 0 and "nuwa-lip[c2pa]" in done.out
        assert nuwa_lip("verify", out, "--original", photo_file, "--trust", root).code == 2
    out.write_bytes(out.read_bytes() + b"x")
    done = nuwa_lip("verify", out, "--original", photo_file)
    assert done.code == 1 and "does not hold: assertion.dataHash.mismatch" in done.err
