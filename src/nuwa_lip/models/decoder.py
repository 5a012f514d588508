"""MP-S2S's decoder: its layers, with their cache, and decoding of a whole sequence (training) or row by row.

Both ways give the same numbers. `predict` runs all rows of a sequence at once; `prefill` and `decode_rows` run a few
new rows, which read the keys and values of earlier rows from a cache.

Legend: B batch, G memories, C candidates of each, R rows, K defective tokens, N = h · w tokens of the grid, M length of
a memory, L slots of the cache in use, V codebook, D width, d width of a head.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models.cache import BatchPadding, CachedRows, DecoderCache, KeysValues
from nuwa_lip.models.caption_prior import CaptionPrior, CaptionShift
from nuwa_lip.models.groups import NO_TOKEN, RowInputs, Rows
from nuwa_lip.models.memory import Memory
from nuwa_lip.models.mps2s_config import MPS2SConfig
from nuwa_lip.models.neighbours import Neighbours
from nuwa_lip.models.rotary import Rotation, Rotations, patch_places, rotate, rotation_at, token_places
from nuwa_lip.models.transformer import GEGLU, Branch

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Attention of rows [B, heads, R, d] to keys and values [B, heads, M, d], with what is visible (bool) or None."""


class Kernel(NamedTuple):
    """Attention of few rows that is put on a layer from outside.

    A row's result must be the same to the bit for any number of rows and sequences.
    """

    takes: Callable[[Tensor, Tensor], bool]
    """Whether it is for such rows [B, heads, R, d] and such keys, whatever B is."""
    attend: Attend


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend as PyTorch does.

    Args:
        q, k, v, mask: see `Attend`.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class CausalAttention(nn.Module):
    """Attention of the decoder's rows to earlier rows of their sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend: Attend = plain_attention
        self.kernel: Kernel | None = None
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor | None, rotations: Rotations | None, cached: CachedRows | None = None
    ) -> Tensor:
        """Attend from x [B, R, D], whole sequences or new rows of them.

        Args:
            x: states.
            mask: of whole sequences, bool, broadcast to [B, heads, R, R], True = may be attended; None: a row sees
                itself and all before it.
            rotations: of the rows; None: their positions are known from x alone.
            cached: where new rows go, and what they see; None: x are whole sequences.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, R, d]
        if rotations is not None:
            q, k = rotate(q, rotations.queries), rotate(k, rotations.keys)
        if cached is None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            return self.out(y.transpose(1, 2).flatten(2))
        padding, (keys, values) = cached.padding, cached.cache
        if padding is not None:
            q, k, v = (padding.strip(t) for t in (q, k, v))
        keys.index_copy_(2, cached.slots, k.to(keys.dtype))
        values.index_copy_(2, cached.slots, v.to(values.dtype))
        k, v = (t[:, :, : cached.visible.shape[-1]] for t in (keys, values))
        attend = self.kernel.attend if self.kernel is not None and self.kernel.takes(q, k) else self.attend
        y = attend(q, k, v, cached.visible)
        y = y if padding is None else padding.restore(y)
        return self.out(y.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention to a memory whose keys and values are computed once, by `keys_values`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend: Attend = plain_attention
        self.kernel: Kernel | None = None
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def keys_values(self, memory: Tensor, rotation: Rotation | None = None) -> KeysValues:
        """Compute keys and values of states [B, M, D], each [B, heads, M, d]."""
        k, v = self.kv(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(k, rotation), v

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        mask: Tensor | None = None,
        rotation: Rotation | None = None,
        padding: BatchPadding | None = None,
    ) -> Tensor:
        """Attend from x [G · C, R, D] to G memories; C sequences in a row share one without a copy of it.

        Args:
            x: states.
            keys_values: of the memories.
            mask: bool, broadcast to [G, heads, C · R, M], True = may be attended.
            rotation: of the rows.
            padding: which of the C sequences are real.
        """
        k, v = keys_values
        q = self.q(x).view(*x.shape[:2], self.heads, k.shape[-1]).transpose(1, 2)  # [G · C, heads, R, d]
        q, attend = rotate(q, rotation), self.attend
        if self.kernel is not None and self.kernel.takes(q, k):
            attend = self.kernel.attend
        else:
            padding = None  # for another number of rows the last bits would be others
        q = q if padding is None else padding.strip(q)
        # all rows of a memory together, [G, heads, C · R, d]
        rows = q.transpose(1, 2).reshape(k.shape[0], -1, self.heads, k.shape[-1]).transpose(1, 2)
        y = attend(rows, k, v, mask).transpose(1, 2).reshape(q.shape[0], -1, x.shape[-1])  # [G · C, R, D]
        return self.out(y if padding is None else padding.restore(y))


class DecoderBlock(nn.Module):
    """A layer of the decoder: attention to earlier rows, attention to the memory, feed-forward.

    Args:
        width, heads, mlp_ratio, dropout, layer_scale: as for `Block`.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.attention = Branch(CausalAttention(width, heads), width, dropout, layer_scale)
        self.cross = Branch(CrossAttention(width, heads), width, dropout, layer_scale)
        self.mlp = Branch(GEGLU(width, round(width * mlp_ratio)), width, dropout, layer_scale)

    def keys_values(self, memory: Tensor, rotation: Rotation | None = None) -> KeysValues:
        """Compute what the cross-attention reads of a memory [B, M, D]."""
        return cast(CrossAttention, self.cross.layer).keys_values(memory, rotation)

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        memory_mask: Tensor | None = None,
        mask: Tensor | None = None,
        rotations: Rotations | None = None,
        cached: CachedRows | None = None,
    ) -> Tensor:
        """Map x [B, R, D] → [B, R, D].

        Args:
            x: states, of whole sequences or, with `cached`, of new rows only.
            keys_values: of the memories, by the method of this name.
            memory_mask: bool, broadcast to [G, heads, C · R, M], True = may be attended.
            mask, rotations, cached: as for `CausalAttention.forward`.
        """
        x = self.attention(x, mask, rotations, cached)
        queries, padding = None if rotations is None else rotations.queries, None if cached is None else cached.padding
        return self.mlp(self.cross(x, keys_values, memory_mask, queries, padding))


class Decoder(nn.Module):
    """Causal transformer over the defective positions in any order, with cross-attention to the memory.

    Args:
        config: sizes and switches.
        embedding: of the V tokens, for input and output; the model's, which its token encoder reads too.
    """

    embedding: nn.Embedding

    def __init__(self, config: MPS2SConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        object.__setattr__(self, "embedding", embedding)  # not as a module of this one: the model saves it
        self.output: nn.Module | None = None
        """The output table in another form than the embedding's (`nuwa_lip.fast.quantise`)."""
        cells = config.grid[0] * config.grid[1]
        self.begin = nn.Parameter(torch.randn(config.width) * 0.02)
        self.previous_position = nn.Embedding(cells, config.width)
        self.next_position = nn.Embedding(cells, config.width)
        self.blocks = nn.ModuleList(
            DecoderBlock(config.width, config.heads, config.mlp_ratio, config.dropout, config.layer_scale)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        near = config.neighbours if "tokens" in config.perspectives else 0
        self.neighbours = Neighbours(config.codebook_size, config.width, config.grid, near) if near else None
        points, reads = config.pointer and "tokens" in config.perspectives, "text" in config.perspectives
        self.pointer = nn.Linear(config.width, config.width, bias=False) if points else None
        self.shift = CaptionShift(config.width, config.decoder_layers) if config.caption_shift and reads else None
        regions = config.caption_prior if reads else 0
        self.prior = CaptionPrior(config.width, config.grid, regions) if regions else None

    @property
    def layers(self) -> list[DecoderBlock]:
        """Return the blocks, typed."""
        return cast("list[DecoderBlock]", list(self.blocks))

    def predict(self, memory: Memory, targets: Tensor, order: Tensor, rows: Rows | None = None) -> Tensor:
        """Compute the teacher-forced logits of all tokens in one pass.

        Args:
            memory: of G photos.
            targets: int64 [G · C, K], the tokens in the order of decoding; what is no row's input may be anything.
            order: int64 [G · C, K], where they stand.
            rows: of groups, [K] for all (`groups.rows_of`) or [G · C, K] (`rows_of_each`); None: one token a step.

        Returns:
            float32 [G · C, K, V].

        Raises:
            InputError: there are not K rows, or not those of G · C sequences.
        """
        count, mask = order.shape[1], None
        if rows is None:
            slots = torch.arange(count, device=order.device)
            rows = Rows(slots, slots - 1, slots)
        elif rows.slots.shape in ((count,), order.shape):
            rows = rows.to(order.device)
            mask = rows.visible(count).unsqueeze(-3)  # for all heads
        else:
            raise InputError(f"rows have shape {list(rows.slots.shape)}; needed: [{count}] or {list(order.shape)}")
        states = self._token_states(memory).repeat_interleave(len(order) // len(memory.states), 0)
        rotation = rotation_at(token_places(self.config, order.device), self.config)
        known = self._known(memory).repeat_interleave(len(order) // len(memory.states), 0)
        around = self.around(known, targets, order, rows)
        before, after = self._of_neighbours(around)
        x, rotations = self.embed(states, rotation, rows.inputs(targets, order))
        x = x if before is None else x + before
        visible, of_memory = ~memory.mask[:, None, None], self._memory_rotation(memory)
        shifts, prior = self._of_caption(memory, len(order) // len(memory.states))
        for i, block in enumerate(self.layers):
            x = x if shifts is None else x + shifts[:, i, None]
            x = block(x, block.keys_values(memory.states, of_memory), visible, mask, rotations)
        x = self.norm(x if after is None else x + after)
        if self.prior is not None and prior is not None:
            x = self.prior.tilt(x, prior, order)
        return self.head(x)

    def prefill(
        self,
        memory: Memory,
        candidates: int,
        capacity: int,
        *,
        real: int | None = None,
        reuse: DecoderCache | None = None,
    ) -> DecoderCache:
        """Prepare cached decoding of C sequences for each of G memories.

        Args:
            memory: of G photos.
            candidates: C.
            capacity: most rows of a sequence.
            real: how many of the C differ; the others will always repeat the last of these. None: all.
            reuse: a cache of the same memories and C; what it has computed of them is taken.
        """
        config, states = self.config, memory.states
        padding = None if real is None or real == candidates else BatchPadding(real, candidates)
        batch = states.shape[0] * (candidates if padding is None else padding.real)
        # zeros, because an unwritten slot takes part in the product before it is masked
        shape = batch, config.heads, capacity, config.width // config.heads
        layers = [(states.new_zeros(shape), states.new_zeros(shape)) for _ in self.blocks]
        if reuse is not None:
            return dataclasses.replace(reuse, layers=layers, padding=padding)
        rotation, (shifts, prior) = self._memory_rotation(memory), self._of_caption(memory, candidates)
        read = [block.keys_values(states, rotation) for block in self.layers]
        return DecoderCache(
            layers=layers,
            # in one piece for each head: read where the layer left them, every row is on another page of memory
            memory=[(keys.contiguous(), values.contiguous()) for keys, values in read],
            memory_mask=~memory.mask[:, None, None],
            tokens=self._token_states(memory).repeat_interleave(candidates, 0),
            rotation=rotation_at(token_places(config, states.device), config),
            shifts=shifts,
            known=self._known(memory).repeat_interleave(candidates, 0) if self.neighbours is not None else None,
            prior=prior,
            padding=padding,
        )

    def decode_rows(
        self,
        cache: DecoderCache,
        inputs: RowInputs,
        slots: Tensor,
        visible: Tensor,
        last: int,
        around: Tensor | None = None,
    ) -> Tensor:
        """Run R rows of each sequence, keep them in the cache, and compute the logits of the last ones.

        Args:
            cache: of `prefill`, written in place.
            inputs: of the rows, each int64 [G · C, R].
            slots: int64 [R], where the rows go in the cache.
            visible: bool [R, L], which of the first L slots a row attends to.
            last: how many of the R rows to predict a token with, from the last one back.
            around: of `around`.

        Returns:
            float32 [G · C, last, V].
        """
        before, after = self._of_neighbours(around)
        x, rotations = self.embed(cache.tokens, cache.rotation, inputs)
        x = x if before is None else x + before
        layers = zip(self.blocks, cache.layers, cache.memory, strict=True)
        for i, (block, layer, keys_values) in enumerate(layers):
            x = x if cache.shifts is None else x + cache.shifts[:, i, None]
            cached = CachedRows(layer, slots, visible, cache.padding)
            x = block(x, keys_values, cache.memory_mask, None, rotations, cached)
        x = self.norm(x if after is None else x + after)
        if self.prior is not None and cache.prior is not None:
            x = self.prior.tilt(x, cache.prior, inputs.targets)
        return self.head(x[:, -last:])

    def around(self, known: Tensor | None, tokens: Tensor, order: Tensor, rows: Rows) -> Tensor | None:
        """Look up the tokens around the positions that rows predict, known ones and those decided when a row runs.

        Args:
            known: int64 [G · C, N], the photos' tokens, `NO_TOKEN` in the hole; of a cache its `known`.
            tokens: int64 [G · C, K], in the order of decoding; those that are not decided yet may be anything.
            order: int64 [G · C, K], where they stand.
            rows: [R] for all, or [G · C, R].

        Returns:
            int64 [G · C, R, P], or None: the decoder does not read them.
        """
        if self.neighbours is None or known is None:
            return None
        return self.neighbours.around_rows(known, tokens, order, rows)

    def embed(self, states: Tensor, rotation: Rotation | None, inputs: RowInputs) -> tuple[Tensor, Rotations | None]:
        """Embed rows → their first states, [B, R, D], and their rotations.

        Args:
            states: the token encoder's, [B, N, D].
            rotation: of the N tokens of the grid.
            inputs: each int64 [B, R].
        """
        tokens, positions, targets = inputs
        x = self.embedding(tokens.clamp(min=0)) + self.previous_position(positions)
        x = torch.where((tokens == NO_TOKEN)[..., None], self.begin.to(x.dtype), x)
        x = x + self.next_position(targets)
        if self.pointer is not None:
            x = x + self.pointer(states.gather(1, targets[..., None].expand(-1, -1, states.shape[-1])))
        if rotation is None:
            return x, None
        # queries rotate by the position to predict, keys by that of the input token
        cos, sin = rotation
        return x, Rotations(*((cos[at][:, None], sin[at][:, None]) for at in (targets, positions)))

    def head(self, states: Tensor) -> Tensor:
        """Compute logits, float32 [..., V], of the last states [..., D]."""
        logits = F.linear(states, self.embedding.weight) if self.output is None else self.output(states)
        return logits.float()

    def _of_neighbours(self, around: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if self.neighbours is None or around is None else self.neighbours(around)

    def _of_caption(self, memory: Memory, candidates: int) -> list[Tensor | None]:
        """Compute each block's shift by the caption, [B · C, layers, D], and its tilt of the output, [B · C, r², D]."""
        parts = (self.shift, self.prior)
        return [None if part is None else part(memory.caption).repeat_interleave(candidates, 0) for part in parts]

    def _known(self, memory: Memory) -> Tensor:
        """Return the photos' tokens, int64 [B, N], `NO_TOKEN` in the hole."""
        return memory.tokens.flatten(1).masked_fill(memory.token_mask.flatten(1), NO_TOKEN)

    def _token_states(self, memory: Memory) -> Tensor:
        """Return the token encoder's states, [B, N, D]; without that perspective they mean nothing."""
        return memory.states[:, -self.config.grid[0] * self.config.grid[1] :]

    def _memory_rotation(self, memory: Memory) -> Rotation | None:
        """Return the rotation of the memory's M states; a caption stands nowhere."""
        config, device = self.config, memory.states.device
        if not config.rotary:
            return None
        places = [memory.states.new_zeros(memory.text_length, 2, dtype=torch.float32)]
        places += [patch_places(config, device)] if "pixels" in config.perspectives else []
        places += [token_places(config, device)] if "tokens" in config.perspectives else []
        return rotation_at(torch.cat(places), config)
