"""Photos compared: every pixel counts, in whatever form it is stored."""

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.compare import differences, region
from nuwa_lip.images.photo import as_photo


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_one_pixel_is_found(mode: str) -> None:
    before = Image.new(mode, (7, 5))
    after = before.copy()
    after.putpixel((4, 2), tuple([1] * len(mode)) if mode in ("LA", "RGB", "RGBA", "CMYK") else 1)
    found = differences(as_photo(before), as_photo(after))
    assert found.sum() == 1 and found[2, 4] and region(found) == "1x1+4+2"
    assert not differences(as_photo(before), as_photo(before)).any()


def test_a_box_around_all() -> None:
    pixels = np.zeros((9, 9), bool)
    pixels[1, 2] = pixels[6, 4] = True
    assert region(pixels) == "3x6+2+1" and region(pixels & False) == ""


@pytest.mark.parametrize("other", [Image.new("L", (7, 5)), Image.new("RGB", (5, 7))])
def test_what_is_not_alike_is_not_compared(other: Image.Image) -> None:
    with pytest.raises(InputError, match="7x5 RGB"):
        differences(as_photo(Image.new("RGB", (7, 5))), as_photo(other))
