"""Files that break off: what decodes is used, with a line; files made to decode for minutes are refused at once."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.files import read_image
from nuwa_lip.images.salvage import MOST_SCANS, count_scans
from nuwa_lip.images.tiff import write_tiff

ROUGH = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
PICTURE = Image.fromarray(ROUGH).resize((320, 240), Image.Resampling.BICUBIC)


def saved(name: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def deflated() -> bytes:
    noisy = np.asarray(PICTURE) + np.random.default_rng(1).integers(0, 9, (240, 320, 3), dtype=np.uint8)
    write_tiff(noisy, "RGB", buffer := io.BytesIO(), {})
    return buffer.getvalue()


FILES = {
    "jpeg": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True),
    "webp": saved("WEBP"),
    "webp, lossless": saved("WEBP", lossless=True),
    "gif": saved("GIF", PICTURE.quantize(64)),
    "tiff": saved("TIFF"),
    "png": saved("PNG"),
}


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("name", ["jpeg", "progressive"])
def test_a_jpeg_without_its_end_marker_is_all_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(FILES[name][:-2])
    with pytest.warns(UserWarning, match="breaks off; 240 of its 240 rows"):
        assert (np.asarray(read_image(path)) == decoded(FILES[name])).all()


@pytest.mark.parametrize("name", FILES)
def test_what_decodes_is_used_and_said(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(FILES[name][: int(len(FILES[name]) * 0.85)])
    with pytest.warns(UserWarning, match="breaks off; [0-9]+ of its 240 rows can be read"):
        image = np.asarray(read_image(path).convert("RGB"))
    first = 0 if name == "progressive" else 150
    assert image.shape == (240, 320, 3) and (image[:first] == decoded(FILES[name])[:first]).all()


def test_a_tiff_in_strips(tmp_path: Path) -> None:
    content = deflated()
    (tmp_path / "x").write_bytes(content[:-10])
    with pytest.raises(InputError, match="is damaged"):  # one strip, of which nothing decodes
        read_image(tmp_path / "x")


@pytest.mark.parametrize("name", FILES)
def test_less_than_half_is_damaged(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(FILES[name][: int(len(FILES[name]) * 0.2)])
    if name == "progressive":  # the whole in a first, coarse scan
        with pytest.warns(UserWarning, match="breaks off"):
            read_image(path)
    else:
        with pytest.raises(InputError, match="is damaged|is not a picture"):
            read_image(path)


def test_a_png_that_is_damaged_within_is_not_used(tmp_path: Path) -> None:
    content = bytearray(FILES["png"])
    content[len(content) // 2] ^= 255
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        read_image(tmp_path / "x.png")


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scans hold nothing."""
    content = saved("JPEG", PICTURE.convert("L"), progressive=True)
    empty = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 63, 0x10) + b"\x00"
    return content[:-2] + empty * count + content[-2:]


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    few, many = scans(0), scans(MOST_SCANS)
    assert count_scans(many) == count_scans(few) + MOST_SCANS
    (tmp_path / "x.jpg").write_bytes(many)
    with pytest.raises(InputError, match="x.jpg has 1[0-9]{2} scans, and photos about ten"):
        read_image(tmp_path / "x.jpg")
    # thumbnails, and whatever looks like a marker, are no scans of the photo
    (tmp_path / "x.jpg").write_bytes(saved("JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 1000))
    read_image(tmp_path / "x.jpg")
