"""Notes: the pipeline's warnings, collected for the request that they belong to.

`warnings.catch_warnings` replaces what the whole process shares, so that threads would get each other's. Here one hook
is put in when the server starts, and a context variable says whose warnings those of the running code are.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def hooked() -> Iterator[None]:
    """Let warnings of code within `noted` become notes, as long as the server runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        show = warnings.showwarning

        def note(message: Warning | str, *where: Any, **more: Any) -> None:
            notes = _notes.get()
            if notes is None:
                show(message, *where, **more)
            elif (text := " ".join(str(message).split())) not in notes:
                notes.append(text)

        warnings.showwarning = note
        yield


@contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Put the warnings of this thread into `notes`."""
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)
