"""DF-VQGAN (Eq. 7-12): a VQGAN whose encoder never lets the hole leak into the known part.

E and E^DF are one set of weights: with `mask=None` every module is the plain VQGAN to the last bit, with a
mask the encoder uses relative estimation (`defect_free`). The decoder is plain; the symmetrical connections
mix the encoder's own known activations into it level by level, and at the pixel level the known pixels are
the input's. The two networks are in `vqgan`.

Legend: B batch, H W pixels, i level (0 = finest), C_i its channels, h w token grid, n_z width of a code.
"""

import math
from dataclasses import replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.models.dfvqgan_config import DFVQGANConfig
from nuwa_lip.models.partial import encode_partially
from nuwa_lip.models.quantiser import Quantised, Quantiser
from nuwa_lip.models.vqgan import Decoder, Encoder

Skips = list[tuple[Tensor, Tensor]]


class Encoding(NamedTuple):
    """The result of encoding."""

    latents: Tensor
    """float32 [B, n_z, h, w], before quantisation: z^x (Eq. 7), z^y without a mask, or merged (Eq. 9)."""
    tokens: Tensor
    """int64 [B, h, w], ζ."""
    token_mask: Tensor | None
    """bool [B, 1, h, w], m'; None without a mask."""
    skips: Skips | None
    """h_i with m_i, finest first, known positions valid; item 0 is (image, mask). None without a mask."""


class EncodedPair(NamedTuple):
    """A photo with its hole, and the complete photo."""

    known: Encoding
    whole: Encoding
    token_mask: Tensor
    """bool [B, 1, h, w], m'."""
    tokens: Tensor
    """int64 [B, h, w]: ζ^x of `known` where known, the targets ζ^y of `whole` where defective."""


class Reconstruction(NamedTuple):
    """The result of a training pass."""

    image: Tensor
    """ŷ, float32 [B, 3, H, W]."""
    encoding: Encoding
    quantised: Quantised


