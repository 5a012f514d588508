"""Pre-norm transformer blocks: attention, cross-attention, GEGLU, LayerScale, and a key-value cache.

One block serves the encoders and the decoder. A block runs in two ways that give the same numbers: over a
whole sequence (training), or over a few new rows that read the keys and values of earlier rows from a cache
(decoding).

Legend: B batch, N rows of a sequence, M positions of a memory, D width, d width of a head, L cached rows, r
pairs of a head's channels that are turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Attention of rows [B, heads, R, d] to keys and values [B, heads, M, d], with what is visible (bool) or None."""


class Kernel(NamedTuple):
    """Attention of few rows that is faster than PyTorch's, with the same bits for any number of rows and sequences."""

    takes: Callable[[Tensor, Tensor], bool]
    """Whether it is for such rows [sequences, heads, R, d], however many sequences there are, and such keys."""
    attend: Attend


KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each [B, heads, M, d]."""


Turn = tuple[Tensor, Tensor]
"""Cosine and sine, each [N, r] or [B, 1, N, r], of the angles that `rotate` turns pairs of channels by."""
LONGEST_WAVE = 64.0
"""Tokens in which the slowest pair turns by one radian; the fastest takes one token."""


class Turns(NamedTuple):
    """Where the rows of a sequence look from, and where what they say stands."""

    queries: Turn
    keys: Turn


def turn_by(places: Tensor, head_width: int) -> Turn:
    """Rotary positions in two dimensions (Su et al. 2021): how far apart two tokens stand, rather than where.

    Half of a head's channels take part, half of these for rows and half for columns; the rest do not know
    where they are, for what has no place (a caption) is attended by them.

    Args:
        places: float [N, 2], row and column in tokens.
        head_width: d, a multiple of 8.
    """
    pairs = head_width // 8  # of each axis
    waves = LONGEST_WAVE ** (torch.arange(pairs, device=places.device) / max(1, pairs - 1))
    angles = (places[..., None] / waves).flatten(-2)  # [N, 2 · pairs]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: Turn | None) -> Tensor:
    """Turn the first 2 r channels of queries or keys [B, heads, N, d]."""
    if turn is None:
        return x
    cos, sin = (t.to(x.dtype) for t in turn)
    a, b, rest = x.tensor_split((cos.shape[-1], 2 * cos.shape[-1]), -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class KeyValueCache:
    """Keys and values of one layer in buffers of a fixed size, written in place."""

    def __init__(self, batch: int, heads: int, capacity: int, head_width: int, like: Tensor) -> None:
        # zeros, because an unwritten slot takes part in the product before it is masked
        self.keys = like.new_zeros(batch, heads, capacity, head_width)
        self.values = torch.zeros_like(self.keys)

    def update(self, slots: Tensor, keys: Tensor, values: Tensor, length: int) -> KeysValues:
        """Write rows [B, heads, R, d] at `slots` [R] and return the first `length` slots."""
        self.keys.index_copy_(2, slots, keys.to(self.keys.dtype))
        self.values.index_copy_(2, slots, values.to(self.values.dtype))
        return self.keys[:, :, :length], self.values[:, :, :length]


class Copies(NamedTuple):
    """Of the C sequences of each memory the first `distinct` differ; the others repeat the last one of these.

    They fill the linear layers up to a number of rows that never changes; attention to the cache, which would be read
    for each of them, leaves them out, and so does attention to the memory if its bits do not depend on their number.
    """

    distinct: int
    sequences: int
    """C"""

    def drop(self, x: Tensor) -> Tensor:
        """Leave the copies out: [G · C, ...] → [G · distinct, ...]."""
        return x.unflatten(0, (-1, self.sequences))[:, : self.distinct].flatten(0, 1)

    def restore(self, x: Tensor) -> Tensor:
        """Put the copies back: [G · distinct, ...] → [G · C, ...]."""
        x = x.unflatten(0, (-1, self.distinct))
        copies = x[:, -1:].expand(-1, self.sequences - self.distinct, *x.shape[2:])
        return torch.cat([x, copies], 1).flatten(0, 1)


@dataclass(frozen=True)
class CachedRows:
    """Where new rows go in a cache and what they see there."""

    cache: KeyValueCache
    slots: Tensor
    """int64 [R]"""
    visible: Tensor
    """bool [R, L], True = may be attended; L: slots in use."""
    copies: Copies | None = None
    """Which sequences have no place in the cache; None: all have."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel | None) -> Tensor:
        """Write new rows [B, heads, R, d] and let them attend to what they see."""
        if self.copies is not None:
            q, k, v = (self.copies.drop(x) for x in (q, k, v))
        k, v = self.cache.update(self.slots, k, v, self.visible.shape[-1])
        attend = kernel.attend if kernel is not None and kernel.takes(q, k) else _attend_apart
        y = attend(q, k, v, self.visible)
        return y if self.copies is None else self.copies.restore(y)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.kernel: Kernel | None = None
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        rows: CachedRows | None = None,
        turns: Turns | None = None,
    ) -> Tensor:
        """Attend within x [B, N, D], or from new `rows` to the cache."""
        # each [B, heads, N, d]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if turns is not None:
            q, k = rotate(q, turns.queries), rotate(k, turns.keys)
        if rows is not None:
            y = rows.attend(q, k, v, self.kernel)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


FEW = 64
"""Rows up to which the fused kernel of the CPU is slower in bf16 than two matrix products are."""


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of rows [B, heads, R, d], often few of them, to keys and values [B, heads, M, d].

    For few rows in bf16 the fused kernel is slower than products of matrices (measured on AVX-512 with 1,357 keys: 1.06
    ms against 0.83 for four rows, 2.75 against 1.77 for 32); in float32, or for a GPU, it is the faster one.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[-2] > FEW:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask.to(scores.dtype).log()  # 0 or minus infinity
    return scores.softmax(-1) @ v


