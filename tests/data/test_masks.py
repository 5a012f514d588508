"""Masks: the ratio is met, chance comes from the generator alone, and any size works."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.data.masks import KINDS, MaskRecipe, parse_rule, random_mask, random_masks, rule_mask
from nuwa_lip.errors import InputError


def only(kind: str, ratio: tuple[float, float] = (0.4, 0.6)) -> MaskRecipe:
    return MaskRecipe(**{name: float(name == kind) for name in KINDS}, ratio=ratio)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(("rectangles", "block", "strokes", "border")),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    ratio=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32),
)
def test_any_size_and_ratio(kind: str, height: int, width: int, ratio: float, seed: int) -> None:
    recipe = only(kind, (ratio, ratio))
    mask = random_mask(height, width, recipe, np.random.default_rng(seed))
    assert mask.dtype == bool and mask.shape == (height, width) and mask.any()
    np.testing.assert_array_equal(mask, random_mask(height, width, recipe, np.random.default_rng(seed)))
    # whole lines, or one dab of a brush, are the grain
    grain = max(height, width, 0.03 * height * width) + 0.015 * height * width
    assert abs(mask.sum() - ratio * height * width) <= grain


@pytest.mark.parametrize("kind", ["rectangles", "block", "strokes", "border"])
def test_ratio_is_within_the_range_and_spread_over_it(kind: str) -> None:
    rng = np.random.default_rng(0)
    shares = np.array([random_mask(64, 80, only(kind), rng).mean() for _ in range(150)])
    assert shares.min() >= 0.4 and shares.max() <= 0.6
    assert abs(shares.mean() - 0.5) < 0.02 and shares.std() > 0.04


@pytest.mark.parametrize("kind", ["rectangles", "block", "strokes", "border"])
def test_a_given_ratio_is_met_closely(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        assert abs(random_mask(128, 128, only(kind, (0.5, 0.5)), rng).mean() - 0.5) < 0.02


def test_everything_and_nothing() -> None:
    rng = np.random.default_rng(0)
    assert random_mask(5, 7, only("everything"), rng).all()
    assert not random_mask(5, 7, only("nothing"), rng).any()


def test_border_leaves_one_rectangle() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        mask = random_mask(40, 50, only("border"), rng)
        ys, xs = np.nonzero(~mask)
        assert not mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].any()


def test_a_block_is_one_rectangle() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        mask = random_mask(40, 50, only("block"), rng)
        ys, xs = np.nonzero(mask)
        assert mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()


def test_kinds_come_in_proportion() -> None:
    recipe = MaskRecipe(rectangles=2, everything=1, nothing=1)
    shares = random_masks(400, 16, 16, recipe, np.random.default_rng(0)).float().mean((1, 2, 3))
    assert abs((shares == 1).float().mean() - 0.25) < 0.07
    assert abs((shares == 0).float().mean() - 0.25) < 0.07


def test_batches_are_torch_and_differ() -> None:
    masks = random_masks(3, 20, 30, MaskRecipe(), np.random.default_rng(0))
    assert masks.shape == (3, 1, 20, 30) and masks.dtype == torch.bool
    assert not torch.equal(masks[0], masks[1])


def test_recipe_survives_json() -> None:
    recipe = MaskRecipe(strokes=0.5, ratio=(0.1, 0.3))
    assert json.loads(json.dumps(dataclasses.asdict(recipe)))["ratio"] == [0.1, 0.3]


BAD = [{"ratio": (0.6, 0.4)}, {"ratio": (0.0, 0.4)}, {"rectangles": 0.0}, {"border": -1}]


@pytest.mark.parametrize("bad", BAD)
def test_bad_recipes_are_named(bad: dict) -> None:
    with pytest.raises(InputError, match="mask (ratio|weights)"):
        MaskRecipe(**bad)


@pytest.mark.parametrize(
    "rule", ["rectangles-10-30", "block-10-30", "strokes-20-40", "border-30-50", "centre-25-25", "center-25-25"]
)
def test_every_rule_keeps_its_share(rule: str) -> None:
    low, high = (int(n) / 100 for n in rule.split("-")[1:])
    mask = rule_mask(rule, 96, 128, np.random.default_rng(0))
    assert mask is not None and mask.shape == (96, 128)
    assert low - 0.01 <= mask.mean() <= high + 0.01


def test_rules_are_parsed() -> None:
    assert parse_rule("rectangles-40-60") == ("rectangles", 0.4, 0.6)
    assert parse_rule("center-5-100") == parse_rule("centre-5-100") == ("centre", 0.05, 1.0)


@pytest.mark.parametrize(
    "rule",
    ["circles-10-20", "rectangles", "rectangles-60-40", "rectangles-0-10", "border-10-101", "everything-10-20"],
)
def test_unknown_rules_are_named(rule: str) -> None:
    with pytest.raises(InputError, match=f"{rule}.*boxes, segments"):
        rule_mask(rule, 8, 8, np.random.default_rng(0))


FROZEN = {
    "rectangles": "246aad050ff886f0",
    "block": "82e6ee22a26711dc",
    "strokes": "7a3637268e798dfc",
    "border": "0e31f8d97d07b4f7",
    "centre": "c90f618805c69e00",
}
"""Of 40 masks each. They stand for every benchmark that was ever built: never change them."""


@pytest.mark.parametrize("kind", FROZEN)
def test_a_seed_gives_the_mask_that_it_always_gave(kind: str) -> None:
    digest = hashlib.sha256()
    for seed in range(40):
        low, (height, width) = 5 + 2 * seed, ((256, 256), (64, 80), (17, 9), (120, 33))[seed % 4]
        mask = rule_mask(f"{kind}-{low}-{low + 10}", height, width, np.random.default_rng([seed, 7]))
        assert mask is not None
        digest.update(np.packbits(mask).tobytes())
    assert digest.hexdigest()[:16] == FROZEN[kind]
