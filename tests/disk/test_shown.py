"""What a terminal, rich, a page or a spreadsheet would obey is spelled out."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from nuwa_lip.disk import clean, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 東 [red] <b>", "café 東 [red] <b>"),
        ("\x1b[2Jgone\x07", r"\x1b[2Jgone\x07"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\nb\u2028\x85", r"a\nb\u2028\x85"),
        ("half \udcff", r"half \udcff"),
    ],
)
def test_a_line_of_a_terminal(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text(st.sampled_from("[]/\\ab#@=\x1b\n\u202e"), max_size=12))
def test_rich_shows_the_text_itself(text: str) -> None:
    assert Text.from_markup(escaped(text, "markup")).plain == escaped(text) or text.endswith("\\")


def test_a_page() -> None:
    assert escaped("<script>\u202e\"'&", "page") == r"&lt;script&gt;\u202e&quot;&#x27;&amp;"


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@SUM(A1)", "=cmd|'/c calc'!A1"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert escaped(text, "cell") == f"'{text}"


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+3e-2", "a=b", 7, None])
def test_a_cell_that_is_a_number_stays_one(value: object) -> None:
    assert escaped(value, "cell") == str(value)


@given(st.text(max_size=12))
def test_whatever_it_is_it_can_be_printed(text: str) -> None:
    shown = escaped(text, "cell")
    shown.encode("utf-8")
    assert shown.isprintable() or not set(shown) & {chr(i) for i in range(32)}
    stream = io.StringIO()
    csv.writer(stream).writerow([shown])
    assert len(stream.getvalue().splitlines()) == 1


def test_halves_of_characters_are_replaced() -> None:
    assert clean("a \ud83d dog 🐕") == "a ? dog 🐕"
