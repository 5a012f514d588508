"""The synthetic set: its checker is never wrong on it, its holes hide shapes, its splits share nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nuwa_lip.data.shapes import (
    COLOURS,
    PLACES,
    SHAPES,
    check,
    held_out,
    hole_for,
    recoloured_caption,
    shape_samples,
)
from nuwa_lip.data.shards import Sample, read_samples, write_shards
from nuwa_lip.errors import InputError


def combinations(samples: list[Sample]) -> set[tuple[str, str, str]]:
    return {(o["colour"], o["shape"], o["position"]) for s in samples for o in s.meta["objects"]}


def repainted(sample: Sample, index: int, colour: str) -> Image.Image:
    """The sample with one shape in another colour, edges included."""
    pixels = np.asarray(sample.image).astype(float)
    hole = hole_for(sample, index)
    old = np.array(COLOURS[sample.meta["objects"][index]["colour"]], dtype=float)
    ground = pixels[hole][0]
    cover = ((pixels - ground) @ (old - ground) / ((old - ground) @ (old - ground))).clip(0, 1)[..., None]
    new = ground + cover * (np.array(COLOURS[colour]) - ground)
    return Image.fromarray(np.where(hole[..., None], new, pixels).round().astype(np.uint8))


@pytest.mark.parametrize("size, difficulty", [(32, "easy"), (64, "easy"), (64, "hard"), (128, "hard")])
def test_checker_is_right_on_the_truth(size: int, difficulty: str) -> None:
    for sample in shape_samples(1000 if size == 32 else 150, size=size, seed=5, difficulty=difficulty):
        for index, thing in enumerate(sample.meta["objects"]):
            verdict = check(sample.image, sample, index)
            assert (verdict.colour, verdict.shape) == (thing["colour"], thing["shape"])


def test_checker_sees_the_new_colour() -> None:
    for number, sample in enumerate(shape_samples(300, size=32, seed=6)):
        others = [c for c in COLOURS if c != sample.meta["objects"][0]["colour"]]
        colour = others[number % len(others)]
        assert check(repainted(sample, 0, colour), sample, 0).colour == colour


@pytest.mark.parametrize("size, difficulty", [(32, "easy"), (64, "hard")])
def test_checker_bears_blur_and_noise(size: int, difficulty: str) -> None:
    rng = np.random.default_rng(0)
    for sample in shape_samples(100, size=size, seed=7, difficulty=difficulty):
        soft = np.asarray(sample.image.filter(ImageFilter.GaussianBlur(size / 24))).astype(float)
        soft = (soft + rng.normal(0, 8, soft.shape)).clip(0, 255).astype(np.uint8)
        for index, thing in enumerate(sample.meta["objects"]):
            assert check(soft, sample, index).colour == thing["colour"]


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_an_empty_hole_shows_nothing(difficulty: str) -> None:
    for sample in shape_samples(50, size=64, difficulty=difficulty):
        for index in range(len(sample.meta["objects"])):
            pixels = np.array(sample.image)
            pixels[hole_for(sample, index)] = 140
            assert check(pixels, sample, index)[:2] == (None, None)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_hole_covers_the_shape_and_its_edges(difficulty: str) -> None:
    for sample in shape_samples(100, size=64, seed=1, difficulty=difficulty):
        holes = np.any([hole_for(sample, i, margin=0) for i in range(len(sample.meta["objects"]))], axis=0)
        pixels = np.asarray(sample.image).astype(int)
        assert np.ptp(pixels[~holes], axis=-1).max() < 30  # nothing coloured is left outside
        for index in range(len(sample.meta["objects"])):
            assert hole_for(sample, index, margin=3).sum() > hole_for(sample, index, margin=0).sum()


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_train_and_test_share_no_combination(difficulty: str) -> None:
    train, test = (
        combinations(list(shape_samples(1500, size=32, split=split, difficulty=difficulty)))
        for split in ("train", "test")
    )
    every = len(COLOURS) * len(SHAPES) * len(PLACES)
    assert not train & test
    assert len(test) == every // len(COLOURS) and all(held_out(*combination) for combination in test)
    assert len(train) == every - len(test)


def test_samples_depend_on_seed_and_index_alone() -> None:
    few, many, other = (list(shape_samples(n, size=32, seed=s)) for n, s in ((3, 0), (5, 0), (3, 1)))
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(np.asarray(a.image), np.asarray(b.image))
        assert a.meta == b.meta
    assert [s.captions for s in few] != [s.captions for s in other]


def test_captions_name_what_is_drawn() -> None:
    sample = next(s for s in shape_samples(50, difficulty="hard") if len(s.meta["objects"]) == 3)
    things = [f"a {o['colour']} {o['shape']} at the {o['position']}" for o in sample.meta["objects"]]
    assert sample.captions == [f"{things[0]}, {things[1]} and {things[2]}"]
    old = sample.meta["objects"][1]["colour"]
    assert recoloured_caption(sample, 1, "blue") == sample.captions[0].replace(
        things[1], things[1].replace(old, "blue")
    )
    with pytest.raises(InputError, match="beige"):
        recoloured_caption(sample, 1, "beige")


def test_checker_works_on_what_shards_hold(tmp_path: Path) -> None:
    write_shards(shape_samples(20, size=32, difficulty="hard"), tmp_path, image_format="png")
    for sample in read_samples(tmp_path):
        for index, thing in enumerate(sample.meta["objects"]):
            assert check(sample.image, sample, index).colour == thing["colour"]


@pytest.mark.parametrize("bad", [{"count": 0}, {"count": 1, "size": 8}])
def test_useless_sizes_are_refused(bad: dict) -> None:
    with pytest.raises(InputError, match="at least"):
        shape_samples(**bad)
