"""TIFF by our own writer: Pillow and OpenCV read what went in, in one strip or many."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nuwa_lip.images import tiff
from nuwa_lip.images.tiff import write_tiff
from tests.pictures import picture


@pytest.mark.parametrize("strip", [1, 30, 10**6])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_pixels_come_back(mode: str, strip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "STRIP", strip)
    image = picture(mode)
    write_tiff(np.asarray(image), mode, tmp_path / "x.tif", {"icc_profile": b"a profile", "dpi": (300, 150)})
    with Image.open(tmp_path / "x.tif") as again:
        assert again.mode == mode and np.array_equal(np.asarray(again), np.asarray(image))
        assert again.info["icc_profile"] == b"a profile" and again.info["dpi"] == (300, 150)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_opencv_reads_it(kind: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(kind) * (257 if kind is np.uint16 else 1)
    write_tiff(values.astype(kind), "RGB", tmp_path / "x.tif", {})
    assert (cv2.imread(str(tmp_path / "x.tif"), cv2.IMREAD_UNCHANGED)[..., ::-1] == values).all()
