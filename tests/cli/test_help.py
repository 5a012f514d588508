"""Help: paragraphs from docstrings of several lines, and defaults as dataclasses have them."""

from dataclasses import dataclass, field

import pytest
import tyro

from nuwa_lip.cli.help import field_texts, registry, with_joined_lines


@dataclass(frozen=True, kw_only=True)
class Base:
    size: int
    """Side,
    in pixels."""
    untold: int = 7


@dataclass(frozen=True, kw_only=True)
class Model(Base):
    names: tuple[str, ...] = field(default_factory=lambda: ("a", "b"))
    """Names
    (all)."""


def build(model: Model, *, kind: str = "k") -> None:
    """Build it.

    Args:
        model: The model.
        kind: Of two
            (or more).
    """


def test_docstrings_of_bases_too_become_one_line() -> None:
    assert field_texts(Model) == {"size": "Side, in pixels.", "names": "Names (all)."}
    assert field_texts(type("Unwritten", (Base,), {})) == {"size": "Side, in pixels."}


def test_help_has_them_joined(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(with_joined_lines(build), args=["--help"], registry=registry())
    shown = capsys.readouterr().out
    assert "Side, in pixels. (required)" in shown and "Names (all)." in shown and "Of two (or more)." in shown


def test_defaults_are_those_of_the_instance_or_of_the_class() -> None:
    words = ["--size", "3"]
    assert tyro.cli(Model, args=words, registry=registry()) == Model(size=3)
    whole = Model(size=1, untold=2, names=("c",))
    assert tyro.cli(Model, args=words, default=whole, registry=registry()) == Model(size=3, untold=2, names=("c",))
