"""What several tests of bench share."""

import ast
import contextlib
import importlib
import io
from collections.abc import Callable

import pytest

from nuwa_lip.bench import encoders, growth, memory, painters, training
from nuwa_lip.bench.measure import Child


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions are called here, not in fresh interpreters: importing PyTorch takes longer than their work.

    `test_encoders` starts real ones.
    """

    def call(function: Callable[..., object], *args: str | int | None) -> Child:
        assert getattr(importlib.import_module(function.__module__), function.__name__) is function
        assert ast.literal_eval(repr(args)) == args, "a process is given literals"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            function(*args)
        return Child(1.0, 100.0, out.getvalue())

    for module in (encoders, growth, memory, painters, training):
        monkeypatch.setattr(module, "call_apart", call)
