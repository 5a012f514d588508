"""Pictures: whatever a user has becomes an array, and 8-bit RGB to look at."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import as_photo
from nuwa_lip.images.pictures import as_array, viewable
from tests.pictures import MODES, H, W, picture


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_and_tensors_are_the_same_pixels_without_a_copy(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    given = [
        pixels,
        pixels[None],
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
    ]
    if channels == 1:
        given += [pixels[..., 0], pixels[None, ..., 0], torch.from_numpy(pixels[..., 0])]
    for values in given:
        array = as_array(values, "image")
        assert np.array_equal(array, pixels) and np.shares_memory(array, pixels)


def test_what_is_no_array_is_named() -> None:
    for values, says in ((np.zeros((2, 5, 7, 3)), "[2, 5, 7, 3]"), (np.zeros((5, 0)), "[5, 0]"), ([[1]], "list")):
        with pytest.raises(InputError) as caught:
            as_array(values, "mask_image")
        assert "mask_image" in str(caught.value) and says in str(caught.value)


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
