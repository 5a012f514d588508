"""The compiled decoding step, and PyTorch's products of few rows with weights in other forms, as it can call them.

Left to itself `torch.compile` would look into these products, and some want weights that never change, some ask what
is in a tensor. Run eagerly they are called directly, for the way through PyTorch's registry costs 10 us a call.

Legend: N outputs, K inputs, R rows, g inputs of a group.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from nuwa_lip import few_rows
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S
from nuwa_lip.models.transformer import CrossAttention, SelfAttention
from nuwa_lip.opaque import opaque

GRAPHS = 64
"""PyTorch alone would stop compiling at 8, and go on eagerly: candidates, guidance, and few or many rows need more."""
ZERO = 128
"""What `int8` takes for 0 in its activations: the kernel is at its best with unsigned ones."""


def compile_step(mps2s: MPS2S, backend: str = "inductor") -> None:
    """Fuse what stands between the matrix products of a decoding step, in place, by `torch.compile`.

    On a CPU under Linux few rows then attend by a kernel of our own (`few_rows`).

    It happens in the first steps that are run afterwards, once for all layers, and anew (`GRAPHS` in all) for
    another number of photos, of candidates or of rows: one, a few, or many. Results differ in the last bits, so that a
    seed may give another picture.

    Args:
        mps2s: where it is to run.
        backend: of `torch.compile`; others than this one show that it can be compiled, and are not faster.

    Raises:
        InputError: the tools that it needs are not installed.
    """
    device = mps2s.embedding.weight.device
    check_tools(device, backend)
    if device.type == "cpu" and backend == "inductor" and few_rows.supported():
        few_rows.build()
        for module in mps2s.decoder.modules():
            if isinstance(module, SelfAttention | CrossAttention):
                module.kernel = few_rows.attend
    compile_blocks(mps2s.decoder.layers, device, backend)


def compile_blocks(
    blocks: Iterable[nn.Module], device: torch.device, backend: str = "inductor", dynamic: bool = True
) -> None:
    """Compile each of a model's repeated blocks, in place: the same graphs serve all of one kind.

    Args:
        blocks: their calls are compiled when they are first made.
        device: where they run.
        backend: as in `compile_step`.
        dynamic: a graph serves all sizes; or one of `GRAPHS` each of them.

    Raises:
        InputError: the tools that it needs are not installed.
    """
    check_tools(device, backend)
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for block in blocks:
        block.compile(dynamic=dynamic, backend=backend)


def check_tools(device: torch.device, backend: str) -> None:
    """Raises: InputError: a tool that compiling needs is not installed."""
    if device.type == "cpu" and backend == "inductor":
        few_rows.compiler()
        if not (headers := Path(sysconfig.get_path("include"), "Python.h")).is_file():
            raise InputError(f"compiling needs {headers}, which is not installed: install python3-dev, or leave it out")


@opaque(lambda x, weight: x.new_empty(*x.shape[:-1], len(weight)))
def packed(x: Tensor, weight: Tensor) -> Tensor:
    """[..., K] → [..., N], by weights [N, K] in oneDNN's own order."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@opaque(lambda whole, packed, scale, zero: whole.new_empty(whole.shape[0], len(scale), dtype=torch.float32))
def int8(whole: Tensor, packed: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """uint8 [R, K] with 0 at `ZERO` → float32 [R, N], by int8 weights in oneDNN's order, a scale for each output."""
    return torch.ops.onednn.qlinear_pointwise(
        whole, 1.0, ZERO, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


@opaque(lambda rows, whole, scale: rows.new_empty(rows.shape[0], len(whole)))
def int8_weights(rows: Tensor, whole: Tensor, scale: Tensor) -> Tensor:
    """[R, K] → [R, N], by int8 weights [N, K] with a scale for each output."""
    return torch._weight_int8pack_mm(without_copies(rows), whole, scale).expand(len(rows), -1).contiguous()


@opaque(lambda rows, packed, group, pairs: rows.new_empty(rows.shape[0], pairs.shape[1]))
def int4(rows: Tensor, packed: Tensor, group: int, pairs: Tensor) -> Tensor:
    """[R, K] → [R, N], by packed weights of 4 bits with scale and offset, pairs [K / g, N, 2]."""
    product = torch.ops.aten._weight_int4pack_mm_for_cpu
    return product(without_copies(rows), packed, group, pairs).expand(len(rows), -1).contiguous()


def without_copies(rows: Tensor) -> Tensor:
    """One row [1, K] for all if they are the same, as in a step of one candidate: these kernels' time grows with rows.

    A row's result is the same to the bit however many there are.
    """
    return rows[:1] if len(rows) > 1 and torch.equal(rows[1:], rows[:-1]) else rows
