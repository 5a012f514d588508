"""Small models compute on one core.

With nuwa-lip-mini, filling 64 tokens one by one took 4.0 s with one thread and 84 s with two, on two cores of an AMD
EPYC that other processes used too (medians of five).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 64_000_000
"""Number of parameters below which a model computes on one core."""
_changing = threading.Lock()
"""Held while threads that start now would begin with one core."""


def settle_cores() -> None:
    """Fix this thread's number of cores now, before another thread's `one_core_if_small` can change the default."""
    with _changing:
        torch.get_num_threads()


@contextmanager
def one_core_if_small(model: nn.Module) -> Iterator[None]:
    """Run on one core if the model is small: its threads spend longer synchronising than computing.

    `set_num_threads` also becomes the default of threads started later, so a helper thread restores it.
    """
    before = torch.get_num_threads()
    if before == 1 or sum(p.numel() for p in model.parameters()) >= SMALL:
        yield
        return
    helper = threading.Thread(target=torch.set_num_threads, args=(before,))
    try:
        with _changing:
            torch.set_num_threads(1)
            helper.start()
            helper.join()
        yield
    finally:
        torch.set_num_threads(before)
