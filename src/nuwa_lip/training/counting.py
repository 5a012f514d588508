"""Counts what a step computes and holds on tensors without numbers, forward and backward, operation by operation."""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

CAST = torch.ops.aten._to_copy.default


@dataclass(frozen=True)
class Counted:
    """What a step takes beside weights, moments, average and gradients."""

    held: float
    """Bytes at the peak, without `casts`: activations, their gradients and what is at hand for a moment."""
    casts: float
    """Bytes at their peak of the weights' copies in bf16."""


class Counter(TorchDispatchMode):
    """Adds up operations' arithmetic, and the storages that they make for as long as these live."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self.now = {"held": 0, "casts": 0}
        self.most = dict(self.now)
        self._seen: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):  # of what was there before, and of which the result may be a view
            self._seen.setdefault(storage, None)
        out = func(*args, **kwargs)
        if (operation := func._overloadpacket) in flop_registry:
            self.flops += flop_registry[operation](*args, **kwargs, out_val=out)
        kind = "casts" if func is CAST and isinstance(args[0], nn.Parameter) else "held"
        for storage in _storages(out):
            if storage not in self._seen:
                self._seen[storage] = None
                self.now[kind] += storage.nbytes()
                self.most[kind] = max(self.most[kind], self.now[kind])
                weakref.finalize(storage, self._free, kind, storage.nbytes())
        return out

    def _free(self, kind: str, size: int) -> None:
        self.now[kind] -= size


def count(run: Callable[[], Tensor], parameters: Iterable[nn.Parameter], bf16: bool) -> Counted:
    """Count a step within a `FakeTensorMode`.

    Weights' gradients are not counted: each is thrown away as soon as it is there.

    Args:
        run: the forward pass, to the loss; it may take gradients of parts of it.
        parameters: that learn.
        bf16: compute in bf16 where autocast does.
    """
    hooks = [p.register_post_accumulate_grad_hook(_forget) for p in parameters if p.requires_grad]
    with Counter() as counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = run()
        loss.backward()
    for hook in hooks:
        hook.remove()
    return Counted(counter.most["held"], counter.most["casts"])


def flops_of(run: Callable[[], object]) -> float:
    """Count the arithmetic of a forward pass within a `FakeTensorMode`."""
    with Counter() as counter:
        run()
    return counter.flops


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _forget(parameter: Tensor) -> None:
    parameter.grad = None
