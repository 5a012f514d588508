"""Holes that are drawn: the pixels that were named, and nothing outside the photo."""

import numpy as np
import pytest

from nuwa_lip.commands.drawn_hole import drawn_hole
from nuwa_lip.errors import InputError


def test_rectangles_and_discs() -> None:
    expected = np.zeros((6, 9), bool)
    expected[2:5, 3:9] = True
    assert (drawn_hole((6, 9), [(3, 2, 100, 3)], []).mask == expected).all()
    assert (drawn_hole((6, 9), [(3, 2, 100, 3)], [], invert=True).mask == ~expected).all()
    assert drawn_hole((6, 9), [(-5, -5, 6, 6)], [(8, 5, 0)]).mask.nonzero()[0].tolist() == [0, 5]
    disc = drawn_hole((21, 21), [], [(10, 10, 5)]).mask
    assert (disc == disc.T).all() and (disc == disc[::-1]).all() and disc[5, 10] and not disc[4, 10]


@pytest.mark.parametrize("box", [(9, 0, 1, 1), (0, 6, 1, 1), (0, 0, 0, 1), (0, 0, 1, -1), (-3, 0, 3, 3)])
def test_what_lies_outside_is_named(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="has no pixel within the photo of 9x6"):
        drawn_hole((6, 9), [(0, 0, 1, 1), box], [])
