"""Groups: their sizes by every schedule, and what the rows of each say and see."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.errors import InputError
from nuwa_lip.models.groups import SCHEDULES, group_sizes, rows_of


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1100), st.none() | st.integers(1, 1200), st.sampled_from(SCHEDULES))
def test_group_sizes_grow_and_sum_up(tokens: int, steps: int | None, schedule: str) -> None:
    sizes = group_sizes(tokens, steps, schedule)
    assert sum(sizes) == tokens
    assert len(sizes) == (tokens if steps is None else min(steps, tokens))
    assert all(size >= 1 for size in sizes)
    assert sizes == sorted(sizes)
    if sizes and schedule == "constant":
        assert sizes[-1] - sizes[0] <= 1


def test_group_sizes_of_an_unknown_schedule_are_refused() -> None:
    with pytest.raises(InputError, match="no schedule 'linear'; there are: cosine, constant, confidence"):
        group_sizes(10, 3, "linear")


def test_group_sizes_follow_the_cosine() -> None:
    assert group_sizes(5, None) == [1] * 5
    assert group_sizes(7, 1) == [7]
    sizes = group_sizes(256, 8)
    for step in range(1, 9):
        assert sum(sizes[:step]) == pytest.approx(256 * (1 - math.cos(math.pi / 16 * step)), abs=2)


RISING = st.lists(st.integers(1, 9), max_size=12).map(sorted)


@settings(max_examples=200, deadline=None)
@given(RISING)
def test_every_token_is_said_before_the_next_group_and_never_its_own(sizes: list[int]) -> None:
    slots, said, _ = rows = rows_of(sizes)
    count = sum(sizes)
    assert slots.tolist() == list(range(count))
    visible = rows.visible(count)
    for group, size in enumerate(sizes):
        start = sum(sizes[:group])
        own = slice(start, start + size)
        assert said[own].max() == start - 1  # the last one that is decided; -1: none
        for row in visible[own]:
            heard = said[row].tolist()
            assert set(heard) >= set(range(start)), "a row hears of all that is decided"
            assert max(heard) == start - 1, "and of nothing else"
        assert visible[own, own].diagonal().all()
        assert not visible[own, start + size :].any()


@settings(max_examples=100, deadline=None)
@given(RISING, st.data())
def test_later_groups_have_the_same_rows_as_when_all_are_asked_for(sizes: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(sizes)))
    start = sum(sizes[:first])
    some, all_rows = rows_of(sizes, first), rows_of(sizes)
    assert all(torch.equal(a, b[start:]) for a, b in zip(some, all_rows, strict=True))
    assert torch.equal(some.visible(sum(sizes) + 3)[:, : sum(sizes)], all_rows.visible(sum(sizes))[start:])


def test_one_token_a_step_says_the_token_before() -> None:
    _, said, _ = rows = rows_of([1] * 7)
    assert said.tolist() == [-1, 0, 1, 2, 3, 4, 5]
    assert torch.equal(rows.visible(7), torch.ones(7, 7).tril().bool())


def test_groups_that_grow_repeat_the_last_token() -> None:
    _, said, reach = rows_of([1, 2, 4])
    assert said.tolist() == [-1, 0, 0, 1, 2, 2, 2]
    assert reach.tolist() == [0, 2, 2, 5, 5, 5, 5]
