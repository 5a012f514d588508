"""Training a model whose weights no single device need hold: FSDP2, put on from outside, and its checkpoints.

Each block's weights, their moments and their average are spread over the processes; a block has its weights together
only while it runs. A checkpoint is written by all processes, each its own part, as safetensors (nothing is pickled),
and can be read by any number of processes, also by one that shards nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

FOLDER = "sharded"
"""Within a checkpoint: what all processes write."""


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device, bf16: bool) -> None:
    """Spread a model's weights over all processes, in place.

    Args:
        model: with its weights, the same in every process.
        blocks: parts of it that have their weights together at a time.
        device: to compute on.
        bf16: gather weights in bf16, and sum gradients in fp32.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    # the inputs are cast where they are used: pixels would lose bits
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    options: dict[str, Any] = {"mesh": mesh} | ({"mp_policy": policy} if bf16 else {})
    for block in blocks:
        fully_shard(block, **options)
        if hasattr(block, "keys_values"):  # called before the block itself
            register_fsdp_forward_method(block, "keys_values")
    fully_shard(model, **options)


def is_sharded(modules: Mapping[str, nn.Module]) -> bool:
    """Tell whether weights of these modules are spread over processes, so that all of them must take part."""
    return any(isinstance(p, DTensor) for module in modules.values() for p in module.parameters())


class ShardedAverage:
    """The exponential moving average of a sharded model's weights, spread as they are.

    Args:
        model: whole, on the CPU: what `collect` fills.
        sharded: the model that learns.
        decay: of the average.
    """

    def __init__(self, model: nn.Module, sharded: nn.Module, decay: float) -> None:
        self.model, self.decay = model.eval().requires_grad_(False), decay
        self.values = {name: value.detach().clone() for name, value in _floats(sharded).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [local(value.detach()) for value in _floats(model).values()]
        torch._foreach_lerp_([local(value) for value in self.values.values()], weights, 1 - decay)

    @contextmanager
    def on(self, device: torch.device) -> Iterator[nn.Module]:
        """Give the model, as it was collected, on a device for as long."""
        yield self.model.to(device)
        self.model.to("cpu")

    @torch.no_grad()
    def collect(self) -> None:
        """Put the average together in `model`; all processes must call it."""
        state = self.model.state_dict()
        for name, value in self.values.items():
            state[name].copy_(value.full_tensor() if isinstance(value, DTensor) else value)


def local(value: Tensor) -> Tensor:
    """Return this process's part of a tensor, in the same memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def like(target: Tensor, whole: Tensor) -> Tensor:
    """Cut a whole tensor, the same in every process, as another one is cut, if that is sharded."""
    if not isinstance(target, DTensor):
        return whole
    own = whole.to(target.device)
    return distribute_tensor(own, target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def put(targets: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    """Copy whole tensors, the same in every process, into those of the same names, which may be sharded."""
    for name, target in targets.items():
        target.copy_(like(target, whole[name]))


def save(folder: Path, state: dict[str, Tensor]) -> None:
    """Write tensors, of which each process may have a part; all processes must call it.

    Args:
        folder: the same for all of them.
        state: tensors by name.
    """
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load(folder: Path, state: dict[str, Tensor]) -> None:
    """Read tensors in place, whichever processes have written them; all processes of a sharded model must call it.

    Args:
        folder: of `save`.
        state: tensors by name, some of those that were saved.
    """
    together = any(isinstance(value, DTensor) for value in state.values())
    dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not together)


def state_of(model: nn.Module, average: Any, optimizer: Optimizer) -> dict[str, Tensor]:
    """Collect by name what a checkpoint holds of a model that learns: weights, their average, and their moments.

    Args:
        model: sharded or whole.
        average: its `Average` or `ShardedAverage`.
        optimizer: of the model.
    """
    averages = average.values if isinstance(average, ShardedAverage) else _floats(average.model)
    state = {f"model.{name}": value.detach() for name, value in _floats(model).items()}
    state |= {f"average.{name}": value for name, value in averages.items()}
    for name, parameter in model.named_parameters():
        state |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
    return state


def restore(folder: Path, model: nn.Module, average: Any, optimizer: Optimizer) -> None:
    """Load what `save` has written of `state_of`, whatever number of processes did; all processes must call it.

    Args:
        folder: of `save`.
        model, average, optimizer: as for `state_of`.

    Raises:
        ValueError: it holds other tensors.
    """
    names = set(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        if f"optimizer.{name}.exp_avg" in names:
            moments = {key: torch.zeros_like(parameter, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    state = state_of(model, average, optimizer)
    if odd := sorted(names ^ set(state)):
        raise ValueError(f"{odd[0]} is {'not of this model' if odd[0] in names else 'missing'}")
    load(folder, state)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
