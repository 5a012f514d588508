"""Functions that `torch.compile` calls as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def opaque(meta: Callable[P, Tensor]) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """A function that `torch.compile` does not look into.

    Args:
        meta: from the same arguments, what the result looks like.
    """

    def register(kernel: Callable[P, Tensor]) -> Callable[P, Tensor]:
        operator = torch.library.custom_op(f"nuwa_lip::{kernel.__name__}", kernel, mutates_args=())
        operator.register_fake(meta)

        @functools.wraps(kernel)
        def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            return (operator if torch.compiler.is_compiling() else kernel)(*args, **kwargs)

        return call

    return register
