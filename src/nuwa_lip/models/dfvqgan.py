"""DF-VQGAN (Eq. 7-12): a VQGAN whose encoder never lets the hole leak into the known part.

E and E^DF are one set of weights: with `mask=None` every module is the plain VQGAN to the last bit, with a
mask the encoder uses relative estimation (`defect_free`). The decoder is plain; the symmetrical connections
mix the encoder's own known activations into it level by level, and at the pixel level the known pixels are
the input's. The two networks are in `vqgan`.

Legend: B batch, H W pixels, i level (0 = finest), C_i its channels, h w token grid, n_z width of a code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models.defect_free import pool_mask
from nuwa_lip.models.partial import encode_partially
from nuwa_lip.models.quantiser import Quantised, Quantiser
from nuwa_lip.models.vqgan import Decoder, Encoder

Skips = list[tuple[Tensor, Tensor]]
COUNTS = ("encoder_blocks", "decoder_blocks", "groups", "latent_channels", "codebook_size", "codebook_dim")


@dataclass(frozen=True, kw_only=True)
class DFVQGANConfig:
    """Sizes and switches of a `DFVQGAN`; `preset` gives the named ones."""

    resolution: int = 256
    """Side of the square images it is trained on, in pixels; any multiple of `factor` works."""
    channels: tuple[int, ...] = (128, 128, 256, 512)
    """Channels of each level, finest first; each level but the last ends with a halving."""
    patch: int = 1
    """Pixels on the side of a cell of the finest level, a power of two: 2 and more spare a small machine the
    convolutions at full resolution, which cost most. A cell is defective if any of its pixels is."""
    refinement: int = 0
    """Channels of the decoder's last convolutions, at full resolution, which take the grid of its cells away and see
    the known pixels beside the hole; 0: none."""
    encoder_blocks: int = 2
    """Residual blocks a level in the encoder."""
    decoder_blocks: int = 2
    """Residual blocks a level in the decoder (official: 2; taming-transformers and diffusers: 3)."""
    mirrored_decoder: bool = False
    """On (official): the decoder is the encoder's mirror image, so that a level narrows in its last block and
    is connected where it begins. Off (taming-transformers, diffusers): it narrows in its first block and is
    connected where it ends. Either way the connected features have as many channels as the encoder's."""
    attention_levels: tuple[int, ...] = ()
    """Levels whose residual blocks each have attention beside them."""
    mid_attention: bool = True
    """Attention between the two residual blocks of the middle."""
    groups: int = 32
    """Groups of the group norms; divides every number of channels."""
    latent_channels: int = 256
    """Channels between the network and the 1 x 1 convolutions around the codebook."""
    codebook_size: int = 8192
    """Number of codes."""
    codebook_dim: int = 256
    """n_z, width of a code."""
    normalise_codes: bool = False
    """Compare latents and codes on the unit sphere (with a small `codebook_dim`: LlamaGen's recipe)."""
    commitment: float = 0.25
    """β of Eq. 13."""
    relative_estimation: bool = True
    """Off (Table 3): the hole is zeroed and encoded as if it were picture."""
    partial_convolution: bool = False
    """On, in place of relative estimation: holes are encoded by partial convolutions, norms and attention staying
    plain (§3.2). Weights are those of a VQGAN, and so is their training."""
    symmetrical_connections: bool = True
    """Off (Table 3): nothing of the encoder but the tokens reaches the decoder."""
    connection_weights: tuple[float, ...] | None = None
    """λ_i of Eq. 12 for each level with a halving, finest first, inf allowed; None: 1 each."""

    def __post_init__(self) -> None:
        for name in ("channels", "attention_levels", "connection_weights"):  # JSON has lists only
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} is too small: 1 at least")
        if not self.channels:
            raise InputError("channels is empty: one number a level is needed, as 128,128,256,512")
        odd = [c for c in self.channels if c < 1 or c % self.groups]
        if odd:
            raise InputError(
                f"channels {odd[0]} cannot be divided into {self.groups} groups: change channels or groups"
            )
        beyond = [i for i in self.attention_levels if not 0 <= i < len(self.channels)]
        if beyond:
            last = len(self.channels) - 1
            raise InputError(f"attention_levels {beyond[0]} does not exist: levels are 0 to {last}")
        if self.patch < 1 or self.patch & (self.patch - 1):
            raise InputError(f"patch is {self.patch}; it must be a power of two: 1, 2, 4")
        if self.refinement < 0:
            raise InputError(f"refinement is {self.refinement}; it must be 0 (none) or more channels")
        if self.resolution < 1 or self.resolution % self.factor:
            raise InputError(f"resolution {self.resolution} is not a multiple of the factor {self.factor}")
        if self.partial_convolution and self.relative_estimation:
            raise InputError("partial_convolution stands in place of relative_estimation: switch that off")
        self._check_connection_weights()

    def _check_connection_weights(self) -> None:
        weights, levels = self.connection_weights, len(self.channels)
        if weights is None:
            return
        if len(weights) != levels - 1:
            raise InputError(f"connection_weights has {len(weights)} values; {levels} levels need {levels - 1}")
        negative = [weight for weight in weights if not weight >= 0]
        if negative:
            raise InputError(f"connection_weights {negative[0]} is not a weight: 0 or more, or inf")

    @property
    def factor(self) -> int:
        """Pixels on a token's side."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def grid(self) -> int:
        """Tokens on a side of the square token grid at `resolution`."""
        return self.resolution // self.factor

    @classmethod
    def preset(cls, name: str) -> DFVQGANConfig:
        """A named configuration; `PRESETS` lists them."""
        if name not in PRESETS:
            raise InputError(f"no DF-VQGAN preset is called {name!r}; there are: {', '.join(PRESETS)}")
        return PRESETS[name]


PRESETS = {
    # the official settings: 48.5 M parameters, 32 x 32 tokens
    "paper-f8-8192": DFVQGANConfig(mirrored_decoder=True),
    # the same tokens at 59 % of the arithmetic: the finest level, which costs most, is half as wide
    "light-f8-8192": DFVQGANConfig(channels=(64, 128, 256, 512), mirrored_decoder=True),
    # taming-transformers' f16 shape, 16 x 16 tokens, with the official decoder
    "paper-f16-1024": DFVQGANConfig(
        channels=(128, 128, 256, 256, 512), attention_levels=(4,), codebook_size=1024, mirrored_decoder=True
    ),
    "paper-f16-12288": DFVQGANConfig(
        channels=(128, 128, 256, 256, 512), attention_levels=(4,), codebook_size=12288, mirrored_decoder=True
    ),
    # the bundled model: 128 px, 16 x 16 tokens; it begins at 64 x 64 cells, for full resolution costs most on a CPU
    "mini": DFVQGANConfig(
        resolution=128,
        patch=2,
        channels=(32, 64, 128),
        encoder_blocks=1,
        decoder_blocks=2,
        groups=8,
        latent_channels=64,
        codebook_size=1024,
        codebook_dim=16,
        normalise_codes=True,
    ),
    # for tests: 32 px, 8 x 8 tokens
    "tiny": DFVQGANConfig(
        resolution=32,
        channels=(16, 32, 32),
        encoder_blocks=1,
        decoder_blocks=1,
        groups=8,
        latent_channels=16,
        codebook_size=64,
        codebook_dim=8,
        normalise_codes=True,
    ),
}


class Encoding(NamedTuple):
    """What the encoder gives."""

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
    """One training pass."""

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
        """The decoder's last weights, where the adaptive weight of the adversarial loss is measured."""
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
            latents, activations = self._encode(image.masked_fill(mask, 0), [None] * len(masks))
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

        Both branches run as one doubled batch. Known latents, tokens and skips are those of
        `encode(image, mask)`; the others see the complete image.
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
        """Nearest codes of latents [B, n_z, h, w], with losses and straight-through gradient (Eq. 10, 13)."""
        return self.quantiser(latents)

    def decode(self, tokens: Tensor, skips: Skips | None = None) -> Tensor:
        """Tokens int64 [B, h, w] → float32 [B, 3, H, W] in about [-1, 1]; see `decode_codes`."""
        return self.decode_codes(self.quantiser.lookup(tokens), skips)

    def decode_codes(self, codes: Tensor, skips: Skips | None = None) -> Tensor:
        """Codes [B, n_z, h, w] → image, with the symmetrical connections when `skips` are given (Eq. 11, 12).

        With skips, known pixels equal the image that was encoded to the bit (λ_0 → ∞).
        """
        if not self.config.symmetrical_connections:
            skips = None

        def paste(image: Tensor) -> Tensor:
            return image if skips is None else torch.where(skips[0][1], image, skips[0][0].to(image.dtype))

        return paste(self.decoder(codes.to(self.dtype), lambda i, h: self._connect(i, h, skips), paste).float())

    def forward(self, image: Tensor, mask: Tensor, connect: Tensor, quantise: bool = True) -> Reconstruction:
        """One training pass of stage 1: merged encoding, quantiser, decoding.

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

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights; public methods take and give float32 whatever it is."""
        return self.decoder.conv_out.weight.dtype

    def _encode(self, image: Tensor, masks: list[Tensor] | list[None]) -> tuple[Tensor, list[Tensor]]:
        """One branch through all stages → (latents float32, the activation of each level)."""
        h, activations = self._cells(image), []
        if masks[0] is not None and h.device.type == "cpu":
            h = h.contiguous(memory_format=torch.channels_last)
        for i, mask in enumerate(masks):
            h, activation = self.encoder.stage(i, h, mask)
            if mask is not None or not self.config.relative_estimation:
                activations.append(activation)
        return h.float(), activations

    def _cells(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] → [B, 3 · patch², H / patch, W / patch] in the weights' precision."""
        image = image.to(self.dtype)
        return image if self.config.patch == 1 else F.pixel_unshuffle(image, self.config.patch)  # a copy otherwise

    def _masks(self, mask: Tensor) -> list[Tensor]:
        """m_0 ... m_T: the mask at every level, by 2 x 2 max-pooling."""
        for _ in range(self.config.patch.bit_length() - 1):
            mask = pool_mask(mask)
        masks = [mask]
        for _ in self.config.channels[1:]:
            masks.append(pool_mask(masks[-1]))
        return masks

    def _encoding(
        self, latents: Tensor, image: Tensor, mask: Tensor, activations: list[Tensor], masks: list[Tensor]
    ) -> Encoding:
        # in the skips the hole is blank, for it must not be seen; h_T is never connected
        skips = [(image.masked_fill(mask, 0).float(), mask)]
        for h, m in zip(activations[:-1], masks[:-1], strict=True):
            skips.append((h if self.config.relative_estimation else h.masked_fill(m, 0), m))
        return Encoding(latents, self.quantiser.tokens(latents), masks[-1], skips)

    def _connect(self, i: int, h: Tensor, skips: Skips | None) -> Tensor:
        """ŷ_i of Eq. 12: known positions become (ŷ'_i + λ_i h_i) / (1 + λ_i)."""
        if skips is None or i + 1 >= len(skips):
            return h
        if h.device.type == "cpu":
            h = h.contiguous(memory_format=torch.channels_last)  # in which all that follows is faster
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
        if mask is not None and (mask.dtype != torch.bool or mask.shape != (len(image), 1, H, W)):
            needed = [len(image), 1, H, W]
            raise InputError(f"mask is {mask.dtype} {list(mask.shape)}; this image needs torch.bool {needed}")
