"""Picture files in: every ending that Pillow decodes, standard input, nothing that never ends, 16-bit transparency."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nuwa_lip.errors import InputError
from nuwa_lip.images.files import FORMATS
from nuwa_lip.images.reading import STANDARD, read_image, read_photo, readable_endings


def test_endings_are_those_that_pillow_decodes() -> None:
    endings = readable_endings()
    assert set(FORMATS) | {".jfif", ".jpe", ".gif", ".bmp", ".ppm", ".qoi", ".tga"} <= endings
    assert not endings & {".eps", ".wmf", ".pdf", ".h5", ".mpg", ".txt"}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (5, 3), "red").save(stream := io.BytesIO(), "PNG")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stream.getvalue())))
    assert read_image(STANDARD).size == (5, 3)


def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(InputError, match="is a (pipe|device), not a file"):
            read_image(path)


def test_the_limit_of_texts_is_pillows_again_afterwards(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    limit = PngImagePlugin.MAX_TEXT_CHUNK
    with pytest.raises(InputError):
        read_image(tmp_path / "x.png")
    assert PngImagePlugin.MAX_TEXT_CHUNK == limit


def test_one_grey_of_16_bits_that_is_transparent(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) + 1000
    Image.fromarray(values).save(tmp_path / "x.png", transparency=1005)
    photo = read_photo(tmp_path / "x.png")
    assert photo.mode == "LA" and (photo.pixels[..., 0] == values).all()
    assert photo.alpha is not None and (photo.alpha == np.where(values == 1005, 0, 65535)).all()
