"""Text that others have written, line by line."""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """The lines that hold something, as they are.

    Lines end as in files alone: `str.splitlines` would cut captions at U+2028, U+0085 and their like too.
    """
    return [line for line in text.split("\n") if line.strip()]
