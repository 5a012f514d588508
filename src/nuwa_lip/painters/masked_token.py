"""aMUSEd and Meissonic as painters: the paper's method on published weights.

Known tokens come from defect-free encoding with their own VQ weights, so that those at the hole's edge know nothing of
the hole; a bidirectional transformer predicts the others from the caption. The symmetrical connections, for which their
decoder was not trained, are off.

Legend: M captions (2 with guidance, "" first), h w token grid, N = h · w, V codes, T words, D width.
"""

from typing import Any

import torch
from torch import Tensor

from nuwa_lip.models import DFVQGAN
from nuwa_lip.painters.folders import warn_if_cut
from nuwa_lip.painters.painter import Callback, Needs, Painting, Window, counted
from nuwa_lip.sampling import Sampling
from nuwa_lip.sampling.masked import sample_masked

AESTHETIC = 6  # the score that the picture is said to have, as in diffusers
Text = tuple[Tensor, Tensor]
"""A text encoder's last but one layer [M, T, D], and its pooled output [M, D]."""


class MaskedToken:
    """Holds an aMUSEd; `meissonic.Meissonic` has another transformer.

    Args:
        dfvqgan: of its VQ's weights.
        transformer, text_encoder, tokenizer: as diffusers and transformers have them.
        mask_id: the token that stands for a missing one.
    """

    usual = Sampling(guidance_scale=10.0, num_inference_steps=12, schedule="confidence")  # diffusers' defaults

    def __init__(self, dfvqgan: DFVQGAN, transformer: Any, text_encoder: Any, tokenizer: Any, mask_id: int) -> None:
        self.dfvqgan, self.transformer, self.text_encoder = dfvqgan, transformer, text_encoder
        self.tokenizer, self.mask_id = tokenizer, mask_id
        self.needs = Needs(resolution=dfvqgan.config.resolution, multiple=dfvqgan.config.factor, sampling=self.usual)
        self._uncaptioned: Text | None = None

    @property
    def device(self) -> torch.device:
        """Return the device that holds the model."""
        return self.dfvqgan.last_layer.device

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Move the model; its image tokenizer stays in float32, because activations overflow in float16."""
        self.transformer.to(*args, **kwargs), self.text_encoder.to(*args, **kwargs)
        self.dfvqgan.to(self.transformer.device)
        self._uncaptioned = None

    @torch.no_grad()
    def paint(
        self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Callback | None
    ) -> Painting:
        """Paint candidates.

        Args:
            window, prompt, seeds, sampling, callback: as for `Painter.paint`.
        """
        tokens, token_mask = self.dfvqgan.encode(window.image, window.mask)[1:3]  # its activations are not needed
        assert token_mask is not None
        known = tokens.masked_fill(token_mask[:, 0], self.mask_id)
        text, images, scores = self._read(prompt, sampling), [], []

        def predict(tokens: Tensor, left: int) -> Tensor:
            return self._logits(tokens, left, text, sampling.guidance_scale)

        for seed, progress in counted(seeds, callback):  # one by one: a candidate must not depend on their number
            generator = torch.Generator().manual_seed(seed)
            tokens, score = sample_masked(predict, known, self.mask_id, sampling, generator, progress)
            codes = self.dfvqgan.quantiser.lookup(tokens)  # channels last, in which a CPU decodes faster
            images.append(self.dfvqgan.decode_codes(codes.contiguous(memory_format=torch.channels_last)))
            scores.append(score)
        return Painting(images, torch.stack(scores), int(token_mask.sum()))

    def _logits(self, tokens: Tensor, left: int, text: Text, scale: float) -> Tensor:
        """Compute the guided logits, float32 [N, V], of tokens [1, h, w], after which `left` steps follow."""
        (hidden, pooled), side, M = text, self.needs.resolution, len(text[0])
        said = torch.tensor([[side, side, 0, 0, AESTHETIC]], device=hidden.device, dtype=hidden.dtype)
        logits = self._network(
            tokens.expand(M, -1, -1), hidden, pooled, said.expand(M, -1), left
        ).float()  # [M, V, h, w]
        guided = logits[:1] if M == 1 else logits[:1] + scale * (logits[1:] - logits[:1])
        return guided[0].flatten(1).T

    def _network(self, tokens: Tensor, hidden: Tensor, pooled: Tensor, said: Tensor, left: int) -> Tensor:
        return self.transformer(tokens, hidden, pooled, said)

    def _read(self, prompt: str, sampling: Sampling) -> Text:
        """Encode a caption, with guidance after the empty one, which is encoded once."""
        if not sampling.guided:
            return self._encode(prompt)
        self._uncaptioned = self._uncaptioned or self._encode("")
        hidden, pooled = zip(self._uncaptioned, self._encode(prompt), strict=True)
        return torch.cat(hidden), torch.cat(pooled)

    def _encode(self, text: str) -> Text:
        warn_if_cut(text, self.tokenizer)
        ids = self.tokenizer([text], return_tensors="pt", padding="max_length", truncation=True).input_ids
        out = self.text_encoder(ids.to(self.device), return_dict=True, output_hidden_states=True)
        return out.hidden_states[-2], out.text_embeds
