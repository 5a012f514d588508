"""Photos in and out: known pixels are the input's bit for bit in every mode and orientation."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from nuwa_lip.errors import InputError
from nuwa_lip.images.hole import as_hole
from nuwa_lip.images.photo import STRIP, Patch, Photo, as_photo, upright
from tests.pictures import MODES, H, W, picture


def photo_of(image: Image.Image) -> Photo:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palettes are another test's business
        return as_photo(image)


def pixels(image: Image.Image) -> np.ndarray:
    """Comparable whatever the byte order."""
    array = np.asarray(image)
    return array.astype(array.dtype.newbyteorder("="))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_known_pixels_are_the_inputs_bit_for_bit(mode: str, orientation: int) -> None:
    image = picture(mode, orientation)
    photo = photo_of(image)
    height, width = photo.size
    assert (width, height) == ImageOps.exif_transpose(image).size
    mask = np.random.default_rng(1).random((height - 2, width - 3)) > 0.5
    box = np.s_[1 : height - 1, 2 : width - 1]
    rgb = np.random.default_rng(2).random((*mask.shape, 3), dtype=np.float32)
    before = photo.pixels.tobytes()
    result = photo.to_pil(photo.repainted([Patch(box, mask, rgb)]))
    assert photo.pixels.tobytes() == before, "the input is left alone"

    expected = {"P": "RGB", "PA": "RGBA", "RGBX": "RGB", "I;16B": "I;16"}.get(mode, mode)
    assert result.mode == expected and result.size == image.size
    assert result.info == image.info
    original = image if mode == "I;16B" else image.convert(expected)
    old, new = (pixels(ImageOps.exif_transpose(one)) for one in (original, result))
    known = np.ones((height, width), bool)
    known[box] = ~mask
    assert (new[known] == old[known]).all()
    assert (new[~known] != old[~known]).mean() > 0.2
    if result.mode in ("LA", "RGBA"):
        assert (new[..., -1] == old[..., -1]).all(), "transparency is not painted"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_colours_survive_the_way_to_rgb_and_back(mode: str) -> None:
    photo = photo_of(picture(mode))
    everything = np.s_[0:H, 0:W]
    rgb = photo.rgb(everything, np.zeros((H, W), bool))
    assert rgb.shape == (H, W, 3) and rgb.dtype == np.float32 and rgb.min() >= 0 and rgb.max() <= 1
    patch = Patch(everything, np.ones((H, W), bool), rgb)
    again = as_photo(photo.to_pil(photo.repainted([patch])))
    same = again.rgb(everything, np.zeros((H, W), bool))
    assert np.abs(same - rgb).max() <= (0.01 if mode == "CMYK" else 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_photos_of_many_rows(mode: str) -> None:
    image = picture(mode).resize((3, 2 * STRIP + 5))
    photo = photo_of(image)
    expected = image if mode == "I;16B" else image.convert(photo.mode)
    assert (photo.to_pil(photo.repainted([])).size == image.size) and (pixels(expected) == photo.pixels.squeeze()).all()
    mask = np.ones((2 * STRIP + 5, 3), bool)
    everything = (slice(0, 2 * STRIP + 5), slice(0, 3))
    black = photo.repainted([Patch(everything, mask, np.zeros((*mask.shape, 3), np.float32))], opaque=True)
    assert (as_photo(photo.to_pil(black)).rgb(everything, ~mask) == 0).all()


def test_what_is_hidden_is_never_looked_at() -> None:
    values = np.full((4, 4, 3), np.nan, np.float32)
    values[:2] = 0.25
    hidden = np.zeros((4, 4), bool)
    hidden[2:] = True
    rgb = as_photo(values).rgb(np.s_[0:4, 0:4], hidden)
    assert (rgb[:2] == 0.25).all() and (rgb[2:] == 0).all()


def test_dark_photos_of_16_bits_stay_dark() -> None:
    dark = np.arange(H * W, dtype=np.uint16).reshape(H, W)
    files = []
    for name in ("PNG", "TIFF", "PPM"):
        Image.fromarray(dark).save(file := io.BytesIO(), name)
        files.append(Image.open(file))
    hole = np.eye(H, W) > 0
    for image in (*files, Image.fromarray(dark)):
        photo = as_photo(image)
        as_hole(hole, photo)
        assert photo.mode == "I;16" and photo.scale == 65535 and (photo.pixels[..., 0] == dark).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_what_is_shown_is_upright_and_says_nothing_of_turning(mode: str, orientation: int) -> None:
    image = picture(mode, orientation)
    photo = photo_of(image)
    shown, stored = photo.shown(photo.pixels), photo.to_pil(photo.pixels)
    assert shown.mode == stored.mode and np.array_equal(pixels(shown), pixels(ImageOps.exif_transpose(stored)))
    assert shown.getexif().get(0x0112, 1) == 1 and shown.getexif()[0x010F] == "ACME"
    assert {**shown.info, "exif": b""} == {**image.info, "exif": b""}, "profile and resolution go along"


@pytest.mark.parametrize("name", ["TIFF", "PNG", "JPEG"])
def test_a_file_that_is_only_opened_is_turned_once(name: str) -> None:
    image, exif = picture("RGB"), Image.Exif()
    exif[0x0112] = 6
    image.save(file := io.BytesIO(), name, exif=exif)
    photo = as_photo(Image.open(file))
    seen = ImageOps.exif_transpose(Image.open(file))
    assert photo.size == (seen.height, seen.width)
    assert np.array_equal(upright(photo.pixels, photo.orientation), np.asarray(seen))
    torn = io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2])
    if name == "PNG":
        with pytest.raises(InputError, match="the photo cannot be decoded: "):
            as_photo(Image.open(torn))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_a_view_turned_as_a_viewer_does(orientation: int) -> None:
    image = picture("RGB", orientation)
    stored = np.array(image)
    view = upright(stored, orientation)
    assert np.shares_memory(view, stored)
    assert (view == np.asarray(ImageOps.exif_transpose(image))).all()


def test_palettes_are_announced_and_transparency_becomes_a_channel() -> None:
    image = picture("P")
    with pytest.warns(UserWarning, match="palette.* it becomes RGB$"):
        as_photo(image)
    image.info["transparency"] = 3
    with pytest.warns(UserWarning, match="palette.* it becomes RGBA$"):
        photo = as_photo(image)
    assert photo.alpha is not None and (photo.alpha == np.where(np.asarray(image) == 3, 0, 255)).all()
    grey = picture("L")
    grey.info["transparency"] = int(np.asarray(grey)[0, 0])
    assert photo_of(grey).mode == "LA"


@pytest.mark.parametrize(
    ("given", "mode", "shape"),
    [
        (np.zeros((5, 7), np.uint8), "L", (5, 7, 1)),
        (np.zeros((5, 7), bool), "1", (5, 7, 1)),
        (np.zeros((5, 7), np.uint16), "I;16", (5, 7, 1)),
        (np.zeros((5, 7, 2), np.uint8), "LA", (5, 7, 2)),
        (np.zeros((5, 7, 3), np.float64), "RGB", (5, 7, 3)),
        (np.zeros((1, 5, 7, 4), np.uint8), "RGBA", (5, 7, 4)),
        (np.zeros((1, 5, 7), np.uint8), "L", (5, 7, 1)),
        (torch.zeros(3, 5, 7), "RGB", (5, 7, 3)),
        (torch.zeros(1, 3, 5, 7, dtype=torch.bfloat16), "RGB", (5, 7, 3)),
        (torch.zeros(5, 7, dtype=torch.uint8), "L", (5, 7, 1)),
    ],
)
def test_arrays_and_tensors(given: Any, mode: str, shape: tuple[int, ...]) -> None:
    photo = as_photo(given)
    assert (photo.mode, photo.pixels.shape) == (mode, shape)
    assert photo.to_pil(photo.repainted([])).mode == mode
    assert as_photo(photo) is photo


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((5, 7, 5), np.uint8), r"image has shape \[5, 7, 5\]"),
        (np.zeros((0, 7, 3), np.uint8), r"image has shape \[0, 7, 3\]"),
        (np.zeros((2, 5, 7, 3), np.uint8), r"image has shape \[2, 5, 7, 3\]"),
        (np.zeros((5, 7), np.int64), "image has type int64"),
        (np.zeros((5, 7, 3), np.uint16), "image has type uint16 and 3 channels"),
        ("photo.jpg", "image is str"),
        (Image.new("YCbCr", (4, 4)), "mode YCbCr"),
    ],
)
def test_what_is_no_photo_is_named(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_photo(given)
