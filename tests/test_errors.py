"""An error of a library is put into one line."""

import pytest

from nuwa_lip.errors import first_line


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("one\ntwo"), "one"),
        (RuntimeError("\n  what is wrong:\n\tthis"), "what is wrong"),
        (KeyError("x"), "'x'"),
        (EOFError(), "EOFError"),
        (OSError(" \n"), "OSError"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, says: str) -> None:
    assert first_line(error) == says
