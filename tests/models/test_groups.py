"""Groups: their sizes by every schedule, and what the rows of each say and see."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.errors import InputError
from nuwa_lip.models.groups import SCHEDULES, group_sizes, rows_of, rows_of_each, rows_of_steps


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
def test_every_token_is_an_input_before_the_next_group_and_never_its_own(sizes: list[int]) -> None:
    slots, index, _ = rows = rows_of(sizes)
    count = sum(sizes)
    assert slots.tolist() == list(range(count))
    visible = rows.visible(count)
    for group, size in enumerate(sizes):
        start = sum(sizes[:group])
        own = slice(start, start + size)
        assert index[own].max() == start - 1  # the last one that is decided; -1: none
        for row in visible[own]:
            seen = index[row].tolist()
            assert set(seen) >= set(range(start)), "a row sees all that is decided"
            assert max(seen) == start - 1, "and nothing else"
        assert (rows.decided[own] == start).all()
        assert visible[own, own].diagonal().all()
        assert not visible[own, start + size :].any()


@settings(max_examples=100, deadline=None)
@given(RISING)
def test_steps_run_every_row_once(sizes: list[int]) -> None:
    steps, whole = rows_of_steps(sizes, by_confidence=False), rows_of(sizes)
    assert [len(rows.slots) for rows in steps] == sizes
    for i, row in enumerate(whole):
        assert torch.equal(torch.cat([rows_of([]).slots, *(rows[i] for rows in steps)]), row)
    assert rows_of_steps([], by_confidence=True) == []


@settings(max_examples=100, deadline=None)
@given(RISING)
def test_by_confidence_all_are_predicted_and_the_last_ones_run_once_more(sizes: list[int]) -> None:
    for step, rows in enumerate(rows_of_steps(sizes, by_confidence=True)):
        start, count = sum(sizes[:step]), sum(sizes)
        before = sizes[step - 1] if step else 0
        assert rows.slots.tolist() == list(range(start - before, count))
        again, whole = rows.input_index[:before], rows_of(sizes).input_index
        assert torch.equal(again, whole[start - before : start]), "as they stand now"
        for row in rows.visible(count)[before:]:
            seen = rows_of([*sizes[:step], count - start]).input_index[row].tolist()
            assert set(seen) >= set(range(start)) and max(seen) == start - 1


@settings(max_examples=100, deadline=None)
@given(st.lists(RISING, min_size=1, max_size=4))
def test_rows_of_a_batch_are_those_of_each_and_see_nothing_behind_them(sizes: list[list[int]]) -> None:
    each = rows_of_each(sizes)
    longest = max(sum(one) for one in sizes)
    visible = each.visible(longest)
    assert visible.shape == (len(sizes), longest, longest)
    for i, one in enumerate(sizes):
        own, count = rows_of(one), sum(one)
        assert all(torch.equal(row[i, :count], alone) for row, alone in zip(each, own, strict=True))
        assert torch.equal(visible[i, :count, :count], own.visible(count)) and not visible[i, :count, count:].any()
        assert visible[i, count:].sum() == longest - count, "what is behind sees itself"


@pytest.mark.parametrize(("sizes", "says"), [([8, 4], "of 4 tokens comes after one of 8"), ([0, 1], "of 0 tokens")])
def test_groups_that_shrink_are_refused(sizes: list[int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rows_of(sizes)


def test_with_one_token_a_step_the_input_is_the_token_before() -> None:
    _, index, _ = rows = rows_of([1] * 7)
    assert index.tolist() == [-1, 0, 1, 2, 3, 4, 5]
    assert torch.equal(rows.visible(7), torch.ones(7, 7).tril().bool())


def test_groups_that_grow_repeat_the_last_token() -> None:
    _, index, prefix = rows_of([1, 2, 4])
    assert index.tolist() == [-1, 0, 0, 1, 2, 2, 2]
    assert prefix.tolist() == [0, 2, 2, 5, 5, 5, 5]
