"""Objects as holes: where their pixels are, which one a bucket takes, whose phrase a hole gets."""

import numpy as np
import pytest

from nuwa_lip.data.masks import rule_mask
from nuwa_lip.data.objects import Outline, best_phrase, object_mask

SMALL = Outline((0.1, 0.1, 0.3, 0.3), (), "a cup")
HALF = Outline((0.0, 0.0, 0.5, 1.0), (), "a wall")
WHOLE = Outline((0.0, 0.0, 1.0, 1.0), (), "a room")
AWAY = Outline((1.2, 0.0, 1.4, 0.5), (), "outside of the cut")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_boxes_cover_their_pixels() -> None:
    mask = object_mask([HALF], "boxes", (20, 40), (0.4, 0.6), rng())
    assert mask is not None and mask[:, :20].all() and not mask[:, 20:].any()


def test_segments_are_the_union_of_their_polygons() -> None:
    square = (0.0, 0.0, 0.25, 0.0, 0.25, 0.5, 0.0, 0.5)
    triangle = (0.5, 0.0, 1.0, 0.0, 0.5, 1.0)
    mask = object_mask([Outline((0, 0, 1, 1), (square, triangle))], "segments", (400, 400), (0.1, 0.5), rng())
    assert mask is not None and mask[10, 10] and mask[10, 390] and not mask[390, 390] and not mask[300, 10]
    assert abs(mask.mean() - (0.125 + 0.25)) < 0.005
    assert object_mask([HALF], "segments", (20, 40), (0.4, 0.6), rng()) is None  # a box is no segment


@pytest.mark.parametrize(
    "share, covers", [((0.01, 0.1), 0.04), ((0.4, 0.6), 0.5), ((0.8, 0.9), 0.5), ((0.1, 0.2), 0.04)]
)
def test_the_bucket_or_the_nearest(share: tuple[float, float], covers: float) -> None:
    objects = [WHOLE, SMALL, AWAY, HALF]  # what hides nothing or everything is no candidate
    mask = object_mask(objects, "boxes", (100, 100), share, rng())
    assert mask is not None and mask.mean() == covers
    assert object_mask([WHOLE, AWAY], "boxes", (100, 100), share, rng()) is None


def test_chance_chooses_within_the_bucket_by_the_seed_alone() -> None:
    twins = [Outline((0.1 * i, 0.0, 0.1 * i + 0.5, 0.4)) for i in range(5)]
    drawn = [rule_mask("boxes-10-30", 50, 50, rng(seed), twins) for seed in range(20)]
    again = [rule_mask("boxes-10-30", 50, 50, rng(seed), twins) for seed in range(20)]
    np.testing.assert_array_equal(drawn, again)
    assert len({mask.tobytes() for mask in drawn if mask is not None}) > 2


def test_within_a_window() -> None:
    pixels = Outline((100, 50, 300, 150), ((100, 50, 300, 50, 300, 150),), "a door")
    assert pixels.within(100, 0, 400, 200) == Outline(
        (0, 0.25, 0.5, 0.75), ((0, 0.25, 0.5, 0.25, 0.5, 0.75),), "a door"
    )


def test_the_hole_gets_the_phrase_of_what_it_hides() -> None:
    objects = [WHOLE, Outline(HALF.box), SMALL, AWAY]
    mask = np.zeros((50, 50), dtype=bool)
    mask[4:16, 6:16] = True
    assert best_phrase(objects, mask) == "a cup"
    mask[2:48] = True
    assert best_phrase(objects, mask) == "a room"
    assert best_phrase([Outline(HALF.box)], mask) is None