def _attend_apart(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of few rows [B, heads, R, d], the same to the bit wherever a sequence stands in the batch.

    On a CPU each thread's part of the kernel's scratch memory begins at another alignment, and with it the last bit
    of a product changes. Alone, a sequence's heads always fall to the same threads.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    apart = zip(q.split(1), k.split(1), v.split(1), strict=True)
    return torch.cat([_attend(*one, mask) for one in apart])


class CrossAttention(nn.Module):
    """Attention to a memory whose keys and values are computed once, by `keys_values`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.kernel: Kernel | None = None
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, memory: Tensor, turn: Turn | None = None) -> KeysValues:
        """Of states [B, M, D]."""
        k, v = self.kv(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(k, turn), v

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        mask: Tensor | None = None,
        turn: Turn | None = None,
        copies: Copies | None = None,
    ) -> Tensor:
        """Attend from x [B * C, N, D] to B memories; C sequences in a row share one without a copy of it.

        Args:
            x: states.
            keys_values: of the memories.
            mask: bool, broadcast to [B, heads, C * N, M], True = may be attended.
            turn: where the rows stand.
            copies: which of the C sequences differ.
        """
        k, v = keys_values
        q = rotate(self.q(x).view(*x.shape[:2], self.heads, k.shape[-1]).transpose(1, 2), turn)  # [B * C, heads, N, d]
        attend = self.kernel.attend if self.kernel is not None and self.kernel.takes(q, k) else _attend
        if attend is _attend:
            copies = None  # its products give other last bits for another number of rows
        q = q if copies is None else copies.drop(q)
        # all rows of a memory together, [B, heads, C * N, d]
        rows = q.transpose(1, 2).reshape(k.shape[0], -1, self.heads, k.shape[-1]).transpose(1, 2)
        y = attend(rows, k, v, mask).transpose(1, 2).reshape(len(q), -1, x.shape[-1])  # [B * C, N, D]
        return self.out(y if copies is None else copies.restore(y))


class GEGLU(nn.Module):
    """Feed-forward layer whose hidden units are gated by a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] → [..., D]."""
        value, gate = self.hidden(x).chunk(2, -1)
        return self.out(value * F.gelu(gate))


class Branch(nn.Module):
    """Residual connection around one layer: x + scale · dropout(layer(norm(x)))."""

    def __init__(self, layer: nn.Module, width: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor, *args: object, **options: object) -> Tensor:
        """Add the layer's result, normalised before and scaled after, to x [B, N, D]."""
        return x + self.scale * self.dropout(self.layer(self.norm(x), *args, **options))


class Block(nn.Module):
    """Self-attention, cross-attention if asked for, feed-forward.

    Args:
        width: D, a multiple of `heads`.
        heads: attention heads.
        mlp_ratio: hidden units of the feed-forward layer as a multiple of `width`.
        dropout: share dropped from what each layer adds, 0 to 1; never inside attention, where it would rule
            out the fused kernels.
        layer_scale: initial value of the factors on what each layer adds.
        cross: with cross-attention to a memory.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        dropout: float,
        layer_scale: float,
        *,
        cross: bool = False,
    ) -> None:
        super().__init__()
        self.attention = Branch(SelfAttention(width, heads), width, dropout, layer_scale)
        self.cross = Branch(CrossAttention(width, heads), width, dropout, layer_scale) if cross else None
        self.mlp = Branch(GEGLU(width, round(width * mlp_ratio)), width, dropout, layer_scale)

    def keys_values(self, memory: Tensor, turn: Turn | None = None) -> KeysValues:
        """What the cross-attention reads of a memory [B, M, D]."""
        assert self.cross is not None
        layer = self.cross.layer
        assert isinstance(layer, CrossAttention)
        return layer.keys_values(memory, turn)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        rows: CachedRows | None = None,
        keys_values: KeysValues | None = None,
        memory_mask: Tensor | None = None,
        turns: Turns | None = None,
    ) -> Tensor:
        """Run a block over x [B, N, D].

        Args:
            x: states, of whole sequences or, with `rows`, of new rows only.
            mask: bool, broadcast to [B, heads, N, N], True = may be attended.
            causal: a row attends to itself and earlier rows.
            rows: where the new rows belong in the cache.
            keys_values: what the cross-attention reads.
            memory_mask: bool, broadcast to [B, heads, N, M], True = may be attended.
            turns: where the rows stand; None: positions are known from x alone.
        """
        x = self.attention(x, mask, causal=causal, rows=rows, turns=turns)
        if self.cross is not None:
            turn, copies = None if turns is None else turns.queries, None if rows is None else rows.copies
            x = self.cross(x, keys_values, memory_mask, turn, copies)
        return self.mlp(x)


class Encoder(nn.Module):
    """Blocks and a last norm: [B, N, D] → [B, N, D]."""

    def __init__(
        self, layers: int, width: int, heads: int, mlp_ratio: float, dropout: float, layer_scale: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout, layer_scale) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None, turn: Turn | None = None) -> Tensor:
        """Encode x [B, N, D]; `mask` says which keys may be attended to, `turn` where the rows stand."""
        turns = None if turn is None else Turns(turn, turn)
        for block in self.blocks:
            x = block(x, mask, turns=turns)
        return self.norm(x)


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights; those that write into a residual stream shrink with its depth, as in GPT-2."""
    layers = max(1, sum(isinstance(child, Branch) for child in module.modules()))
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            nn.init.normal_(child.weight, std=std / math.sqrt(layers) if name.endswith(".out") else std)
        if isinstance(child, nn.Linear) and child.bias is not None:
            nn.init.zeros_(child.bias)
