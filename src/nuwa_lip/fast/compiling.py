"""`torch.compile` for the repeated blocks of a model: what it needs, and functions that it calls as they are."""

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ParamSpec

import torch
from torch import Tensor, nn

from nuwa_lip.errors import InputError

COMPILERS = {"darwin": "clang++", "win32": "cl"}
"""What `torch.compile` takes for the CPU on these systems; elsewhere it takes g++."""
GRAPHS = 64
"""PyTorch alone would stop compiling at 8, and go on eagerly: candidates, guidance, and few or many rows need more."""
P = ParamSpec("P")
LIBRARY = torch.library.Library("nuwa_lip", "FRAGMENT")


def compile_blocks(
    blocks: Iterable[nn.Module],
    device: torch.device,
    backend: str = "inductor",
    *,
    dynamic: bool = True,
    options: Mapping[str, int] | None = None,
) -> None:
    """Compile each of a model's repeated blocks, in place: the same graphs serve all of one kind.

    Args:
        blocks: their calls are compiled when they are first made.
        device: where they run.
        backend: of `torch.compile`; others than "inductor" show that it can be compiled, and are not faster.
        dynamic: True: one graph serves all sizes; False: one for each size, `GRAPHS` at most.
        options: of the backend.

    Raises:
        InputError: the tools that it needs are not installed.
    """
    prepare(device, backend)
    for block in blocks:
        block.compile(dynamic=dynamic, backend=backend, options=options)


def prepare(device: torch.device, backend: str = "inductor") -> None:
    """Find out whether anything can be compiled, and allow `GRAPHS`.

    Raises:
        InputError: a tool that compiling needs is not installed.
    """
    if device.type == "cpu" and backend == "inductor":
        compiler()
        if not (headers := Path(sysconfig.get_path("include"), "Python.h")).is_file():
            raise InputError(f"compiling needs {headers}, which is not installed: install python3-dev, or leave it out")
    if device.type == "cuda" and backend == "inductor" and importlib.util.find_spec("triton") is None:
        raise InputError("compiling for a GPU needs triton, which is not installed: install it, or leave it out")
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)


def compiler() -> str:
    """Return the name of the C++ compiler for the CPU.

    Raises:
        InputError: it is not installed.
    """
    name = os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")
    if shutil.which(name) is None:
        raise InputError(f"compiling needs {name}, which is not installed: install it, or name another in CXX")
    return name


def opaque(meta: Callable[P, Tensor]) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Make a function into an operator that `torch.compile` does not look into.

    Args:
        meta: from the same arguments, what the result looks like.
    """

    def register(kernel: Callable[P, Tensor]) -> Callable[P, Tensor]:
        name = f"{LIBRARY.ns}::{kernel.__name__}"
        LIBRARY.define(kernel.__name__ + torch.library.infer_schema(kernel, mutates_args=()))
        # not by `custom_op`, whose ways around the kernel cost 2 us more a call
        LIBRARY.impl(kernel.__name__, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(name, meta, lib=LIBRARY)
        operator = getattr(getattr(torch.ops, LIBRARY.ns), kernel.__name__)

        @functools.wraps(kernel)
        def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            return (operator if torch.compiler.is_compiling() else kernel)(*args, **kwargs)

        return call

    return register
