"""The compiled decoding step, and PyTorch's products of few rows with weights in other forms, as it can call them.

Left to itself `torch.compile` would look into these products, some of which need weights that never change, and some
read what is in a tensor. Run eagerly they are called directly: the way through PyTorch's registry costs 10 us a call.

Legend: N outputs, K inputs, R rows, g inputs of a group.
"""

import torch
from torch import Tensor

from nuwa_lip.fast import few_rows
from nuwa_lip.fast.compiling import compile_blocks, opaque, prepare
from nuwa_lip.models import MPS2S
from nuwa_lip.models.decoder import CausalAttention, CrossAttention, Kernel

ZERO = 128
"""The activation that `int8` takes for 0: its kernel is fastest with unsigned ones."""
STEP_OPTIONS = {"size_asserts": False, "cpp.min_chunk_size": 1 << 13}
"""Options of the compiler: sizes are checked before a graph is run, not within it; and a thread gets 8,192 numbers at
least, because threads spend longer synchronising than computing those of one row. Together 2 % of a step of one row."""


def compile_step(mps2s: MPS2S, backend: str = "inductor") -> None:
    """Fuse what stands between the matrix products of a decoding step, in place, by `torch.compile`.

    The first steps that run afterwards compile, once for all layers, and anew (`compiling.GRAPHS` in all) for another
    number of photos, of candidates or of rows: one, a few, or many. On a CPU under Linux few rows then attend by a
    kernel of our own (`few_rows`), which is made at once. Results differ in the last bits, so that a seed may give
    another picture.

    Args:
        mps2s: on the device where it is to run.
        backend: as for `compile_blocks`.

    Raises:
        InputError: the tools that it needs are not installed, or cannot make the kernel.
    """
    device = mps2s.embedding.weight.device
    prepare(device, backend)
    if device.type == "cpu" and backend == "inductor" and few_rows.supported():
        few_rows.build()
        for module in mps2s.decoder.modules():
            if isinstance(module, CausalAttention | CrossAttention):
                module.kernel = Kernel(few_rows.takes, few_rows.attend)
    compile_blocks(mps2s.decoder.layers, device, backend, options=STEP_OPTIONS if backend == "inductor" else None)


@opaque(lambda x, weight: x.new_empty(*x.shape[:-1], len(weight)))
def packed(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply [..., K] → [..., N] by weights [N, K] in oneDNN's own order."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@opaque(lambda whole, packed, scale, zero: whole.new_empty(whole.shape[0], len(scale), dtype=torch.float32))
def int8(whole: Tensor, packed: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Multiply by 8-bit weights.

    Args:
        whole: uint8 [R, K] with 0 at `ZERO`.
        packed: int8 weights in oneDNN's order.
        scale: float32 [N].
        zero: int32 [N], zeros.

    Returns:
        float32 [R, N].
    """
    return torch.ops.onednn.qlinear_pointwise(
        whole, 1.0, ZERO, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


@opaque(lambda rows, whole, scale: rows.new_empty(rows.shape[0], len(whole)))
def int8_weights(rows: Tensor, whole: Tensor, scale: Tensor) -> Tensor:
    """Multiply by 8-bit weights, in the precision of the rows.

    Args:
        rows: [R, K].
        whole: int8 [N, K].
        scale: [N].

    Returns:
        [R, N].
    """
    return torch._weight_int8pack_mm(without_copies(rows), whole, scale).expand(len(rows), -1).contiguous()


@opaque(lambda rows, packed, group, pairs: rows.new_empty(rows.shape[0], pairs.shape[1]))
def int4(rows: Tensor, packed: Tensor, group: int, pairs: Tensor) -> Tensor:
    """Multiply by 4-bit weights, in the precision of the rows.

    Args:
        rows: [R, K].
        packed: weights in PyTorch's order.
        group: g.
        pairs: [K / g, N, 2], scale and offset.

    Returns:
        [R, N].
    """
    product = torch.ops.aten._weight_int4pack_mm_for_cpu
    return product(without_copies(rows), packed, group, pairs).expand(len(rows), -1).contiguous()


def without_copies(rows: Tensor) -> Tensor:
    """Return one row [1, K] for all if they are the same, as in a padded step of one candidate (`BatchPadding`).

    These kernels' time grows with the rows, and a row's result is the same to the bit however many there are.
    """
    return rows[:1] if len(rows) > 1 and torch.equal(rows[1:], rows[:-1]) else rows
