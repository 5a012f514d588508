"""PNG by all cores: Pillow reads the same pixels and metadata, and the file depends on the picture alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from nuwa_lip.images import png
from nuwa_lip.images.files import LARGE, read_image, save_image
from nuwa_lip.images.png import MODES, write_png


def picture(mode: str, height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    values[: height // 2] = 7  # runs
    return Image.fromarray(values).convert(mode)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(MODES), st.integers(1, 40), st.integers(1, 40), st.integers(1, 500))
def test_pixels_come_back(
    tmp_path_factory: pytest.TempPathFactory, mode: str, height: int, width: int, band: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.png"
    image = picture(mode, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "BAND", band)
        write_png(image, path)
    with Image.open(path) as again:
        assert again.mode == mode and np.array_equal(np.asarray(again), np.asarray(image))
    with Image.open(path) as again:
        again.verify()


def test_metadata_is_what_pillow_writes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {"exif": exif.tobytes(), "icc_profile": b"a profile", "dpi": (300, 300)}
    image = picture("RGBA", 30, 20)
    write_png(image, tmp_path / "ours.png", **options)
    image.save(tmp_path / "pillows.png", **options)
    ours, pillows = (read_image(tmp_path / name) for name in ("ours.png", "pillows.png"))
    assert ours.info == pillows.info and {"exif", "icc_profile", "dpi"} <= set(ours.info)


def test_the_number_of_cores_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture("RGB", 300, 2000)
    for cores in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)  # noqa: B023 - called at once
        write_png(image, tmp_path / f"{cores}.png")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "3.png").read_bytes()


def test_large_pictures_are_written_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(png, "write_png", lambda image, path, **options: seen.append(image) or write_png(image, path))
    large = Image.new("RGB", (1024, LARGE // 1024))
    for image in (large, large.convert("1"), large.crop((0, 0, 1024, 100))):
        save_image(image, tmp_path / "x.png")
        assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), np.asarray(image))
    assert seen == [large] and [path.name for path in tmp_path.iterdir()] == ["x.png"]
