"""MP-S2S (Eq. 15): three perspectives on a photo with a hole, and a decoder over the missing tokens.

The caption, the known pixels and the known tokens are encoded apart and put one after the other into a
memory. The decoder (`decoder`) is causal over the K defective positions only, in any order: row k is given the
token before it, or one of the group before its own (`groups`), where that one stands, and the position it is
to predict. Whatever stands in the hole is removed by selection, so the encoders depend on what is known only.

Legend: B batch, T text, P patches, h w token grid, N = h · w, K defective tokens, V codebook, D width,
M = T + P + N length of the memory.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models.bert import BertText
from nuwa_lip.models.decoder import Decoder
from nuwa_lip.models.groups import Rows
from nuwa_lip.models.inputs import check_photo, check_positions, check_range
from nuwa_lip.models.memory import Memory
from nuwa_lip.models.mps2s_config import MPS2SConfig
from nuwa_lip.models.orders import raster_order, target_tokens
from nuwa_lip.models.perspectives import Coarse, PixelEncoder, TokenEncoder, different
from nuwa_lip.models.rotary import patch_places, rotation_at, token_places
from nuwa_lip.models.text import ReadyMadeText, TextTransformer, describe, ready_made, text_padding
from nuwa_lip.models.transformer import Encoder, initialise

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MPS2S(nn.Module):
    """Caption, known pixels and known tokens in; distributions of the missing tokens out (Eq. 15)."""

    def __init__(self, config: MPS2SConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_once = False
        """In training, encode fully hidden photos of a batch once; for devices that need not be waited for."""

        def encoder(layers: int) -> Encoder:
            return Encoder(layers, config.width, config.heads, config.mlp_ratio, config.dropout, config.layer_scale)

        # one table for the token encoder, the decoder's input and its output
        self.embedding = nn.Embedding(config.codebook_size, config.width)
        self.decoder = Decoder(config, self.embedding)
        self.pixels = PixelEncoder(config, encoder(config.pixel_layers)) if "pixels" in config.perspectives else None
        self.tokens = TokenEncoder(config, encoder(config.token_layers)) if "tokens" in config.perspectives else None
        self.text: TextTransformer | BertText | ReadyMadeText | None = None
        if "text" in config.perspectives and config.text_encoder is None:
            sizes = config.text_layers, config.text_width, config.text_heads, config.text_mlp_ratio
            text_encoder = Encoder(*sizes, config.dropout, config.layer_scale)
            self.text = TextTransformer(config.text_vocab, config.text_length, text_encoder, config.text_width)
        for part in self.children():
            initialise(part)
        if self.decoder.pointer is not None:
            nn.init.zeros_(self.decoder.pointer.weight)
        if self.decoder.prior is not None:
            for layer in (self.decoder.prior.out, self.decoder.prior.gate):
                nn.init.zeros_(layer.weight)
        if self.decoder.neighbours is not None:
            self.decoder.neighbours.start()
        if self.decoder.shift is not None:
            nn.init.zeros_(self.decoder.shift.out.weight)
        if "text" in config.perspectives and config.text_encoder is not None:
            self.text = ready_made(config.text_encoder)
        self.text_projection = None if self.text is None else nn.Linear(self.text.width, config.width)

    @classmethod
    def with_text_encoder(cls, config: MPS2SConfig, text_model: PreTrainedModel) -> MPS2S:
        """Build a new model of `config` around a trained text encoder of transformers (BERT, CLIP or T5).

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
        """Begin with token embeddings that are similar where codes are: a random projection of the codebook.

        Which codes look similar is known from stage 1; a small training has no photos to spare to learn it again.

        Args:
            codes: [V, n_z], `DFVQGAN.quantiser.codes`.
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
        *,
        coarse: Coarse | None = None,
        others: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the defective tokens, teacher-forced (Eq. 15).

        Row k never sees the targets from k on; with `rows`, those from its group on.

        Args:
            text_ids, image, mask, token_mask, coarse: as for `encode`.
            tokens: int64 [B, h, w], ζ^x at known and the targets ζ^y at defective positions.
            order: int64 [B, K], each sample's defective positions (row-major) in the order of decoding, K at
                least the largest number of them in the batch, any values after a sample's own; None: raster.
            rows: of groups that parallel steps decide, as for `predict`.
            others: int64 [B, T], second captions of the same photos, which are encoded once for both.

        Returns:
            Logits, float32 [B, K, V], and which rows count, bool [B, K]. With second captions logits are [2B, K, V],
            theirs behind those of the first.

        Raises:
            InputError: a shape or value does not fit.
        """
        memory = self.encode(text_ids, image, mask, tokens, token_mask, coarse=coarse)
        if order is None:
            order, real = raster_order(token_mask)
        else:
            real = check_positions(order, token_mask, values=not self.training)
            order = order.where(real, 0)
        targets = target_tokens(tokens, order)
        logits = self.decoder.predict(memory, targets, order, rows)
        if others is not None:
            again = self.decoder.predict(self.with_captions(memory, others), targets, order, rows)
            logits = torch.cat([logits, again])
        return logits, real

    def encode(
        self,
        text_ids: Tensor | None,
        image: Tensor,
        mask: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        *,
        coarse: Coarse | None = None,
    ) -> Memory:
        """Encode what is known, c = [c^t; c^l; c^h].

        Args:
            text_ids: int64 [B, T], padded with `config.pad_id`; ignored (None will do) without text.
            image: float [B, 3, H, W] in [-1, 1], side `config.image_size`; anything in the hole, NaN
                included.
            mask: bool [B, 1, H, W], True = defective.
            tokens: int64 [B, h, w], ζ^x; anything at defective positions.
            token_mask: bool [B, 1, h, w], m'.
            coarse: what a first pass has painted in the hole, for a second one.

        Raises:
            InputError: a shape or value does not fit.
        """
        defective = check_photo(self.config, image, mask, tokens, token_mask, values=not self.training)  # [B, N]
        parts = []
        text_states, padding = self.encode_text(text_ids, image.shape[0])
        if text_states is not None:
            parts.append(text_states)
        once = self.training and self.hidden_once
        kept, of = different(mask, defective, coarse) if once else (slice(None), slice(None))
        coarse = coarse and coarse.of(kept)
        if self.pixels is not None:
            rotation = rotation_at(patch_places(self.config, image.device), self.config)
            parts.append(self.pixels(image[kept], mask[kept], rotation, coarse)[of])
        if self.tokens is not None:
            embedded = self.embedding(tokens[kept].flatten(1).masked_fill(defective[kept], 0))
            rotation = rotation_at(token_places(self.config, image.device), self.config)
            painted = None
            if coarse is not None:
                painted = self.embedding(coarse.tokens.flatten(1)) * coarse.painted[:, None, None]
            parts.append(self.tokens(embedded, defective[kept], rotation, painted)[of])
        states = torch.cat(parts, 1)
        text_length = padding.shape[1]
        return Memory(states, F.pad(padding, (0, states.shape[1] - text_length)), tokens, token_mask, text_length)

    def with_captions(self, memory: Memory, text_ids: Tensor) -> Memory:
        """Encode the same photos with other captions; the pixel and token encoders do not run again.

        Args:
            memory: of B photos.
            text_ids: int64 [B, T], as for `encode`; for guidance those of "".

        Raises:
            InputError: a shape or value does not fit.
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

    def encode_text(self, text_ids: Tensor | None, batch: int) -> tuple[Tensor | None, Tensor]:
        """Encode captions → states [B, T, D] and padding [B, T]; without text no states and T = 0.

        Args:
            text_ids: int64 [B, T], padded with `config.pad_id`.
            batch: B.

        Raises:
            InputError: a shape or value does not fit.
        """
        if self.text is None or self.text_projection is None:
            return None, torch.zeros(batch, 0, dtype=torch.bool, device=self.embedding.weight.device)
        config = self.config
        if text_ids is None:
            raise InputError('text_ids is None; this model reads captions: give those of "" for none')
        if text_ids.ndim != 2 or text_ids.shape[0] != batch or not 1 <= text_ids.shape[1] <= config.text_length:
            raise InputError(f"text_ids has shape {list(text_ids.shape)}; needed: [{batch}, 1 to {config.text_length}]")
        if not self.training:
            check_range("text_ids", text_ids, config.text_vocab)
        padding = text_padding(text_ids, config.pad_id)
        return self.text_projection(self.text(text_ids, padding)), padding
