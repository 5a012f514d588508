"""Sheets: what is put in can be found again, whatever its size and mode."""

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.images.sheets import GAP, HOLE, draw_sheet, show_hole


def test_the_hole_is_grey_and_the_rest_is_the_photo() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 100, (4, 6, 3), dtype=np.uint8))
    mask = np.zeros((4, 6), bool)
    mask[1, 2] = True
    shown = np.asarray(show_hole(photo, mask))
    assert (shown[mask] == HOLE).all() and (shown[~mask] == np.asarray(photo)[~mask]).all()


def test_pictures_stand_in_rows_fitted_into_cells() -> None:
    red, wide = Image.new("RGB", (10, 10), "red"), Image.new("RGB", (200, 50), "blue")
    sheet = np.asarray(draw_sheet([([red, wide], "one"), ([red], "")], headings=("a", "b"), cell=40))
    assert sheet.shape[1] == 2 * (40 + GAP) + GAP
    for colour, size in (((255, 0, 0), 2 * 40 * 40), ((0, 0, 255), 40 * 10)):
        assert (sheet == colour).all(-1).sum() == size
    assert (sheet == 0).all(-1).any(), "there is text"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F"])
def test_pictures_of_every_mode(mode: str) -> None:
    assert draw_sheet([([Image.new(mode, (5, 3))], "x")], cell=20).mode == "RGB"


def test_a_caption_that_is_too_long_is_cut() -> None:
    picture = Image.new("RGB", (5, 5), "white")
    long = np.asarray(draw_sheet([([picture], "word " * 100)], cell=100))
    assert (long[:, -GAP:] == 255).all(), "the margin stays free"


def test_a_caption_of_many_lines_or_letters_is_one_short_line() -> None:
    picture = Image.new("RGB", (5, 5), "white")
    one, many = (draw_sheet([([picture], caption)], cell=100) for caption in ("a bear", " a\n\nbear\r\n"))
    assert np.array_equal(np.asarray(one), np.asarray(many))
    draw_sheet([([picture], "i" * 1_000_000)], cell=100)  # measuring it two letters a time would take hours
