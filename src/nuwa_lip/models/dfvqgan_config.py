"""Sizes and switches of a DF-VQGAN (Eq. 7-12), and the presets by name."""

from __future__ import annotations

from dataclasses import dataclass

from nuwa_lip.disk.fields import ANY, Bounds, check_bounds, find, lists_to_tuples
from nuwa_lip.errors import InputError

BOUNDS: Bounds = {
    **dict.fromkeys(("resolution", "channels", "refinement", "groups"), (ANY, 2**16)),
    **dict.fromkeys(("latent_channels", "codebook_dim"), (ANY, 2**16)),
    **dict.fromkeys(("encoder_blocks", "decoder_blocks"), (ANY, 64)),
    **dict.fromkeys(("encoder_level_blocks", "decoder_level_blocks"), (1, 64)),
    "decoder_channels": (1, 2**16),
    "patch": (ANY, 2**10),
    "attention_levels": (ANY, 32),
    "codebook_size": (ANY, 2**24),
    "commitment": (0, 1e6),
    "connection_weights": (ANY, float("inf")),
}
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
    encoder_level_blocks: tuple[int, ...] | None = None
    """Residual blocks of each level in the encoder, finest first, where they differ; None: `encoder_blocks` each."""
    decoder_level_blocks: tuple[int, ...] | None = None
    """The same of the decoder."""
    decoder_channels: tuple[int, ...] | None = None
    """Channels of each level of a decoder that is no counterpart of its encoder (MAGVIT-v2), finest first; then nothing
    can be connected. None: `channels`."""
    mirrored_decoder: bool = False
    """On (official): the decoder is the encoder's mirror image, so that a level narrows in its last block and
    is connected where it begins. Off (taming-transformers, diffusers): it narrows in its first block and is
    connected where it ends. Either way the connected features have as many channels as the encoder's."""
    attention_levels: tuple[int, ...] = ()
    """Levels whose residual blocks each have attention beside them."""
    mid_attention: bool = True
    """Whether there is attention between the two residual blocks of the middle."""
    groups: int = 32
    """Groups of the group norms; divides every number of channels."""
    latent_channels: int = 256
    """Channels between the network and the 1 x 1 convolutions around the codebook."""
    codebook_size: int = 8192
    """Number of codes."""
    codebook_dim: int = 256
    """n_z, width of a code."""
    normalise_codes: bool = False
    """Whether latents and codes are compared on the unit sphere (with a small `codebook_dim`: LlamaGen's recipe)."""
    input_range: tuple[float, float] = (-1.0, 1.0)
    """Values of pixels within the encoder, (-1, 1) or (0, 1), as its weights were trained; images are in [-1, 1] either
    way. The hole is 0, as the padding at a picture's border is: with (0, 1) that is black, not grey."""
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
        lists_to_tuples(self)
        check_bounds(self, BOUNDS)
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
        if self.input_range not in ((-1, 1), (0, 1)):
            raise InputError(f"input_range is {self.input_range}; it must be (-1, 1) or (0, 1)")
        if self.partial_convolution and self.relative_estimation:
            raise InputError("partial_convolution stands in place of relative_estimation: switch that off")
        self._check_levels()
        self._check_connection_weights()

    def _check_levels(self) -> None:
        for name in ("encoder_level_blocks", "decoder_level_blocks", "decoder_channels"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.channels):
                raise InputError(f"{name} has {len(value)} values; {len(self.channels)} levels need as many")
        if self.decoder_channels is None:
            return
        odd = [c for c in self.decoder_channels if c % self.groups]
        if odd or self.decoder_channels[-1] != self.channels[-1]:
            raise InputError(
                f"decoder_channels {self.decoder_channels} must be multiples of {self.groups} groups and end with "
                f"{self.channels[-1]}, as channels do"
            )
        if self.symmetrical_connections or self.mirrored_decoder:
            raise InputError("decoder_channels need symmetrical_connections and mirrored_decoder off")

    def _check_connection_weights(self) -> None:
        weights, levels = self.connection_weights, len(self.channels)
        if weights is None:
            return
        if len(weights) != levels - 1:
            raise InputError(f"connection_weights has {len(weights)} values; {levels} levels need {levels - 1}")
        negative = [weight for weight in weights if not weight >= 0]
        if negative:
            raise InputError(f"connection_weights {negative[0]} is not a weight: 0 or more, or inf")

    def blocks(self, net: str) -> tuple[int, ...]:
        """Return the residual blocks of each level of the "encoder" or the "decoder", finest first."""
        each = getattr(self, f"{net}_level_blocks")
        return each or (getattr(self, f"{net}_blocks"),) * len(self.channels)

    @property
    def factor(self) -> int:
        """Return the pixels on a token's side."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def blank(self) -> float:
        """Return the value of an image in [-1, 1] that is 0 within the encoder."""
        return -1.0 if self.input_range == (0, 1) else 0.0

    @property
    def grid(self) -> int:
        """Return the tokens on a side of the square token grid at `resolution`."""
        return self.resolution // self.factor

    @classmethod
    def preset(cls, name: str) -> DFVQGANConfig:
        """Return a named configuration.

        Raises:
            InputError: `PRESETS` has no such name.
        """
        return find(PRESETS, name, "DF-VQGAN preset")


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
