"""What a GPU needs: a step of decoding as one CUDA graph, and attention without cuDNN's plans for every shape.

A decoding step of one token is some hundred small kernels, which a GPU finishes faster than Python can ask for them.
Captured once and replayed for every token, they follow one another without a gap.
"""

import functools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
_one_at_a_time = threading.Lock()
"""A process may capture one graph at a time, and all captures share a stream."""


def disable_cudnn_attention(device: torch.device) -> None:
    """Leave cuDNN's attention out on a GPU, for this process; on a CPU do nothing.

    PyTorch prefers it on recent GPUs in bf16, and it makes a plan for every new shape, which takes a good part of a
    second; with every group of tokens, and in training with every batch, the shapes are new.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


class Graph(Generic[Result]):
    """A recording of what a function does with tensors on a GPU, to be replayed with others of the same shapes.

    Everything that the function reads or writes besides its arguments must stay where it is, and it may not wait for
    the GPU, or do something else because of what a tensor holds: it runs twice now (first for what libraries do only
    once, then to be recorded) and never again. Its first run must be one that may be repeated.

    Args:
        function: of tensors, one at least.
        arguments: of its first run, on the GPU; copies are kept.
    """

    def __init__(self, function: Callable[..., Result], *arguments: Tensor) -> None:
        self._function = function  # replays read and write what it holds
        self._arguments = [argument.clone() for argument in arguments]
        self._graph = torch.cuda.CUDAGraph()
        with _one_at_a_time, torch.cuda.device(arguments[0].device):
            now, aside = torch.cuda.current_stream(), _stream(arguments[0].device)
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                function(*self._arguments)
            now.wait_stream(aside)
            # what other threads do with the GPU meanwhile, captures apart, is no concern of this one
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                self._result = function(*self._arguments)

    def __call__(self, *arguments: Tensor) -> Result:
        """Replay with other arguments → the function's result, in memory that the next call writes over."""
        torch._foreach_copy_(self._arguments, list(arguments))
        self._graph.replay()
        return self._result


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all captures: libraries keep memory for each stream that they have seen."""
    return torch.cuda.Stream(device)
