"""Windows: every hole is inside one, nothing of the hole leaks into what the model sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.images.photo import Photo, as_photo
from nuwa_lip.images.windows import (
    MAX_ASPECT,
    MAX_JOIN,
    Box,
    find_holes,
    find_windows,
    look,
    place,
    put_back,
    resize_weights,
    share_windows,
    window_seed,
)

S = 32
masks = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32), st.floats(0.001, 1))


def random_mask(height: int, width: int, seed: int, share: float) -> np.ndarray:
    """A few rectangles, at least one pixel."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        y, x = rng.integers(height), rng.integers(width)
        mask[y : y + 1 + int(share * height * rng.random()), x : x + 1 + int(share * width * rng.random())] = True
    return mask


@settings(deadline=None)
@given(masks)
def test_windows_hold_every_hole_once(given: tuple[int, int, int, float]) -> None:
    mask = random_mask(*given)
    count = np.zeros(mask.shape, int)
    for window in find_windows(mask, S):
        count[window.within(mask.shape)] += 1
        assert max(window.height / window.width, window.width / window.height) <= MAX_ASPECT
    assert (count[mask] == 1).all() and count.max() == 1


def test_a_small_hole_gets_a_window_of_the_models_size_inside_the_photo() -> None:
    mask = np.zeros((400, 600), bool)
    mask[0:5, 590:600] = True
    assert find_windows(mask, 128) == [Box(0, 472, 128, 600)]


def test_a_larger_hole_gets_context_in_proportion_or_as_asked() -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[400:600, 400:500] = True
    (window,) = find_windows(mask, 128)
    assert (window.height, window.width) == (300, 300) and window.top == 350 and window.left == 300
    (window,) = find_windows(mask, 128, padding=10)
    assert (window.height, window.width) == (220, 220)


def test_a_hole_across_a_small_photo_takes_the_whole_photo_squeezed() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:55] = True
    assert find_windows(mask, 32) == [Box(0, 0, 40, 60)]


def test_a_strip_is_completed_with_nothing() -> None:
    mask = np.zeros((33, 500), bool)
    mask[10:20, 100:140] = True
    (window,) = find_windows(mask, 128)
    assert (window.top, window.bottom) == (-27, 59) and (window.left, window.right) == (56, 184)
    photo = as_photo(np.full((33, 500, 3), 200, np.uint8))
    view = look(photo, mask, window, 128)
    assert view.mask[:20].all() and view.mask[-20:].all() and not view.mask.all()
    assert np.allclose(view.image[~view.mask], 200 / 255)


def test_holes_far_apart_have_windows_of_their_own_and_near_ones_share() -> None:
    mask = np.zeros((300, 900), bool)
    mask[100:110, 100:110] = mask[100:110, 800:810] = True
    assert len(find_windows(mask, 128)) == 2
    mask[100:110, 180:190] = True
    first, second = sorted(find_windows(mask, 128), key=lambda box: box.left)
    assert first.left <= 100 and first.right >= 190 and second.left > 600


def specks(height: int, width: int, number: int, seed: int = 0) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    rng = np.random.default_rng(seed)
    for y, x in zip(rng.integers(0, height - 3, number), rng.integers(0, width - 3, number), strict=True):
        mask[y : y + 3, x : x + 3] = True
    return mask


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 80), st.integers(0, 9), st.sampled_from([None, 0, 20]), st.integers(0, 300))
def test_no_chain_of_holes_makes_a_window_too_large_for_any(
    number: int, seed: int, padding: int | None, large: int
) -> None:
    mask = specks(900, 1200, number, seed)
    mask[200 : 200 + large, 300 : 300 + large] = True
    count = np.zeros(mask.shape, int)
    boxes = find_holes(mask)
    parts = share_windows(mask, S, padding)
    assert [window for window, _ in parts] == find_windows(mask, S, padding)
    for window, own in parts:
        inside = window.within(mask.shape)
        count[inside] += own
        top, left = inside[0].start, inside[1].start
        alone = [
            place(box, mask.shape, S, padding)
            for box in boxes
            if own[max(box.top - top, 0) : box.bottom - top, max(box.left - left, 0) : box.right - left].any()
        ]
        side = max(window.height, window.width)
        assert alone and side <= MAX_JOIN * max(max(one.height, one.width) for one in alone)
    assert (count == mask).all(), "every hole's pixel belongs to one window"


def test_a_speck_beside_a_large_hole_is_not_painted_as_coarsely() -> None:
    mask = np.zeros((900, 900), bool)
    mask[100:700, 100:700] = True
    mask[100:700, 300:500] = False
    mask[400:403, 400:403] = True
    speck, *large = sorted(share_windows(mask, S), key=lambda part: part[0].height)
    assert speck[0].height == speck[0].width == S and speck[1].sum() == 9
    assert sum(own.sum() for _, own in large) == mask.sum() - 9


