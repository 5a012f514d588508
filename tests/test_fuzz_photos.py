"""A slice of the fuzz of photos and masks: `python tests/fuzz_photos.py` tries thousands."""

import pytest

from tests.fuzz_photos import run


@pytest.mark.parametrize("start", [0, 10])
def test_photos_and_masks_of_every_kind(start: int) -> None:
    wrong, counts = run(range(start, start + 10), 0)
    assert wrong == [] and counts["repainted"] >= 5
