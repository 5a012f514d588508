"""Decoder weights in other forms: a step of decoding reads all of them, and on a CPU little else takes time.

    name          a weight  activations      G weights/s of a core, four rows of 1280 channels
    as they are   16 bits   16 bits          4.9 (3.3 in 8 rows, 2.3 in 32; of 32 bits 1.7)
    packed        16 bits   16 bits          10  (of 32 bits 5.2)
    int8          8 bits    8 bits a row     17
    int8-weights  8 bits    the model's own  6.4 (8.9 in one row)
    int4          4 bits    the model's own  11 (20 in one row); the fewest bytes

(AVX-512 with bf16 and VNNI, in the core's own time, on a busy machine.) `packed` weights are the same numbers in the
order in which oneDNN's kernel reads them, which it otherwise makes anew in every step. Only the linear layers that
every step reads are replaced; the encoders, what the decoder computes of the memory once, and the embedding stay as
they are. Every form also packs the embedding as output table: its logits are equal except for the last bits, in half
the time. Among as many rows a row's result does not depend on the content of the others: activations are scaled row by
row. The
kernels are PyTorch's own, for the CPU. Memory-mapped weights stay mapped beside the new ones. `torch.compile` calls
them as they are (`nuwa_lip.fast.kernels`), and fuses what stands around them.

Legend: N outputs, K inputs, R rows, g inputs of a group.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nuwa_lip.errors import InputError, first_line
from nuwa_lip.fast import kernels
from nuwa_lip.models import MPS2S
from nuwa_lip.models.orders import raster_order, target_tokens

GROUPS = (128, 64, 32)
"""Inputs that share a scale in 4 bits: the first that divides K."""
TINY = 1e-12
"""Stands for the scale of zeros alone."""
Inputs = tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]
"""text_ids, image, mask, tokens, token_mask of `MPS2S.forward`."""


class QuantisedLinear(nn.Module):
    """A linear layer without bias whose weights are held in another form, in which they are not trained or saved."""


class PackedLinear(QuantisedLinear):
    """A linear layer whose weights are in the order in which the kernel reads them; for few rows at a time."""

    ROWS = 4
    """The number of rows for which the order is chosen; others work too."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), self.ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: [..., K] → [..., N]."""
        return kernels.packed(x, self.packed)


class Int8Linear(QuantisedLinear):
    """A linear layer of whole numbers: weights with a scale for each output, activations with one for each row."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        whole, scale = to_int8(weight)
        self.packed: Tensor = torch.ops.onednn.qlinear_prepack(whole, None)
        self.scale, self.zero = nn.Buffer(scale), nn.Buffer(torch.zeros(len(scale), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: [..., K] → [..., N]."""
        rows = x.flatten(0, -2).float()
        step = rows.abs().amax(-1, keepdim=True).clamp(min=TINY) / 127  # [R, 1]
        whole = (rows / step).round_().add_(kernels.ZERO).to(torch.uint8)
        y = kernels.int8(whole, self.packed, self.scale, self.zero)
        return (y * step).to(x.dtype).view(*x.shape[:-1], -1)


class Int8WeightLinear(QuantisedLinear):
    """A linear layer of 8-bit weights with a scale for each output; activations stay as they are."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        whole, scale = to_int8(weight)
        self.whole, self.scale = nn.Buffer(whole), nn.Buffer(scale.to(weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: [..., K] → [..., N]."""
        return kernels.int8_weights(x.flatten(0, -2), self.whole, self.scale).view(*x.shape[:-1], -1)


class Int4Linear(QuantisedLinear):
    """A linear layer of 4-bit weights with scale and offset for each group of inputs; activations stay as they are."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        whole, scale, offset = to_int4(weight)
        self.group = weight.shape[1] // scale.shape[1]
        self.packed = nn.Buffer(torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 1))
        pairs = torch.stack([scale, offset], -1).transpose(0, 1)  # [K / g, N, 2]
        self.pairs = nn.Buffer(pairs.to(weight.dtype).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Multiply: [..., K] → [..., N]."""
        return kernels.int4(x.flatten(0, -2), self.packed, self.group, self.pairs).view(*x.shape[:-1], -1)


LAYERS: dict[str, Callable[[Tensor], QuantisedLinear]] = {
    "packed": PackedLinear,
    "int8": Int8Linear,
    "int8-weights": Int8WeightLinear,
    "int4": Int4Linear,
}


def has_vnni() -> bool:
    """Tell whether products of 8-bit numbers are exact here.

    Without VNNI oneDNN adds pairs of products in 16 bits, which overflow: a tenth of the result is lost. The
    environment may keep oneDNN from what the CPU has.
    """
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL"))
    return torch.cpu._is_vnni_supported() and cap.upper() not in ("SSE41", "AVX", "AVX2", "AVX512_CORE")


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights [N, K] ≈ whole · scale → whole, int8 [N, K], and scale, float32 [N]."""
    weight = weight.float()
    scale = weight.abs().amax(1).clamp(min=TINY) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def to_int4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round weights [N, K] ≈ (whole - 8) · scale + offset, group by group.

    Returns:
        whole: int32 [N, K], 0 to 15.
        scale, offset: float32 [N, K / g].

    Raises:
        InputError: K cannot be divided into groups.
    """
    group = next((g for g in GROUPS if weight.shape[1] % g == 0), None)
    if group is None:
        raise InputError(f"int4 needs layers of a multiple of {GROUPS[-1]} inputs, not {weight.shape[1]}; take int8")
    groups = weight.float().unflatten(1, (-1, group))
    low, high = groups.amin(-1), groups.amax(-1)
    scale = ((high - low) / 15).clamp(min=TINY)
    whole = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15)
    return whole.flatten(1).to(torch.int32), scale, low + 8 * scale


