"""Words of strangers where people or programs read them: a terminal, a page, a table.

Names of files and captions may hold what a terminal obeys (escape sequences), what turns the order of letters around
(bidi marks), what rich and HTML take for markup, or what a spreadsheet takes for a formula.
"""

import html
import re
from typing import Literal

OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # control characters, of which a terminal's escape sequences are made
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # bidi marks and ends of lines
    "\ud800-\udfff\ufeff]"  # halves of characters, as from names that are no UTF-8
)
MARKUP = re.compile(r"(\\*)(\[[a-z#/@][^[]*?\])|(\\+\[)")
"""What rich takes for a tag, with the backslashes before it, and other brackets that it would take a backslash from."""
FORMULA = ("=", "+", "-", "@")


def escaped(text: object, place: Literal["line", "markup", "page", "cell"] = "line") -> str:
    r"""Give a text as it is, but for what would be obeyed there, which is spelled out: "\x1b", "\u202e".

    Args:
        text: a name, a caption, the message of an error; other objects are taken as `str` gives them.
        place: line: of a terminal; markup: of a terminal, by rich's own markup; page: of HTML; cell: of a CSV, where a
            text that begins like a formula gets a quotation mark in front, and numbers stay numbers.
    """
    plain = OBEYED.sub(lambda found: ascii(found[0])[1:-1], str(text))
    if place == "markup":
        return MARKUP.sub(_as_it_is, plain)
    if place == "page":
        return html.escape(plain)
    if place == "cell" and isinstance(text, str) and plain.startswith(FORMULA) and not _is_number(plain):
        return f"'{plain}"
    return plain


def clean(text: str) -> str:
    """Replace what UTF-8 cannot hold, halves of characters: from a command line, a file name, or JSON's escapes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _as_it_is(found: re.Match[str]) -> str:
    backslashes, tag, bracket = found.groups()
    return f"\\{bracket}" if tag is None else f"{2 * backslashes}\\{tag}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
