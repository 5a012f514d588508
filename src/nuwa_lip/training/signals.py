"""Ctrl-C and SIGTERM, as a scheduler sends it before it takes a machine away: they wait for the end of a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hold_signals() -> Iterator[Callable[[], int]]:
    """Let Ctrl-C and SIGTERM wait for the end of a step; give a function that tells which one came, 0 if none.

    A second signal stops at once; the last checkpoint is complete in any case.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
