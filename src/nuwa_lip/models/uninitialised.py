"""Building a model whose weights come from elsewhere, without the time and memory of drawing them."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Uninitialised(TorchFunctionMode):
    """Leaves out initial values: nothing is drawn, and the memory they would stand in stays unused."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", None) == "torch.nn.init":
            return named["tensor"] if "tensor" in named else args[0]
        if func is torch.randn:
            return torch.empty(*args, **named)
        return func(*args, **named)
