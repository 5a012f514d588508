"""A CUDA graph of a function: all its kernels as one launch.

A decoding step of one token is some hundred small kernels, which a GPU finishes faster than Python can ask for them.
Captured once and replayed for every token, they follow one another without a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Graph(Generic[Result]):
    """What a function does with tensors on a GPU, to be done again with others of the same shapes.

    Everything that the function reads or writes besides its arguments must stay where it is, and it may not wait for
    the GPU, or do something else because of what a tensor holds: it runs twice now (first for what libraries do only
    once, then to be recorded) and never again. Its first run must be one that may be repeated.

    Args:
        function: of tensors, one at least.
        arguments: of its first run; copies are kept.
    """

    def __init__(self, function: Callable[..., Result], *arguments: Tensor) -> None:
        self._arguments = [argument.clone() for argument in arguments]
        now, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)  # PyTorch asks for a first run beside the stream that is captured
        with torch.cuda.stream(aside):
            function(*self._arguments)
        now.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # what other threads do with the GPU is no concern of this one
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function(*self._arguments)

    def __call__(self, *arguments: Tensor) -> Result:
        """The function's result, in memory that the next call writes over."""
        torch._foreach_copy_(self._arguments, list(arguments))
        self._graph.replay()
        return self._result
