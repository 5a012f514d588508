"""Sheets from tensors: what is drawn where, and holes as the other sheets show them."""

import numpy as np
import torch

from nuwa_lip.images.sheets import GAP, draw_sheet, show_hole
from nuwa_lip.training.sheet import grey_hole, sample_sheet, to_pil


def test_every_byte_survives() -> None:
    values = torch.arange(256, dtype=torch.float32).view(1, 16, 16).expand(3, 16, 16)
    assert np.array_equal(np.asarray(to_pil(values * (2 / 255) - 1))[..., 0].ravel(), np.arange(256))
    assert np.asarray(to_pil(torch.tensor([-3.0, 0.0, 3.0]).view(3, 1, 1))).ravel().tolist() == [0, 128, 255]


def test_holes_are_those_of_every_sheet() -> None:
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[:, :, 2:5, 3:6] = True
    for photo, holed, hole in zip(image, grey_hole(image, mask), mask, strict=True):
        wanted = show_hole(to_pil(photo), hole[0].numpy())
        assert np.array_equal(np.asarray(to_pil(holed)), np.asarray(wanted))


def test_columns_stand_side_by_side_and_rows_have_their_captions() -> None:
    black, white = -torch.ones(2, 3, 4, 4), torch.ones(2, 3, 2, 2)
    sheet = sample_sheet({"dark": black, "light": white}, ["first", "second"])
    rows = [([to_pil(black[i]), to_pil(white[i])], text) for i, text in enumerate(("first", "second"))]
    assert np.array_equal(np.asarray(sheet), np.asarray(draw_sheet(rows, ("dark", "light"), cell=160)))
    assert sheet.getpixel((GAP + 80, 100)) == (0, 0, 0) and sheet.getpixel((2 * GAP + 240, 100)) == (255, 255, 255)
