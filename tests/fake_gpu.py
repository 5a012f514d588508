"""A GPU of fake tensors: they have a shape and a device, no values, and no operation takes them from two devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda")


class Answers(TorchFunctionMode):
    """Answers where a program asks what is in a tensor, and makes tensors of numbers, which are fake too."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "__bool__":
            return False
        if name in ("item", "__int__", "__index__", "__float__"):
            return 0.5 if args[0].is_floating_point() else self.count
        if name == "tolist":
            return np.full(args[0].shape, self.count).tolist()
        if func is torch.tensor and options.get("device") is not None:
            return torch.empty(np.shape(args[0]), dtype=torch.int64, device=options["device"])
        return func(*args, **options)


class Apart(TorchDispatchMode):
    """Nothing comes from the CPU to the GPU: that would wait, and cannot be recorded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = [{x.device.type for x in tree_leaves(tree) if isinstance(x, Tensor)} for tree in (args, result)]
        assert devices != [{"cpu"}, {"cuda"}], f"{func} fetches {result} from the CPU"
        return result


class Ungraphed:
    """Instead of a CUDA graph: what would be recorded, with the conditions for it."""

    def __init__(self, function: Callable[..., Any], *arguments: Tensor) -> None:
        self.function = function
        self(*arguments)

    def __call__(self, *arguments: Tensor) -> Any:
        assert all(argument.is_cuda for argument in arguments)
        with Apart():
            return self.function(*arguments)


def move(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """`module.to`, which cannot move fake tensors."""
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    for inner in module.modules():
        for held in (inner._parameters, inner._buffers):
            for name, value in held.items():
                if value is not None:
                    kind = dtype if value.is_floating_point() else None
                    moved = value.detach().to(device, kind)
                    held[name] = nn.Parameter(moved, value.requires_grad) if held is inner._parameters else moved
    return module


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[None]:
    """Within, what runs on `GPU` computes nothing; `count` is the answer to every question for a number."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(nn.Module, "to", move)
    monkeypatch.setattr(Tensor, "backward", lambda *_, **__: None)  # its engine wants a driver
    monkeypatch.setattr("nuwa_lip.sampling.loop.Graph", Ungraphed)
    monkeypatch.setattr("nuwa_lip.bench.decoding.Graph", Ungraphed)
    settings = torch.backends.cudnn.allow_tf32, torch.backends.cuda.cudnn_sdp_enabled()
    try:
        with FakeTensorMode(), Answers(count):
            yield
    finally:  # what `limits.settle` has set
        torch.backends.cudnn.allow_tf32 = settings[0]
        torch.backends.cuda.enable_cudnn_sdp(settings[1])
