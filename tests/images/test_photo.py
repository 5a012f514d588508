"""Photos and masks in, photos out: known pixels are the input's bit for bit in every mode and orientation."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import STRIP, Hole, Patch, Photo, as_hole, as_photo, grow, upright, viewable

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16B", "I", "F")
H, W = 6, 9


def picture(mode: str, orientation: int = 1) -> Image.Image:
    """A random picture, 9 x 6 as it is stored."""
    rng = np.random.default_rng(len(mode))
    numbers: dict[str, Any] = {
        "1": rng.random((H, W)) > 0.5,
        "I;16": rng.integers(0, 2**16, (H, W), dtype=np.uint16),
        "I": rng.integers(-(2**31), 2**31 - 1, (H, W), dtype=np.int32),
        "F": rng.random((H, W), dtype=np.float32),
    }
    rgba = Image.fromarray(rng.integers(0, 256, (H, W, 4), dtype=np.uint8))
    if mode in numbers:
        image = Image.fromarray(numbers[mode])
    elif mode in ("P", "PA"):
        image = rgba.convert("RGB").quantize(16).convert(mode)
    elif mode in ("I;16B", "RGBX"):
        image = Image.frombytes(mode, (W, H), rng.bytes(H * W * (4 if mode == "RGBX" else 2)))
    else:
        image = rgba.convert(mode)
    assert image.mode == mode
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "ACME"
    image.info |= {"exif": exif.tobytes(), "icc_profile": b"a profile", "dpi": (300, 300)}
    return image


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


@pytest.mark.parametrize("row", [0, 2 * STRIP, 2 * STRIP + 9])
def test_numbers_out_of_range_are_found_wherever_they_stand_but_in_the_hole(row: int) -> None:
    values = np.full((2 * STRIP + 10, 3, 4), 0.25, np.float32)
    hole = np.zeros(values.shape[:2], bool)
    hole[:, 0] = True
    values[:, 0, :3] = np.nan
    values[:, 1, 3] = 0
    values[:, 1, :3] = -9  # under full transparency
    as_hole(hole, as_photo(values))
    with pytest.warns(UserWarning, match="33.3 % of the hole is fully transparent"):
        as_hole(np.ones_like(hole), as_photo(values))
    for place, number, says in [
        ((row, 2, 0), np.nan, "NaN among them"),
        ((row, 2, 1), np.inf, "0 to inf"),
        ((row, 2, 2), np.nextafter(np.float32(1), np.float32(2)), "0 to 1.00000012"),
        ((row, 2, 2), -0.5, "-0.5 to 0.25"),
        ((row, 0, 3), 255, "0 to 255"),  # alpha is kept in the hole too
    ]:
        wrong = values.copy()
        wrong[place] = number
        with pytest.raises(InputError, match=f"floating-point numbers, {says}, are not within 0 to 1: scale them"):
            as_hole(hole, as_photo(wrong))


@pytest.mark.parametrize("content", [0, 255, 4000, -1, 2**31 - 1])
def test_bytes_in_wide_numbers_are_bytes_whatever_stands_in_the_hole(content: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.int32)
    grey[0, 0] = 255
    hole = np.zeros((H, W), bool)
    hole[2:4, 3:6] = True
    wide = np.where(hole, np.int32(content), grey)
    box = np.s_[0:H, 0:W]
    photo, plain = as_photo(Image.fromarray(wide)), as_photo(Image.fromarray(grey.astype(np.uint8)))
    as_hole(hole, photo)
    assert (photo.rgb(box, hole) == plain.rgb(box, hole)).all()
    patch = Patch(box, hole, np.random.default_rng(1).random((H, W, 3), dtype=np.float32))
    result, expected = (one.to_pil(one.repainted([patch])) for one in (photo, plain))
    assert result.mode == "L" and (np.asarray(result) == np.asarray(expected)).all()
    wide[0, 0] = 256
    as_hole(hole, deep := as_photo(Image.fromarray(wide)))
    assert deep.rgb(box, hole)[0, 0, 0] == np.float32(256 / 65535) and deep.to_pil(deep.pixels).mode == "I"


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


MASK = np.zeros((40, 60), bool)
MASK[10:20, 5:25] = True
BYTES = MASK.astype(np.uint8) * 255
GREY = Image.fromarray(BYTES)
PHOTO = as_photo(np.zeros((40, 60, 3), np.uint8))


def layer(colour: tuple[int, int, int], other: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Image.Image:
    """A drawing in one colour on a layer of another."""
    return Image.fromarray(np.where(MASK[..., None], np.array([*colour, 255]), other).astype(np.uint8))


@pytest.mark.parametrize(
    "mask",
    [
        GREY,
        GREY.convert("1"),
        GREY.convert("RGB"),
        GREY.convert("P"),
        GREY.convert("CMYK"),
        GREY.convert("LA"),
        GREY.convert("RGBA"),
        layer((255, 0, 0)),
        layer((255, 255, 255), (255, 0, 0, 255)),
        layer((255, 255, 255), (255, 255, 255, 10)),
        Image.fromarray(BYTES.astype(np.uint16) * 257),
        Image.fromarray(BYTES.astype(np.uint16)),
        Image.fromarray(BYTES.astype(np.int32)),
        Image.fromarray(MASK.astype(np.float32)),
        Image.fromarray(BYTES.astype(np.float32)),
        MASK,
        MASK[..., None],
        MASK[None],
        BYTES,
        BYTES[..., None].repeat(3, -1),
        MASK.astype(np.float64),
        torch.from_numpy(MASK),
        torch.from_numpy(MASK)[None, None],
        torch.from_numpy(BYTES)[None],
        torch.from_numpy(MASK).float(),
    ],
)
def test_masks_of_every_kind_are_understood(mask: Any) -> None:
    hole = as_hole(mask, PHOTO)
    assert hole.mask.dtype == bool and (hole.mask == MASK).all()
    assert "repaint" in hole.understood and not hole.opaque
    assert as_hole(hole, PHOTO) is hole


def test_grey_counts_from_the_middle_and_can_be_inverted() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256)
    photo = as_photo(np.zeros((1, 256, 3), np.uint8))
    hole = as_hole(ramp, photo).mask
    assert not hole[0, :128].any() and hole[0, 128:].all()
    assert (as_hole(ramp, photo, invert=True).mask == ~hole).all()
    black = np.zeros((40, 60), np.uint8)
    assert as_hole(black, PHOTO, invert=True).mask.all()
    with pytest.raises(InputError, match="nothing to repaint.*inverted"):
        as_hole(~black, PHOTO, invert=True)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.zeros((40, 60), np.uint8), "nothing to repaint: the mask is empty"),
        (layer((255, 255, 255)).split()[3].point(lambda _: 0), "nothing to repaint"),
        (Image.new("RGBA", (60, 40)), "nothing to repaint"),
        (np.ones((41, 60), bool), "the mask is 60x41, the photo 60x40; they must be of one size"),
        (np.ones((60, 40), bool), "the mask is 40x60, the photo 60x40"),
        (BYTES.astype(np.int64), "mask_image has type int64 and values up to 255"),
        (MASK.astype(np.uint8), "mask_image has type uint8 and values up to 1"),
        (MASK.astype(np.int8), "mask_image has type int8"),
        (Image.fromarray(MASK.astype(np.uint8)), "the mask has values of 0 and 1 only: multiply them by 255"),
        (Image.new("LAB", (60, 40)), "the mask has the mode LAB, .* save it in grey or RGB"),
        (Image.new("La", (60, 40)), "the mask has the mode La,"),
        (Image.fromarray(np.where(MASK, 1, np.nan).astype(np.float32)), "the mask's .* have NaN among them"),
        ([[1]], "mask_image is list"),
        (None, "no mask, and the photo has no alpha channel"),
    ],
)
def test_bad_masks_are_named(mask: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        as_hole(mask, PHOTO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_may_lie_as_the_photo_is_stored_or_as_it_is_seen(orientation: int) -> None:
    image = picture("RGB", orientation)
    photo = as_photo(image)
    seen = np.zeros(photo.size, bool)
    seen[1:3, 2:4] = True
    assert (as_hole(seen, photo).mask == seen).all()
    if orientation >= 5:
        stored = np.zeros((H, W), bool)
        upright(stored, orientation)[seen] = True
        hole = as_hole(stored, photo)
        assert (hole.mask == seen).all() and "turned as the photo" in hole.understood
        turned = Image.fromarray(stored)
        turned.info["exif"] = image.info["exif"]
        assert (as_hole(turned, photo).mask == seen).all()


def test_without_a_mask_the_transparent_part_is_repainted_and_becomes_opaque() -> None:
    alpha = np.full((4, 4), 255, np.uint8)
    alpha[0], alpha[1] = 0, 200
    image = Image.fromarray(np.dstack([np.full((4, 4, 3), 9, np.uint8), alpha]))
    photo = as_photo(image)
    hole = as_hole(None, photo)
    assert hole.opaque and hole.mask[0].all() and not hole.mask[1:].any()
    patch = Patch(np.s_[0:4, 0:4], hole.mask, np.ones((4, 4, 3), np.float32))
    out = photo.repainted([patch], hole.opaque)
    assert (out[0] == 255).all() and (out[1:] == photo.pixels[1:]).all()
    image.putalpha(255)
    with pytest.raises(InputError, match="nothing to repaint.*nothing of the photo is transparent"):
        as_hole(None, as_photo(image))
    with pytest.raises(InputError, match="no mask to invert"):
        as_hole(None, photo, invert=True)


def test_a_mask_over_what_is_transparent_is_announced() -> None:
    pixels = np.full((40, 60, 4), 255, np.uint8)
    pixels[:, :10, 3] = 0
    photo = as_photo(pixels)
    with pytest.warns(UserWarning, match="25 % of the hole is fully transparent.* stays invisible: give no mask"):
        as_hole(MASK, photo)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_hole(None, photo)
        as_hole(MASK, PHOTO)
        pixels[:, :10, 3] = 1
        as_hole(MASK, photo)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 25), st.integers(0, 2**32 - 1))
def test_grow_reaches_as_far_as_it_says(height: int, width: int, far: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.9
    grown = grow(mask, far)
    for y in range(height):
        for x in range(width):
            near = mask[max(0, y - far) : y + far + 1, max(0, x - far) : x + far + 1]
            assert grown[y, x] == near.any()


@pytest.mark.parametrize("mode", MODES)
def test_viewable_is_8_bit_rgb_and_upright(mode: str) -> None:
    shown = viewable(picture(mode, 6))
    assert shown.mode == "RGB" and shown.size == (H, W)
    fine = viewable(Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)))
    assert np.asarray(fine)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    rough = np.array([[0.5, np.nan, np.inf]], np.float32)  # as may stand in a hole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in (Image.fromarray(rough), as_photo(rough).to_pil(rough[..., None])):
            assert np.asarray(viewable(image))[0, :, 0].tolist() == [128, 0, 255]
    assert viewable(Image.new("RGBA", (1, 1))).getpixel((0, 0)) == (255, 255, 255)


def test_a_hole_is_one_thing() -> None:
    """Not a sequence, which the pipeline would take for several masks."""
    assert not isinstance(Hole(MASK, "white = repaint"), (list, tuple))
