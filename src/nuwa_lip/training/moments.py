"""An optimizer's state as tensors of a file, and back: checked before the optimizer has it."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from nuwa_lip.disk.tensors import check_like
from nuwa_lip.training.sharding import like


def flatten(optimizer: Optimizer) -> dict[str, Tensor]:
    """Turn an optimizer's state into tensors by "parameter.name"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def _check_moments(optimizer: Optimizer, tensors: dict[str, Tensor], most: int) -> None:
    """Check an optimizer's state before it has it: the fused one writes past moments of another size.

    A parameter has all of its moments, or none as long as it has learned nothing.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    muon = all("momentum" in group for group in optimizer.param_groups)
    begun = {key.split(".", 1)[0] for key in tensors}
    expected: dict[str, Tensor] = {}
    for index, parameter in enumerate(parameters):
        if str(index) in begun:
            names = ("momentum_buffer",) if muon else ("exp_avg", "exp_avg_sq")
            expected |= {f"{index}.{name}": parameter.detach() for name in names}
            expected |= {} if muon else {f"{index}.step": torch.empty(())}
    check_like(tensors, expected)
    for name, value in tensors.items():
        if name.endswith(".step") and not 1 <= value.item() <= most:
            raise ValueError(f"{name} is {value.item()}; it must be 1 to {most}")
        if name.endswith("_sq") and value.numel() and value.min() < 0:
            raise ValueError(f"{name} is negative")


def unflatten(optimizer: Optimizer, tensors: dict[str, Tensor], step: int) -> None:
    """Give an optimizer the state that `flatten` made of one.

    Args:
        optimizer: of the same parameters, which may be sharded now.
        tensors: its state.
        step: steps done, the most that a parameter can have learned.

    Raises:
        ValueError: it does not fit.
    """
    _check_moments(optimizer, tensors, step)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = like(parameters[int(index)], value) if value.ndim else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # the fused optimizer runs through memory in order, so moments must have their parameter's memory layout
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if value.shape == parameter.shape:
                    empty = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                    optimizer.state[parameter][name] = empty.copy_(value)
