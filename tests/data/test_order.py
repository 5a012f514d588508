"""The order of samples: shares of mixed sources, and a pure function of (seed, position) however it is asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.data.order import BLOCK, Mixture, Order, check_weights, permutation
from nuwa_lip.errors import InputError

WEIGHTS = st.lists(st.floats(0.05, 1), min_size=1, max_size=5).map(tuple)


@given(weights=WEIGHTS, seed=st.integers(0, 99), position=st.integers(0, 10**12))
@settings(max_examples=25)
def test_each_source_has_its_share(weights: tuple[float, ...], seed: int, position: int) -> None:
    mixture = Mixture(weights)
    taken = mixture.taken(seed, position)
    assert sum(taken) == position
    at_block = mixture.taken(seed, position // BLOCK * BLOCK)
    for count, weight in zip(at_block, weights, strict=True):
        assert abs(count - weight / sum(weights) * (position // BLOCK * BLOCK)) <= 1.01


@given(weights=WEIGHTS, seed=st.integers(0, 9), start=st.integers(0, 3 * BLOCK), count=st.integers(1, 300))
@settings(max_examples=40)
def test_nothing_is_left_out_and_nothing_comes_twice(
    weights: tuple[float, ...], seed: int, start: int, count: int
) -> None:
    mixture = Mixture(weights)
    found = mixture.sources(seed, range(start, start + count))
    before, after = mixture.taken(seed, start), mixture.taken(seed, start + count)
    for source in range(len(weights)):
        assert [place for of, place in found if of == source] == list(range(before[source], after[source]))


def test_sources_are_mixed_within_a_block() -> None:
    found = [source for source, _ in Mixture((3, 1)).sources(0, range(BLOCK))]
    assert Counter(found) == {0: BLOCK * 3 // 4, 1: BLOCK // 4}
    for start in range(0, BLOCK, 512):
        assert 80 < found[start : start + 512].count(1) < 180, "about 128, everywhere"
    assert found != [source for source, _ in Mixture((3, 1)).sources(1, range(BLOCK))]


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 9),
    mixed=st.booleans(),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
@settings(max_examples=30)
def test_an_order_does_not_depend_on_how_it_is_cut(
    sizes: tuple[int, ...], seed: int, mixed: bool, cuts: list[int]
) -> None:
    order = Order(sizes, tuple(range(1, len(sizes) + 1)) if mixed else ())
    whole, parts, start = order.rows(seed, range(sum(cuts))), [], 0
    for size in cuts:
        permutation.cache_clear()
        parts += order.rows(seed, range(start, start + size))
        start += size
    assert parts == whole and all(0 <= row < sum(sizes) for row in whole)


def test_each_source_has_epochs_of_its_own() -> None:
    rows = Order((3, 10), (1.0, 1.0)).rows(0, range(BLOCK))
    few, many = [row for row in rows if row < 3], [row for row in rows if row >= 3]
    assert len(few) == len(many) == BLOCK // 2
    for found, size in ((few, 3), (many, 10)):
        epochs = [sorted(found[i : i + size]) for i in range(0, len(found) - size, size)]
        assert all(epoch == epochs[0] and len(set(epoch)) == size for epoch in epochs)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ((1.0,), "--weights has 1 numbers for 2 of --data: give one for each, and quote patterns"),
        ((1.0, 0.0), "a weight is 0; it must be above 0"),
        ((1.0, float("nan")), "a weight is nan; it must be above 0"),
        ((1.0, float("inf")), "a weight is inf; it must be above 0"),
        ((1e4, 1.0), "weight 1 of 10001 is too small: 0.1% at least"),
    ],
)
def test_impossible_weights(weights: tuple[float, ...], says: str) -> None:
    with pytest.raises(InputError) as error:
        check_weights(["a", "b"], weights)
    assert says in str(error.value)
