"""Painters of squares on photos of any size: known pixels exact, nothing of the hole seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuwa_lip.baselines.squares import GREY, Painter, by_photo, by_windows, from_square, to_square
from nuwa_lip.data.benchmark import BenchmarkItem


def item(height: int, width: int, seed: int, share: float, hole: int | None = None) -> BenchmarkItem:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = True
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if hole is not None:
        image[mask] = hole
    return BenchmarkItem(index=3, name="00003", image=image, mask=mask, caption="a caption")


def scribble(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
    """Something other than the photo everywhere, which depends on all that is given."""
    return (image ^ np.uint8(255)) + mask[..., None] + np.uint8(len(caption) + seed % 7)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 1.0]))
def test_known_pixels_are_exact_and_the_hole_is_not_seen(height: int, width: int, seed: int, share: float) -> None:
    for repaint in (by_windows(Painter(scribble, 16)), by_photo(scribble)):
        results = [repaint(item(height, width, seed, share, hole)) for hole in (None, 0, 255)]
        truth = item(height, width, seed, share)
        assert results[0].shape == truth.image.shape and results[0].dtype == np.uint8
        assert (results[0][~truth.mask] == truth.image[~truth.mask]).all()
        assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


def test_a_painter_gets_grey_holes_and_a_seed_of_the_photo() -> None:
    seen = []

    def look(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
        seen.append((image.copy(), mask, caption, seed))
        return np.full_like(image, 9)

    photo = item(24, 24, 0, 0.3)
    out = by_windows(Painter(look, 24), seed=5)(photo)
    ((image, mask, caption, seed),) = seen
    assert (mask == photo.mask).all() and (image[mask] == GREY).all() and caption == "a caption" and seed == 8
    assert (image[~mask] == photo.image[~mask]).all(), "a photo of the model's size is not resampled"
    assert (out[photo.mask] == 9).all()


def test_tensors_and_back() -> None:
    photo = item(8, 8, 1, 0.3)
    x, m = to_square(photo.image, photo.mask)
    assert x.shape == (1, 3, 8, 8) and float(x.abs().max()) <= 1 and (x[m.expand_as(x)] == 0).all()
    assert (from_square(x)[~photo.mask] == photo.image[~photo.mask]).all()
    assert from_square(x)[photo.mask] == pytest.approx(128, abs=1)
