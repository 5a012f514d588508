"""Holes: the same mask in every container is the same hole; a photo's numbers mean the same whatever stands in it."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.hole import Hole, as_hole, grow
from nuwa_lip.images.photo import STRIP, Patch, as_photo, upright
from tests.pictures import H, W, picture

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
    assert "repaint" in hole.reading and not hole.opaque
    assert as_hole(hole, PHOTO) is hole


def test_grey_counts_from_the_middle_and_can_be_inverted() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256)
    photo = as_photo(np.zeros((1, 256, 3), np.uint8))
    with pytest.warns(UserWarning, match="the mask is soft, .* neither black nor white: it is cut at 128"):
        hole, other = as_hole(ramp, photo).mask, as_hole(ramp, photo, invert=True).mask
    assert not hole[0, :128].any() and hole[0, 128:].all() and (other == ~hole).all()
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
    if orientation < 5:
        with pytest.warns(UserWarning, match="the mask fits both ways: it is taken as the photo is displayed"):
            assert (as_hole(seen, photo).mask == seen).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = np.zeros((H, W), bool)
        upright(stored, orientation)[seen] = True
        tagged = Image.fromarray(stored)
        tagged.info["exif"] = image.info["exif"]
        given: list[tuple[Any, str | None]] = [(seen, "displayed"), (stored, "stored"), (tagged, None)]
        for mask, how in [*given, (tagged, "stored")]:
            assert (as_hole(mask, photo, orientation=how).mask == seen).all()
        symmetric = np.ones(photo.size, bool)
        assert as_hole(symmetric, photo).mask.all()
    if orientation >= 5:
        for mask, how in ((stored, "displayed"), (seen, "stored")):
            with pytest.raises(InputError, match=f"x.* as it is {how}; they must be of one size"):
                as_hole(mask, photo, orientation=how)
        seen_tagged = Image.fromarray(seen)
        seen_tagged.info["exif"] = image.info["exif"]
        with pytest.raises(InputError, match="the mask is 9x6 as its own EXIF turns it, the photo 6x9"):
            as_hole(seen_tagged, photo)
        stored = np.zeros((H, W), bool)
        upright(stored, orientation)[seen] = True
        hole = as_hole(stored, photo)
        assert (hole.mask == seen).all() and "turned as the photo" in hole.reading
        turned = Image.fromarray(stored)
        turned.info["exif"] = image.info["exif"]
        assert (as_hole(turned, photo).mask == seen).all()


def test_another_orientation_is_named() -> None:
    with pytest.raises(InputError, match="the mask's orientation is 'upright'; it must be 'displayed' or 'stored'"):
        as_hole(MASK, PHOTO, orientation="upright")


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


def test_a_hole_is_one_thing() -> None:
    """Not a sequence, which the pipeline would take for several masks."""
    assert not isinstance(Hole(MASK, "white = repaint"), (list, tuple))
