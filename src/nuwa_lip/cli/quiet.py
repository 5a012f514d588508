"""`--quiet`: standard output that nobody reads, but for a picture that a command writes to it."""

import contextlib
import io
import sys
from collections.abc import Iterator


class Silent(io.StringIO):
    """Takes text and forgets it; bytes go where they went before."""

    def __init__(self, before: object) -> None:
        super().__init__()
        self.buffer = getattr(before, "buffer", None)  # type: ignore[misc, assignment]

    def write(self, text: str) -> int:
        """Forget a text."""
        return len(text)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let nothing be printed but to standard error."""
    with contextlib.redirect_stdout(Silent(sys.stdout)):
        yield
