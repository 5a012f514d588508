"""The second pass: squares cover a large hole, stay within their number, and change nothing else."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.errors import InputError
from nuwa_lip.images.windows import Box
from nuwa_lip.painters.painter import OPTIONS, Needs, Painting, Window
from nuwa_lip.painters.second_pass import SOFT, Pass, paint_anew, place_squares, plan_passes, soft
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling
from tests.small_models import seeded

SIDE = 32
RNG = np.random.default_rng(0)
PHOTO = RNG.random((150, 130, 3), dtype=np.float32)
HOLE = np.zeros((150, 130), bool)
HOLE[30:125, 20:110] = True
FLAT = np.where(HOLE[..., None], np.float32(0.5), PHOTO)


class Pattern:
    """Adds a fine pattern to the first painting, and keeps what it was given."""

    device = torch.device("cpu")
    needs = Needs(resolution=SIDE, options=OPTIONS)

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.seeds: list[int] = []

    def paint(self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Any) -> Painting:
        assert window.coarse is not None
        self.windows.append(window)
        self.seeds += seeds
        rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        return Painting([window.coarse + 0.5 * ((rows + columns) % 2 * 2 - 1)], torch.zeros(1))

    def to(self, *args: Any, **kwargs: Any) -> None:
        pass


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.integers(40, 300), st.integers(40, 300)), st.tuples(*[st.floats(0, 1)] * 4), st.integers(0, 120))
def test_squares_cover_the_hole_within_their_number(
    size: tuple[int, int], edges: tuple[float, float, float, float], most: int
) -> None:
    hole = np.zeros(size, bool)
    top, left = (int(edge * (length - 1)) for edge, length in zip(edges[:2], size, strict=True))
    bottom, right = (int(edge * (length - 1)) for edge, length in zip(edges[2:], size, strict=True))
    hole[min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1] = True
    window = Box(0, 0, max(size), max(size))
    passes = plan_passes(hole, window, SIDE, most)
    assert sum(len(one.squares) for one in passes) <= most
    for boxes, *_ in passes:
        covered = np.zeros(size, bool)
        for box in boxes:
            assert box.height == box.width >= SIDE
            covered[box.within(size)] = True
        assert (covered | ~hole).all()
    sides = [boxes[0].height for boxes, *_ in passes]
    assert sides == sorted(sides, reverse=True)
    if most == 120 and passes:
        assert sides[-1] <= SOFT * SIDE


def test_a_painting_that_is_hardly_enlarged_stays() -> None:
    assert plan_passes(HOLE, Box(0, 0, 48, 48), SIDE, 100) == []
    assert plan_passes(HOLE, Box(0, 0, 150, 150), SIDE, 0) == []


def test_the_cost_grows_with_the_holes_area() -> None:
    small, large = np.ones((96, 96), bool), np.ones((960, 960), bool)
    assert 50 < len(place_squares(large, SIDE, 1)) / len(place_squares(small, SIDE, 1)) < 110


@pytest.mark.parametrize("most", [4, 100])
def test_every_pixel_of_the_hole_is_painted_anew_and_no_other(most: int) -> None:
    painter = Pattern()
    passes = plan_passes(HOLE, Box(0, 0, 150, 150), SIDE, most)
    out = paint_anew(painter, FLAT, HOLE, passes, "", 0, Sampling())
    assert (out[~HOLE] == FLAT[~HOLE]).all()
    # a square of S · s pixels has the pattern enlarged s times, which is zero only between its cells
    assert (out[HOLE] != FLAT[HOLE]).mean() > (0.98 if most == 100 else 0.8)
    assert len(set(painter.seeds)) == len(painter.seeds) == sum(len(one.squares) for one in passes)


def test_squares_keep_the_first_paintings_colours() -> None:
    first = FLAT.copy()
    first[..., 0][HOLE] = np.linspace(0.2, 0.8, 130, dtype=np.float32)[None].repeat(150, 0)[HOLE]
    passes = plan_passes(HOLE, Box(0, 0, 150, 150), SIDE, 100)
    out = paint_anew(Pattern(), first, HOLE, passes, "", 0, Sampling())
    inner = slice(60, 100), slice(40, 90)
    far = [torch.from_numpy(image[inner]).permute(2, 0, 1)[None] for image in (out, first)]
    assert (soft(far[0], 8) - soft(far[1], 8)).abs().mean() < 0.02
    assert (out[inner] - first[inner]).std() > 0.1


def test_a_square_knows_what_is_finished_and_sees_the_rest_coarse() -> None:
    painter = Pattern()
    boxes = place_squares(HOLE, SIDE, 1)
    paint_anew(painter, FLAT, HOLE, [Pass(boxes, 4.0, 1.0)], "", 0, Sampling())
    for box, window in zip(boxes, painter.windows, strict=True):
        image, mask, coarse = window
        assert coarse is not None and (coarse[~mask.expand_as(coarse)] == image[~mask.expand_as(image)]).all()
        inside = torch.from_numpy(HOLE[box.within(HOLE.shape)])
        assert not (mask[0, 0] & ~inside).any()
    beside = [window for box, window in zip(boxes, painter.windows, strict=True) if box.left > boxes[0].left]
    # the square to the left has painted it, but for the rows that it has left to those below
    assert beside and not any(window.mask[..., : SIDE // 2, 0].any() for window in beside)
    assert all(window.mask[..., SIDE // 2].any() for window in beside)


class Uneven(Pattern):
    """Paints a pattern in each square, stronger from one to the next."""

    def paint(self, window: Window, prompt: str, seeds: list[int], *_: Any) -> Painting:
        super().paint(window, prompt, seeds, Sampling(), None)
        pattern = (torch.arange(SIDE) % 2 * 2 - 1.0)[:, None].expand(1, 3, SIDE, SIDE)
        return Painting([pattern * 0.2 * len(self.windows)], torch.zeros(1))


@settings(deadline=None, max_examples=40)
@given(first=st.integers(0, 60), height=st.integers(1, 90), below=st.integers(0, 40))
def test_the_holes_last_pixels_are_painted_beside_known_ones(first: int, height: int, below: int) -> None:
    hole = np.zeros((first + height + below, 48), bool)
    hole[first : first + height, 16:32] = True
    squares, painter = place_squares(hole, SIDE, 1), Uneven()
    out = paint_anew(
        painter, np.full((*hole.shape, 3), 0.5, np.float32), hole, [Pass(squares, 20.0, 1.0)], "", 0, Sampling()
    )
    assert len({box.left for box in squares}) == 1 and len(set(squares)) == len(squares)
    strength = np.abs(out[first + height - 1, 20:28, 0] - 0.5).mean()  # tells which square has painted it
    assert strength == pytest.approx(0.1 * len(painter.windows), abs=0.03)
    assert squares[-1].bottom >= min(first + height + SIDE // 8, len(hole))


def repaint(pipe: InpaintPipeline, **options: Any) -> Any:
    pixels = np.where(HOLE[..., None], RNG.random((150, 130, 3), dtype=np.float32), PHOTO)  # what is hidden is noise
    given = {"generator": seeded(), "output_type": "np", "squares": 40}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        out = pipe("a bear", pixels, HOLE, **(given | options))
    assert any("soft" in str(one.message) for one in told) == (options.get("squares") == 0)
    return out


def test_no_border_is_seen_between_squares() -> None:
    hole = np.ones((32, 96), bool)
    passes = [Pass(place_squares(hole, SIDE, 1), 20.0, 1.0)]
    out = paint_anew(Uneven(), np.full((32, 96, 3), 0.5, np.float32), hole, passes, "", 0, Sampling())
    strength = np.abs(out[..., 0] - 0.5).mean(0)  # of the pattern, by column
    assert strength[-1] - strength[0] > 0.25
    assert np.abs(np.diff(strength)).max() < 0.06  # 0.1 from one square to the next


def test_the_pipeline_keeps_known_pixels_and_seeds(tiny_pipe: InpaintPipeline) -> None:
    steps: list[tuple[int, int]] = []
    one = repaint(tiny_pipe, callback_on_step_end=lambda pipe, step, count, given: steps.append((step, count)))
    two = repaint(tiny_pipe, num_images_per_prompt=2)
    first = repaint(tiny_pipe, squares=0)
    assert (one.images[0][~HOLE] == PHOTO[~HOLE]).all()
    assert (one.images[0] == two.images[two.seeds.index(0)]).all()
    assert (one.images[0][HOLE] != first.images[0][HOLE]).mean() > 0.9 and one.scores == first.scores
    assert [step for step, _ in steps] == list(range(1, steps[-1][1] + 1))
    assert {count for _, count in steps} == {steps[-1][1]}


def test_the_number_of_squares_is_checked(tiny_pipe: InpaintPipeline) -> None:
    for wrong in (-1, 1.5, "4"):
        with pytest.raises(InputError, match="squares"):
            tiny_pipe("a bear", PHOTO, HOLE, squares=wrong)
