"""Masks: the same one in every container, mode, dtype and range is the same hole; what may mean two things is told."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from nuwa_lip.errors import InputError
from nuwa_lip.images.hole import as_hole
from nuwa_lip.images.mask import read_mask
from nuwa_lip.images.photo import as_photo

H, W = 40, 60
MASK = np.zeros((H, W), bool)
MASK[10:20, 5:25] = True
MASK[30:32, 50:] = True
GREY = MASK.astype(np.uint8) * 255
SHADES = np.dstack([*np.meshgrid(np.arange(W), np.arange(H)), np.full((H, W), 20)]).astype(np.uint8) * 4
PHOTO = as_photo(SHADES)
COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "magenta": (200, 30, 160), "teal": (0, 90, 90)}


def with_channels(white: np.ndarray, channels: int) -> np.ndarray:
    """White where to repaint, black elsewhere, and opaque: [H, W, C]."""
    opaque = np.full_like(white, 255 if white.dtype == np.uint8 else 1)
    return np.dstack([white] * (channels - (channels in (2, 4))) + [opaque] * (channels in (2, 4)))


def drawn(colour: tuple[int, ...], alpha: np.ndarray, background: int = 0) -> np.ndarray:
    """Strokes of a colour on a transparent layer of black, or of white: uint8 [H, W, 4]."""
    colours = np.where(alpha[..., None] > 0, np.array(colour), background)
    return np.dstack([colours, alpha]).astype(np.uint8)


def containers(pixels: np.ndarray) -> Iterator[Any]:
    """One array [H, W, C] as everything that may hold it."""
    yield pixels
    yield pixels[None]
    yield np.asfortranarray(pixels)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    yield tensor
    yield tensor[None]
    kinds = {"b": (), "u": ()}.get(pixels.dtype.kind, (np.float16, np.float64, torch.float16, torch.bfloat16))
    yield from (pixels.astype(k) if isinstance(k, type) else tensor.to(k) for k in kinds)
    if pixels.shape[2] == 1:
        yield from (pixels[..., 0], pixels[..., 0][None], tensor[0])
    if pixels.dtype == np.uint8:
        yield Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def same_masks() -> Iterator[tuple[str, Any]]:
    """One mask in every container, mode, dtype and range."""
    for white in (MASK, GREY, MASK.astype(np.float32)):
        for channels in (1, 2, 3, 4):
            for mask in containers(with_channels(white, channels)):
                yield f"{white.dtype}, {channels} channels, {type(mask).__name__}", mask
    for name, colour in COLOURS.items():
        for background in (0, 255):
            layer = drawn(colour, GREY, background)
            for mask in (*containers(layer), *containers(layer.astype(np.float32) / 255)):
                yield f"{name} on transparent {background}, {type(mask).__name__}", mask
    grey = Image.fromarray(GREY)
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "RGBa"):
        yield mode, grey.convert("RGBA").convert(mode) if mode == "RGBa" else grey.convert("RGB").convert(mode)
    for kind in (np.uint16, np.int32, np.float32):
        for most in (1, 255, 65535):
            if (kind, most) not in ((np.uint16, 1), (np.int32, 1)):
                yield f"{kind.__name__} to {most}", Image.fromarray((MASK * most).astype(kind))
    yield "uint16", (MASK * 65535).astype(np.uint16)
    yield "uint16 tensor", torch.from_numpy((MASK * 65535).astype(np.uint16))
    yield "I;16B", Image.frombytes("I;16B", (W, H), (MASK * 65535).astype(">u2").tobytes())
    labels = Image.fromarray(MASK.astype(np.uint8) + 3)
    labels.putpalette([9] * 9 + [0] * 3 + [255] * 3)
    yield "palette", labels
    labels = labels.copy()
    labels.info["transparency"] = 3
    yield "palette, transparent", labels
    jpeg = Image.fromarray(np.where(MASK, 250, 5).astype(np.uint8))
    yield "grey that is nearly black and white", jpeg


@pytest.mark.parametrize(("name", "mask"), list(same_masks()))
def test_one_mask_in_every_container_mode_dtype_and_range_is_one_hole(name: str, mask: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hole = as_hole(mask, PHOTO)
    assert (hole.mask == MASK).all(), name
    inverted = as_hole(mask, PHOTO, invert=True).mask
    assert (inverted == ~MASK).all(), name


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("opacity", [60, 127, 128, 200, 254])
def test_strokes_count_in_every_colour_and_opacity(colour: tuple[int, ...], opacity: int) -> None:
    alpha = (MASK * opacity).astype(np.uint8)
    assert (as_hole(drawn(colour, alpha), PHOTO).mask == MASK).all()
    both = np.maximum(alpha, np.roll(GREY, 15, 1))  # beside opaque strokes, and across them
    assert (as_hole(drawn(colour, both), PHOTO).mask == (both > 0)).all()
    rounded = drawn(colour, np.where(MASK, opacity, 3).astype(np.uint8))
    rounded[..., :3] += np.random.default_rng(0).integers(0, 3, (H, W, 3), dtype=np.uint8)
    rounded[0, 0] = (255, 255, 255, 9)
    assert (as_hole(rounded, PHOTO).mask == MASK).all()


def test_strokes_of_several_colours_all_count() -> None:
    layer = drawn(COLOURS["teal"], GREY)
    layer[10:20, 15:25, :3] = COLOURS["magenta"]
    layer[30:32, 50:, :3] = 255
    assert (as_hole(layer, PHOTO).mask == MASK).all()


def test_soft_strokes_count_to_the_middle_and_are_announced() -> None:
    brush = Image.new("L", (400, 300))
    ImageDraw.Draw(brush).line((100, 150, 300, 150), 255, 80)
    alpha = np.asarray(brush.filter(ImageFilter.GaussianBlur(9)))
    photo = as_photo(np.zeros((300, 400, 3), np.uint8))
    for colour in COLOURS.values():
        with pytest.warns(UserWarning, match="is soft: it is cut at an opacity of 128 of 255"):
            assert (as_hole(drawn(colour, alpha), photo).mask == (alpha >= 128)).all()
    with pytest.warns(UserWarning, match="the mask is soft, .* it is cut at 128 of 255"):
        assert (as_hole(alpha, photo).mask == (alpha >= 128)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an edge that is smoothed only
        edge = np.asarray(brush.resize((200, 150), Image.Resampling.BOX))
        as_hole(edge, as_photo(np.zeros((150, 200, 3), np.uint8)))


def test_black_and_white_on_a_layer_are_told() -> None:
    layer = drawn(COLOURS["white"], GREY)
    layer[30:32, 50:, :3] = 0
    layer[33:35, 50:] = (0, 0, 0, 255)
    with pytest.warns(UserWarning, match="black and white: all of it is repainted"):
        assert (as_hole(layer, PHOTO).mask == (layer[..., 3] > 0)).all()
    with pytest.warns(UserWarning, match=r"61.7 % of the mask's transparent layer"):
        as_hole(drawn(COLOURS["teal"], np.where(np.arange(W) < 37, 255, 0) * np.ones((H, 1), int)), PHOTO)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_photo_with_its_hole_rubbed_out_is_recognised(orientation: int) -> None:
    photo = Image.fromarray(SHADES)
    photo.getexif()[0x0112] = orientation
    rubbed = Image.fromarray(np.dstack([SHADES, 255 - GREY]))
    for mask in (rubbed, np.asarray(rubbed), np.asarray(rubbed).astype(np.float32) / 255):
        with pytest.warns(UserWarning, match="the photo itself with a part rubbed out"):
            hole = as_hole(mask, as_photo(photo), orientation="stored")
        assert (hole.mask == (MASK if orientation == 1 else np.rot90(MASK, -1))).all() and not hole.opaque
        assert "the photo itself, transparent = repaint" in hole.reading


NOISE = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
REFUSED: dict[str, tuple[Any, str]] = {
    "0 and 1, RGB": (Image.fromarray(GREY // 255).convert("RGB"), "values of 0 and 1 only: multiply them by 255"),
    "0 and 1, RGBA": (Image.fromarray(GREY // 255).convert("RGBA"), "values of 0 and 1 only"),
    "0 and 1 in all four": (Image.fromarray(with_channels(MASK.astype(np.uint8), 4)), "values of 0 and 1 only"),
    "0 and 1, 16 bits": (Image.fromarray(MASK.astype(np.uint16)), "values of 0 and 1 only"),
    "0 and 1, 32 bits": (Image.fromarray(MASK.astype(np.int32)), "values of 0 and 1 only"),
    "0 and 1, array": (with_channels(MASK.astype(np.uint8), 3), "mask_image has type uint8 and values up to 1"),
    "labels": (Image.fromarray(GREY // 255 * 5), "values up to 5 only, and 128 and more = repaint"),
    "wide labels": (Image.fromarray((MASK * 4095).astype(np.uint16)), "values up to 4095 only, and 32896 and more"),
    "floating-point labels": (Image.fromarray((MASK * 0.25).astype(np.float32)), "up to 0.25 only, and 0.5 and more"),
    "negative": (Image.fromarray(MASK.astype(np.int32) * 256 - 1), "numbers from -1 to 255"),
    "infinite": (Image.fromarray(np.where(MASK, np.inf, 0).astype(np.float32)), "numbers from 0 to inf"),
    "NaN": (np.where(MASK, 1, np.nan), "mask_image has floating-point numbers from nan to nan"),
    "a dark colour": (Image.fromarray(MASK[..., None] * np.array([255, 0, 0], np.uint8)), "values up to 76 only"),
    "a photo": (NOISE, "mask .* has colours"),
    "a grey photo": (NOISE[..., 0], "74.* % of the mask is neither black nor white, as in a photo"),
    "flat grey": (np.where(MASK, 255, 100).astype(np.uint8) * (SHADES[..., 0] > 9), "neither black nor white"),
    "another photo": (np.dstack([NOISE, 255 - GREY]), "many colours, as a photo, and transparent parts"),
    "black on white, a corner transparent": (
        np.dstack([GREY, GREY, GREY, np.where(SHADES[..., 0] > 9, 255, 0)]).astype(np.uint8),
        "black, white and transparent parts, which may mean two things",
    ),
    "faint": (drawn((255, 255, 255), (MASK * 9).astype(np.uint8)), "an opacity of up to 9 of 255 only"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_with_the_reason(name: str) -> None:
    mask, says = REFUSED[name]
    with pytest.raises(InputError, match=says) as caught:
        as_hole(mask, PHOTO)
    assert "\n" not in str(caught.value)


def test_colours_that_are_all_light_or_of_two_kinds_only_are_read() -> None:
    yellow = np.where(MASK[..., None], np.array([255, 255, 0]), 0).astype(np.uint8)
    yellow[0, 0] = 9
    white_on_red = np.where(MASK[..., None], 255, np.array([255, 0, 0])).astype(np.uint8)
    for mask in (yellow, white_on_red):
        assert (read_mask(mask, PHOTO).white == MASK).all()


def test_damaged_pictures_are_one_line() -> None:
    closed = Image.fromarray(GREY)
    closed.close()
    with pytest.raises(InputError, match="the mask cannot be decoded: .+"):
        as_hole(closed, PHOTO)
    with pytest.raises(InputError, match="the mask is 0x4: it has no pixels"):
        as_hole(Image.new("L", (0, 4)), PHOTO)