class DFVQGAN(nn.Module):
    """The defect-free tokenizer: photo with a hole → tokens and known activations → photo (Eq. 7-12)."""

    def __init__(self, config: DFVQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantiser = Quantiser(config.codebook_size, config.codebook_dim, config.normalise_codes)
        self.decoder = Decoder(config)

    @property
    def last_layer(self) -> nn.Parameter:
        """Return the decoder's last weights, where the adaptive weight of the adversarial loss is measured."""
        decoder = self.decoder
        last = decoder.conv_out if decoder.refinement is None else decoder.refinement.conv_out
        return last.weight  # type: ignore[return-value]

    def encode(self, image: Tensor, mask: Tensor | None = None) -> Encoding:
        """Encode a complete image (E), or one with a hole (E^DF, Eq. 7) whose content is ignored.

        Args:
            image: [B, 3, H, W] in [-1, 1]; H and W multiples of the factor. NaN is allowed in the hole.
            mask: bool [B, 1, H, W], True = defective; None for a complete image.

        Raises:
            InputError: the sizes do not fit.
        """
        self._check(image, mask)
        if mask is None:
            latents = self._encode(image, [None] * len(self.config.channels))[0]
            return Encoding(latents, self.quantiser.tokens(latents), None, None)
        masks = self._masks(mask)
        if self.config.partial_convolution:
            latents, activations = encode_partially(self.encoder, self._cells(image), masks[0])
        elif not self.config.relative_estimation:
            latents, activations = self._encode(image.masked_fill(mask, self.config.blank), [None] * len(masks))
        else:
            latents, activations = self._encode(image, masks)
        return self._encoding(latents, image, mask, activations, masks)

    def encode_pair(self, image: Tensor, mask: Tensor) -> EncodedPair:
        """Encode a photo with its hole and without; arguments as for `encode`."""
        known, whole = self.encode(image, mask), self.encode(image)
        assert known.token_mask is not None
        tokens = torch.where(known.token_mask[:, 0], whole.tokens, known.tokens)
        return EncodedPair(known, whole, known.token_mask, tokens)

    def merge_encode(self, image: Tensor, mask: Tensor) -> Encoding:
        """Encode for training (Eq. 8, 9): both branches at every step, merged by the mask of its resolution.

        Both branches run as one doubled batch. Known latents, tokens and skips are those of `encode(image, mask)`; the
        others see the complete image.

        Raises:
            InputError: the sizes do not fit.
        """
        self._check(image, mask)
        masks = self._masks(mask)
        if not self.config.relative_estimation:  # Table 3: the plain encoder sees the complete image
            latents, activations = self._encode(image, [None] * len(masks))
            return self._encoding(latents, image, mask, activations, masks)
        h, activations = self._cells(image), []
        for i, m in enumerate(masks):
            doubled = torch.cat([torch.zeros_like(m), m])
            h, activation = self.encoder.stage(i, torch.cat([h, h]), doubled)
            activations.append(activation.chunk(2)[1])
            h_y, h_x = h.chunk(2)
            h = torch.where(masks[min(i + 1, len(masks) - 1)], h_y, h_x)
        return self._encoding(h.float(), image, mask, activations, masks)

    def quantise(self, latents: Tensor) -> Quantised:
        """Find the nearest codes of latents [B, n_z, h, w], with losses and straight-through gradient (Eq. 10, 13)."""
        return self.quantiser(latents)

    def decode(self, tokens: Tensor, skips: Skips | None = None) -> Tensor:
        """Decode tokens int64 [B, h, w] → float32 [B, 3, H, W] in about [-1, 1]; see `decode_codes`."""
        return self.decode_codes(self.quantiser.lookup(tokens), skips)

    def decode_codes(self, codes: Tensor, skips: Skips | None = None) -> Tensor:
        """Decode codes [B, n_z, h, w] → image, with the symmetrical connections when `skips` are given (Eq. 11, 12).

        With skips, known pixels equal the image that was encoded to the bit (λ_0 → ∞).
        """
        if not self.config.symmetrical_connections:
            skips = None

        def paste(image: Tensor) -> Tensor:
            return image if skips is None else torch.where(skips[0][1], image, skips[0][0].to(image.dtype))

        return paste(self.decoder(codes.to(self.dtype), lambda i, h: self._connect(i, h, skips), paste).float())

    def forward(self, image: Tensor, mask: Tensor, connect: Tensor, quantise: bool = True) -> Reconstruction:
        """Run a training pass of stage 1: merged encoding, quantiser, decoding.

        Args:
            image: y, [B, 3, H, W] in [-1, 1].
            mask: m, bool [B, 1, H, W].
            connect: bool [B], the samples that are decoded with the symmetrical connections.
            quantise: False: decode the latents as they are, as at the start of a training.
        """
        encoding = self.merge_encode(image, mask)
        quantised = self.quantise(encoding.latents)
        codes = quantised.codes if quantise else self.quantiser.project(encoding.latents)
        # a sample decoded without the connections is one of which nothing is known
        off = ~connect[:, None, None, None]
        skips = [(h, m | off) for h, m in encoding.skips or []]
        return Reconstruction(self.decode_codes(codes, skips), encoding, quantised)

    @torch.no_grad()
    def take_unit_range(self) -> Self:
        """Let weights that were trained on pixels from 0 to 1 take and give [-1, 1], and return the model.

        What goes in is brought to (0, 1) within `encode`; what comes out is 2 x - 1 by the last convolution, exactly.
        """
        self.config = replace(self.config, input_range=(0.0, 1.0))
        self.decoder.conv_out.weight.mul_(2)
        self.decoder.conv_out.bias.mul_(2).sub_(1)  # type: ignore[union-attr]
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the weights; public methods take and give float32 whatever it is."""
        return self.decoder.conv_out.weight.dtype

    def _encode(self, image: Tensor, masks: list[Tensor] | list[None]) -> tuple[Tensor, list[Tensor]]:
        """Run one branch through all stages → (latents float32, the activation of each level)."""
        h, activations = self._cells(image), []
        for i, mask in enumerate(masks):
            h, activation = self.encoder.stage(i, h, mask)
            if mask is not None or not self.config.relative_estimation:
                activations.append(activation)
        return h.float(), activations

    def _cells(self, image: Tensor) -> Tensor:
        """Cut [B, 3, H, W] into cells [B, 3 · patch², H / patch, W / patch] in the weights' range and precision."""
        image = ((image + 1) / 2 if self.config.input_range == (0, 1) else image).to(self.dtype)
        return image if self.config.patch == 1 else F.pixel_unshuffle(image, self.config.patch)  # else it would copy

    def _masks(self, mask: Tensor) -> list[Tensor]:
        """Return m_0 ... m_T, the mask at every level."""
        return [pool_mask(mask, self.config.patch << i) for i in range(len(self.config.channels))]

    def _encoding(
        self, latents: Tensor, image: Tensor, mask: Tensor, activations: list[Tensor], masks: list[Tensor]
    ) -> Encoding:
        # in the skips the hole is blank, because it must not be seen; h_T is never connected
        skips = [(image.masked_fill(mask, 0).float(), mask)]
        for h, m in zip(activations[:-1], masks[:-1], strict=True):
            skips.append((h if self.config.relative_estimation else h.masked_fill(m, 0), m))
        return Encoding(latents, self.quantiser.tokens(latents), masks[-1], skips)

    def _connect(self, i: int, h: Tensor, skips: Skips | None) -> Tensor:
        """Compute ŷ_i of Eq. 12 from h = ŷ'_i: known positions become (ŷ'_i + λ_i h_i) / (1 + λ_i)."""
        if skips is None or i + 1 >= len(skips):
            return h
        activation, mask = skips[i + 1]
        weight = 1.0 if self.config.connection_weights is None else self.config.connection_weights[i]
        if math.isinf(weight):
            return torch.where(mask, h, activation.to(h.dtype))
        return torch.where(mask, h, (h + weight * activation.to(h.dtype)) / (1 + weight))

    def _check(self, image: Tensor, mask: Tensor | None) -> None:
        """Refuse sizes that do not fit, naming them."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise InputError(f"image has shape {list(image.shape)}; [B, 3, H, W] is needed")
        H, W = image.shape[2:]
        if H % self.config.factor or W % self.config.factor:
            raise InputError(f"image is {H} x {W}; both sides must be multiples of {self.config.factor}")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != (image.shape[0], 1, H, W)):
            needed = [len(image), 1, H, W]
            raise InputError(f"mask is {mask.dtype} {list(mask.shape)}; this image needs torch.bool {needed}")