@torch.no_grad()
def quantise(mps2s: MPS2S, weights: str) -> None:
    """Hold the weights that every decoding step reads in another form, in place.

    Args:
        mps2s: on the CPU; the parts that stay as they are, are fastest in bf16.
        weights: one of `LAYERS`.

    Raises:
        InputError: there is no such format, the model is not on the CPU or is quantised already, or this CPU or this
            build of torch cannot do it for layers of such a size and precision; the model is then as it was.
    """
    if weights not in LAYERS:
        raise InputError(f"there are no weights called {weights!r}; there are: {', '.join(LAYERS)}")
    device = mps2s.embedding.weight.device
    if device.type != "cpu":
        raise InputError(f"weights={weights!r} is for the CPU; the model is on {device}: leave it out there")
    if is_quantised(mps2s):
        raise InputError(f"the model's weights have another form already: load it anew for weights={weights!r}")
    if weights in ("packed", "int8") and not torch.backends.mkldnn.is_available():
        raise InputError(
            f"weights={weights!r} needs oneDNN, which this build of torch lacks: take int8-weights or int4"
        )
    if weights == "int8" and not has_vnni():
        raise InputError("this CPU lacks the products of 8-bit numbers (VNNI): take int8-weights or int4")
    blocks = mps2s.decoder.blocks
    # `kv` runs once for a photo, over more than a thousand rows, where few bits only cost time
    names = [n for n, m in blocks.named_modules() if isinstance(m, nn.Linear) and not n.endswith(".kv")]
    layers: dict[str, Tensor] = {name: blocks.get_submodule(name).weight for name in names}  # type: ignore[misc]
    for shape, dtype in {(weight.shape, weight.dtype) for weight in layers.values()}:
        _try(weights, shape, dtype)
    for name in names:
        blocks.set_submodule(name, LAYERS[weights](layers.pop(name)))
    table = mps2s.embedding.weight
    with suppress(InputError):  # then it stays as it is
        _try("packed", table.shape, table.dtype)
        mps2s.decoder.output = PackedLinear(table)


def _try(weights: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Find out whether the kernels, which differ from one CPU and torch to the next, take such a layer.

    Args:
        weights: one of `LAYERS`.
        shape: [N, K].
        dtype: of weights and activations.

    Raises:
        InputError: they do not.
    """
    try:
        LAYERS[weights](torch.zeros(shape, dtype=dtype))(torch.zeros(1, shape[1], dtype=dtype))
    except (RuntimeError, AttributeError) as error:  # AttributeError: there is no such operator
        raise InputError(
            f"weights={weights!r} does not run here for layers [{shape[0]}, {shape[1]}] of {dtype} "
            f"({first_line(error)}): take another form, or bfloat16 or float32"
        ) from error


def is_quantised(mps2s: MPS2S) -> bool:
    """Return whether `quantise` has changed the model."""
    return any(isinstance(module, QuantisedLinear) for module in mps2s.modules())


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The cost of another form of the weights, as means over defective tokens."""

    exact_nats: float
    """Negative log-likelihood of the true tokens by the exact model (Eq. 15)."""
    nats: float
    """Their negative log-likelihood by the other one."""
    divergence: float
    """Kullback-Leibler divergence of the other distribution from the exact one, nats: the log-probability that a token
    drawn from the exact one loses."""
    agreement: float
    """Share of tokens whose likeliest value stays the same."""


@torch.no_grad()
def quality_loss(exact: MPS2S, other: MPS2S, batches: Iterable[Inputs]) -> Loss:
    """Compare teacher-forced predictions, in raster order.

    Args:
        exact, other: a model, and the same after `quantise` or in another precision, both in eval mode.
        batches: what `MPS2S.forward` takes.

    Raises:
        InputError: there is no defective token in the batches.
    """
    total, count = torch.zeros(4, dtype=torch.float64), 0
    for inputs in batches:
        logits, real = exact(*inputs)
        targets = target_tokens(inputs[3], raster_order(inputs[4])[0])[real]  # [tokens]
        p, q = (x[real].double().log_softmax(-1) for x in (logits, other(*inputs)[0]))
        true = torch.stack([x.gather(-1, targets[:, None]).sum() for x in (p, q)])
        divergence, same = (p.exp() * (p - q)).sum(), (p.argmax(-1) == q.argmax(-1)).sum()
        total += torch.stack([-true[0], -true[1], divergence, same.double()]).cpu()
        count += len(targets)
    if count == 0:
        raise InputError("the batches hold 0 defective tokens; 1 at least is needed")
    values = (total / count).tolist()
    return Loss(exact_nats=values[0], nats=values[1], divergence=values[2], agreement=values[3])