def test_what_is_far_away_moves_no_window() -> None:
    mask = specks(300, 300, 40)
    alone = find_windows(mask, S)
    for y, x in ((0, 590), (597, 0), (555, 333)):
        more = np.zeros((600, 600), bool)
        more[:300, :300] = mask
        here = find_windows(more, S)
        more[y : y + 3, x : x + 3] = True
        far = find_windows(more, S)
        assert len(far) == len(here) + 1 and set(here) < set(far) and len(here) == len(alone)


def test_holes_are_connected_diagonally() -> None:
    assert find_holes(np.eye(100, dtype=bool)) == [Box(0, 0, 100, 100)]


@pytest.mark.parametrize(("n", "out"), [(1, 8), (5, 8), (8, 8), (9, 8), (100, 8), (8, 1)])
def test_resize_weights_keep_a_constant(n: int, out: int) -> None:
    weights = resize_weights(n, out)
    assert weights.shape == (out, n) and np.allclose(weights.sum(1), 1, atol=1e-5) and (weights >= 0).all()
    if n == out:
        assert (weights == np.eye(n)).all()


@settings(deadline=None)
@given(masks, st.integers(0, 9))
def test_a_reduced_pixel_is_defective_if_any_under_it_is(given: tuple[int, int, int, float], seed: int) -> None:
    mask = random_mask(*given)
    height, width = mask.shape
    photo = as_photo(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    view = look(photo, mask, Box(0, 0, height, width), S)
    edges_y = [(i * height // S, -(-(i + 1) * height // S)) for i in range(S)]
    edges_x = [(i * width // S, -(-(i + 1) * width // S)) for i in range(S)]
    slow = np.array([[mask[a:b, c:d].any() for c, d in edges_x] for a, b in edges_y])
    assert (view.mask == slow).all()
    assert (view.image[view.mask] == 0).all() and np.isfinite(view.image).all()


@settings(deadline=None)
@given(masks)
def test_the_view_does_not_depend_on_the_hole(given: tuple[int, int, int, float]) -> None:
    mask = random_mask(*given)
    rng = np.random.default_rng(0)
    pixels = rng.random((*mask.shape, 3), dtype=np.float32)
    views = []
    for content in (None, 0, np.nan, np.inf, -1e30):
        other = pixels.copy()
        if content is not None:
            other[mask] = content
        views += [look(as_photo(other), mask, window, S) for window in find_windows(mask, S)]
    step = len(views) // 5
    for i, view in enumerate(views):
        assert view.image.tobytes() == views[i % step].image.tobytes()
        assert view.mask.tobytes() == views[i % step].mask.tobytes()


def test_colours_at_the_edge_are_of_known_pixels_only() -> None:
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[:, :31] = 100
    mask = np.zeros((64, 64), bool)
    mask[:, 31:] = True
    for size in (64, 32, 16, 128):
        view = look(as_photo(pixels), mask, Box(0, 0, 64, 64), size)
        assert np.allclose(view.image[~view.mask], 100 / 255, atol=1e-6)


def test_what_is_fully_transparent_is_not_looked_at() -> None:
    pixels = np.full((32, 32, 4), 90, np.uint8)
    pixels[:, :16, 3] = 0
    mask = np.zeros((32, 32), bool)
    mask[:4, 28:] = True
    view = look(as_photo(pixels), mask, Box(0, 0, 32, 32), 32)
    assert view.mask[:, :16].all() and view.mask[:4, 28:].all() and not view.mask[4:, 16:].any()


def test_a_large_window_is_reduced_to_its_average() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 500, 1), dtype=np.uint8)
    view = look(Photo(pixels=pixels, mode="L"), np.zeros((600, 500), bool), Box(0, 0, 600, 500), 10)
    means = pixels.reshape(10, 60, 10, 50).mean((1, 3)) / 255
    assert np.allclose(view.image, means[..., None], atol=1e-5)


@pytest.mark.parametrize("window", [Box(0, 0, 8, 8), Box(-4, 0, 12, 16), Box(2, -5, 10, 19), Box(-3, -3, 9, 13)])
def test_what_is_painted_comes_back_to_its_place(window: Box) -> None:
    across = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    image = torch.stack([across[:, 0], across[:, 0].mT, across[:, 0]], 1)  # red to the right, green downwards
    back = put_back(image, window, (9, 14))
    rows, columns = window.within((9, 14))
    assert back.shape == (rows.stop - rows.start, columns.stop - columns.start, 3) and back.dtype == np.float32
    # where a pixel's centre lies in the model's image, whose first and last centres are 0 and 1
    right = (np.arange(columns.start, columns.stop) - window.left + 0.5) / window.width * 8 - 0.5
    down = (np.arange(rows.start, rows.stop) - window.top + 0.5) / window.height * 8 - 0.5
    assert np.abs(back[..., 0] - (right / 7).clip(0, 1)).max() < 0.04
    assert np.abs(back[..., 1] - (down / 7).clip(0, 1)[:, None]).max() < 0.04


def test_every_window_of_every_candidate_has_a_seed_of_its_own() -> None:
    seeds = {window_seed(seed, number) for seed in range(1000) for number in range(50)}
    assert len(seeds) == 50_000 and window_seed(5, 0) == 5
