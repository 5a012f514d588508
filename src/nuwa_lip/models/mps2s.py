"""MP-S2S (Eq. 15): three perspectives on a photo with a hole, and a decoder over the missing tokens.

The caption, the known pixels and the known tokens are encoded apart and put one after the other into a
memory. The decoder is causal over the K defective positions only, in any order: row k is given the token
before it, or one of the group before its own (`groups`), where that one stands, and the position it is to
predict. Whatever stands in the hole is removed by selection, so the encoders depend on what is known only.

Legend: B batch, T text, P patches, h w token grid, N = h · w, K defective tokens, V codebook, D width,
M = T + P + N length of the memory, G memories, C candidates of a memory, R rows of a decoding step.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models.bert import BertText
from nuwa_lip.models.decoder import Decoder, DecoderCache, Memory, turns_of
from nuwa_lip.models.groups import Rows
from nuwa_lip.models.inputs import check_photo, check_positions, check_range
from nuwa_lip.models.mps2s_config import MPS2SConfig
from nuwa_lip.models.orders import raster_order, target_tokens
from nuwa_lip.models.perspectives import PixelEncoder, TokenEncoder, different
from nuwa_lip.models.text import ReadyMadeText, TextTransformer, describe, ready_made, text_padding
from nuwa_lip.models.transformer import (
    CachedRows,
    Copies,
    Encoder,
    KeysValues,
    KeyValueCache,
    Turn,
    initialise,
    turn_by,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MPS2S(nn.Module):
    """Caption, known pixels and known tokens in; distributions of the missing tokens out (Eq. 15)."""

    def __init__(self, config: MPS2SConfig) -> None:
        super().__init__()
        self.config = config

        def encoder(layers: int) -> Encoder:
            return Encoder(layers, config.width, config.heads, config.mlp_ratio, config.dropout, config.layer_scale)

        # one table for the token encoder, the decoder's input and its output
        self.embedding = nn.Embedding(config.codebook_size, config.width)
        self.output: nn.Module | None = None
        """The embedding as output table in another form, if it has one (`nuwa_lip.fast.quantise`)."""
        self.decoder = Decoder(config)
        self.pixels = PixelEncoder(config, encoder(config.pixel_layers)) if "pixels" in config.perspectives else None
        self.tokens = TokenEncoder(config, encoder(config.token_layers)) if "tokens" in config.perspectives else None
        self.text: TextTransformer | BertText | ReadyMadeText | None = None
        if "text" in config.perspectives and config.text_encoder is None:
            self.text = TextTransformer(
                config.text_vocab,
                config.text_length,
                Encoder(
                    config.text_layers,
                    config.text_width,
                    config.text_heads,
                    config.text_mlp_ratio,
                    config.dropout,
                    config.layer_scale,
                ),
                config.text_width,
            )
        for part in self.children():
            initialise(part)
        if self.decoder.pointer is not None:
            nn.init.zeros_(self.decoder.pointer.weight)
        if self.decoder.prior is not None:
            for layer in (self.decoder.prior.out, self.decoder.prior.gate):
                nn.init.zeros_(layer.weight)
        if self.decoder.shift is not None:
            nn.init.zeros_(self.decoder.shift.out.weight)
        if "text" in config.perspectives and config.text_encoder is not None:
            self.text = ready_made(config.text_encoder)
        self.text_projection = None if self.text is None else nn.Linear(self.text.width, config.width)

    @classmethod
    def with_text_encoder(cls, config: MPS2SConfig, text_model: PreTrainedModel) -> MPS2S:
        """A new model of `config` around a trained text encoder of transformers (BERT, CLIP or T5).

        Args:
            config: its text sizes are replaced by those of `text_model`.
            text_model: a `BertModel`, `CLIPTextModel` or `T5EncoderModel`; its weights are copied.

        Raises:
            InputError: the text model is of another kind, or `config` has no text perspective.
        """
        if "text" not in config.perspectives:
            raise InputError(f"perspectives {config.perspectives} leave no place for a text encoder; add 'text'")
        description = describe(text_model)
        config = dataclasses.replace(
            config,
            text_encoder=description,
            text_vocab=description["vocab_size"],
            text_length=description.get("max_position_embeddings", config.text_length),
        )
        model = cls(config)
        assert isinstance(model.text, BertText | ReadyMadeText)
        model.text.load(text_model)
        return model

    @torch.no_grad()
    def start_from_codes(self, codes: Tensor) -> None:
        """Begin with token embeddings that are alike where codes are: a random projection of the codebook.

        Which codes look alike is known from stage 1; a small training has no photos to spare to learn it again.

        Args:
            codes: [V, n_z], what `DFVQGAN.quantiser` gives the decoder.
        """
        projected = codes.float() @ torch.randn(codes.shape[1], self.config.width, device=codes.device)
        own = torch.randn_like(projected)
        mixed = projected / projected.std() + own / 2
        self.embedding.weight.copy_(mixed * (self.embedding.weight.std() / mixed.std()))

    def forward(
        self,
        text_ids: Tensor | None,
        image: Tensor,
        mask: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        order: Tensor | None = None,
        rows: Rows | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced prediction of the defective tokens (Eq. 15).

        Row k never sees the targets from k on; with `rows`, those from its group on.

        Args:
            text_ids, image, mask, token_mask: as for `encode`.
            tokens: int64 [B, h, w], ζ^x at known and the targets ζ^y at defective positions.
            order: int64 [B, K], each sample's defective positions (row-major) in the order of decoding, K at
                least the largest number of them in the batch, any values after a sample's own; None: raster.
            rows: of groups that parallel steps decide, as for `predict`.

        Returns:
            Logits, float32 [B, K, V], and which rows count, bool [B, K].

        Raises:
            InputError: a shape or value does not fit.
        """
        memory = self.encode(text_ids, image, mask, tokens, token_mask)
        if order is None:
            order, real = raster_order(token_mask)
        else:
            real = check_positions(order, token_mask, values=not self.training)
            order = order.where(real, 0)
        return self.predict(memory, target_tokens(tokens, order), order, rows), real

    def encode(
        self, text_ids: Tensor | None, image: Tensor, mask: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> Memory:
        """Encode what is known, c = [c^t; c^l; c^h].

        Args:
            text_ids: int64 [B, T], padded with `config.pad_id`; ignored (None will do) without text.
            image: float [B, 3, H, W] in [-1, 1], side `config.image_size`; anything in the hole, NaN
                included.
            mask: bool [B, 1, H, W], True = defective.
            tokens: int64 [B, h, w], ζ^x; anything at defective positions.
            token_mask: bool [B, 1, h, w], m'.

        Raises:
            InputError: a shape or value does not fit.
        """
        defective = check_photo(self.config, image, mask, tokens, token_mask, values=not self.training)  # [B, N]
        parts = []
        text_states, padding = self.encode_text(text_ids, len(image))
        if text_states is not None:
            parts.append(text_states)
        kept, of = different(mask, defective) if self.training else (slice(None), slice(None))
        if self.pixels is not None:
            parts.append(self.pixels(image[kept], mask[kept], self._turn(self._patches(image.device)))[of])
        if self.tokens is not None:
            embedded = self.embedding(tokens[kept].flatten(1).masked_fill(defective[kept], 0))
            parts.append(self.tokens(embedded, defective[kept], self._turn(self._cells(image.device)))[of])
        states = torch.cat(parts, 1)
        text_length = padding.shape[1]
        return Memory(states, F.pad(padding, (0, states.shape[1] - text_length)), tokens, token_mask, text_length)

    def retell(self, memory: Memory, text_ids: Tensor) -> Memory:
        """The same photos with other captions; the pixel and token encoders do not run again.

        Args:
            memory: of B photos.
            text_ids: int64 [B, T], as for `encode`; for guidance those of "".
        """
        text_states, padding = self.encode_text(text_ids, len(memory.states))
        if text_states is None:
            return memory
        old = memory.text_length
        return dataclasses.replace(
            memory,
            states=torch.cat([text_states, memory.states[:, old:]], 1),
            mask=torch.cat([padding, memory.mask[:, old:]], 1),
            text_length=padding.shape[1],
        )

    def predict(self, memory: Memory, targets: Tensor, order: Tensor, rows: Rows | None = None) -> Tensor:
        """Teacher-forced logits of all tokens in one pass.

        Args:
            memory: of B photos.
            targets: int64 [B · C, K], the tokens in the order of decoding; what no row says is not looked at.
            order: int64 [B · C, K], where they stand.
            rows: of groups, [K] for all (`groups.rows_of`) or [B · C, K] (`rows_of_each`); None: one token a step.

        Returns:
            float32 [B · C, K, V].

        Raises:
            InputError: there are not K rows, or not for so many sequences.
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
        previous, previous_at = rows.say(targets, order)
        states = self._token_states(memory).repeat_interleave(len(order) // len(memory.states), 0)
        x = self.decoder.embed(self.embedding, states, previous, previous_at, order)
        visible, turn = ~memory.mask[:, None, None], self._memory_turn(memory)
        turns = turns_of(self._turn(self._cells(order.device)), previous_at, order)
        shifts, prior = self._of_caption(memory, len(order) // len(memory.states))
        for i, block in enumerate(self.decoder.layers):
            keys_values = block.keys_values(memory.states, turn)
            x = x if shifts is None else x + shifts[:, i, None]
            x = block(x, mask, causal=mask is None, keys_values=keys_values, memory_mask=visible, turns=turns)
        return self.head(self.decoder.finish(x, prior, order))

    def head(self, rows: Tensor) -> Tensor:
        """Logits, float32 [..., V], of the decoder's output [..., D]."""
        logits = F.linear(rows, self.embedding.weight) if self.output is None else self.output(rows)
        return logits.float()

    def prefill(
        self,
        memory: Memory,
        candidates: int,
        capacity: int,
        *,
        distinct: int | None = None,
        earlier: DecoderCache | None = None,
    ) -> DecoderCache:
        """Prepare cached decoding of C sequences for each of G memories.

        Args:
            memory: of G photos.
            candidates: C.
            capacity: most tokens of a sequence.
            distinct: only so many of C differ, the rest will always be copies of the last of these.
            earlier: of the same memories and C; what it has made of them is taken.
        """
        config, states = self.config, memory.states
        copies = None if distinct is None or distinct == candidates else Copies(distinct, candidates)
        batch = len(states) * (candidates if copies is None else copies.distinct)
        head_width = config.width // config.heads
        layers = [KeyValueCache(batch, config.heads, capacity, head_width, states) for _ in self.decoder.layers]
        if earlier is not None:
            return dataclasses.replace(earlier, layers=layers, copies=copies)
        turn = self._memory_turn(memory)
        shifts, prior = self._of_caption(memory, candidates)
        return DecoderCache(
            layers=layers,
            # in one piece for each head: read where the layer left them, every row is on another page of memory
            memory=[_in_one_piece(block.keys_values(states, turn)) for block in self.decoder.layers],
            memory_mask=~memory.mask[:, None, None],
            tokens=self._token_states(memory).repeat_interleave(candidates, 0),
            cells=self._turn(self._cells(states.device)),
            copies=copies,
            shifts=shifts,
            prior=prior,
        )

    def decode_rows(
        self,
        cache: DecoderCache,
        previous: Tensor,
        previous_at: Tensor,
        at: Tensor,
        slots: Tensor,
        visible: Tensor,
    ) -> Tensor:
        """Run R rows of each sequence and keep them in the cache → [G · C, R, D], for `head`.

        Args:
            cache: of `prefill`, written in place.
            previous: int64 [G · C, R], the token that each row says, or `NO_TOKEN`.
            previous_at: int64 [G · C, R], where that one stands; for none `at`.
            at: int64 [G · C, R], position to predict.
            slots: int64 [R], where the rows go in the cache.
            visible: bool [R, L], which of the first L slots a row attends to.
        """
        x = self.decoder.embed(self.embedding, cache.tokens, previous, previous_at, at)
        turns = turns_of(cache.cells, previous_at, at)
        layers = zip(self.decoder.layers, cache.layers, cache.memory, strict=True)
        for i, (block, layer, keys_values) in enumerate(layers):
            x = x if cache.shifts is None else x + cache.shifts[:, i, None]
            rows = CachedRows(layer, slots, visible, cache.copies)
            x = block(x, rows=rows, keys_values=keys_values, memory_mask=cache.memory_mask, turns=turns)
        return self.decoder.finish(x, cache.prior, at)

    def decode_one_token(
        self, cache: DecoderCache, previous: Tensor, previous_at: Tensor, at: Tensor, slot: Tensor
    ) -> Tensor:
        """One step of one token → logits, float32 [G · C, V].

        Every shape stays the same from step to step, as `torch.compile` and CUDA graphs need it; in return the
        whole cache is read, whose later slots are masked. `decode_rows` reads what is in use.

        Args:
            cache: of `prefill`, written in place.
            previous, previous_at, at: int64 [G · C], as for `decode_rows`.
            slot: int64 [1], where the row goes in the cache.
        """
        capacity = cache.layers[0].keys.shape[2]
        visible = torch.arange(capacity, device=slot.device) <= slot[:, None]
        rows = self.decode_rows(cache, previous[:, None], previous_at[:, None], at[:, None], slot, visible)
        return self.head(rows[:, 0])

    def _token_states(self, memory: Memory) -> Tensor:
        """The token encoder's states, [B, N, D]; of no meaning without that perspective."""
        return memory.states[:, -self.config.grid[0] * self.config.grid[1] :]

    def _of_caption(self, memory: Memory, candidates: int) -> list[Tensor | None]:
        """What each block adds of the caption, [B · C, layers, D], and how it tilts the output, [B · C, r², D]."""
        parts = (self.decoder.shift, self.decoder.prior)
        return [None if part is None else part(memory.caption).repeat_interleave(candidates, 0) for part in parts]

    def _cells(self, device: torch.device) -> Tensor:
        """Row and column of every token, float [N, 2]."""
        rows, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in self.config.grid)
        return torch.cartesian_prod(rows, columns)

    def _patches(self, device: torch.device) -> Tensor:
        """Where the middle of every patch of pixels stands among the tokens, float [P, 2]."""
        across = self.config.image_size // self.config.patch_size
        middles = (torch.arange(across, device=device, dtype=torch.float32) + 0.5) / across
        scale = torch.tensor(self.config.grid, device=device)
        return torch.cartesian_prod(middles, middles) * scale - 0.5

    def _turn(self, places: Tensor) -> Turn | None:
        """By how much attention turns at places [N, 2]; None without rotary positions."""
        return turn_by(places, self.config.width // self.config.heads) if self.config.rotary else None

    def _memory_turn(self, memory: Memory) -> Turn | None:
        """Of the memory's states; a caption stands nowhere."""
        if not self.config.rotary:
            return None
        places = [memory.states.new_zeros(memory.text_length, 2, dtype=torch.float32)]
        places += [self._patches(memory.states.device)] if self.pixels is not None else []
        places += [self._cells(memory.states.device)] if self.tokens is not None else []
        return self._turn(torch.cat(places))

    def encode_text(self, text_ids: Tensor | None, batch: int) -> tuple[Tensor | None, Tensor]:
        """States [B, T, D] and padding [B, T]; without text no states and T = 0."""
        if self.text is None or self.text_projection is None:
            return None, torch.zeros(batch, 0, dtype=torch.bool, device=self.embedding.weight.device)
        config = self.config
        if text_ids is None:
            raise InputError('text_ids is None; this model reads captions: give those of "" for none')
        if text_ids.ndim != 2 or len(text_ids) != batch or not 1 <= text_ids.shape[1] <= config.text_length:
            raise InputError(f"text_ids has shape {list(text_ids.shape)}; needed: [{batch}, 1 to {config.text_length}]")
        if not self.training:
            check_range("text_ids", text_ids, config.text_vocab)
        padding = text_padding(text_ids, config.pad_id)
        return self.text_projection(self.text(text_ids, padding)), padding


def _in_one_piece(keys_values: KeysValues) -> KeysValues:
    keys, values = keys_values
    return keys.contiguous(), values.contiguous()
