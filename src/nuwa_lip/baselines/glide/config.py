"""Sizes of a GLIDE and how it is sampled; no library beside our own is needed to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nuwa_lip.disk.fields import ANY, Bounds, check_bounds, find, lists_to_tuples
from nuwa_lip.errors import InputError

BOUNDS: Bounds = {
    **dict.fromkeys(("resolution", "base_resolution", "base_channels", "finer_channels"), (ANY, 2**16)),
    **dict.fromkeys(("head_width", "groups", "text_length", "text_width", "text_heads"), (1, 2**16)),
    **dict.fromkeys(("base_attention", "finer_attention"), (ANY, 32)),
    **dict.fromkeys(("base_blocks", "finer_blocks"), (1, 64)),
    "text_vocab": (1, 2**24),
    "text_layers": (0, 256),
    "pad_id": (0, 2**24),
    "dropout": (0, 1),
    "train_steps": (ANY, 10**6),
}


@dataclass(frozen=True, kw_only=True)
class GLIDEConfig:
    """Sizes of a `GLIDE`; the defaults are those of the published model (Nichol et al. 2021), `preset` has others."""

    resolution: int = 256
    """Side of the finished square in pixels."""
    base_resolution: int = 64
    """Side of the square that the base network paints; a divisor of `resolution`."""
    base_channels: tuple[int, ...] = (192, 384, 576, 768)
    """Channels of the base network's levels, finest first; each level but the last ends with a halving."""
    base_attention: tuple[int, ...] = (1, 2, 3)
    """Its levels that attend to themselves and to the caption."""
    base_blocks: int = 3
    """Its residual blocks a level."""
    finer_channels: tuple[int, ...] = (192, 192, 384, 384, 768, 768)
    """Channels of the super-resolution network's levels."""
    finer_attention: tuple[int, ...] = (3, 4, 5)
    """Its levels with attention."""
    finer_blocks: int = 2
    """Its residual blocks a level."""
    head_width: int = 64
    """Channels of an attention head in both networks."""
    groups: int = 32
    """Groups of their group norms; divides every number of channels."""
    text_vocab: int = 50257
    """Most different word pieces."""
    text_length: int = 128
    """Most word pieces of a caption, begin and end included."""
    text_width: int = 512
    """Width of the text encoder, and of what the networks attend to."""
    text_layers: int = 16
    """Blocks of the text encoder."""
    text_heads: int = 8
    """Its attention heads."""
    pad_id: int = 0
    """Word piece that fills captions up."""
    dropout: float = 0.1
    """Share of the activations that is dropped in training."""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the networks predict: the noise (published), or v = √ᾱ ε - √(1-ᾱ) x_0, which is learned faster."""
    train_steps: int = 1000
    """Steps of noise in training."""

    def __post_init__(self) -> None:
        lists_to_tuples(self)
        check_bounds(self, BOUNDS)
        if self.base_resolution < 1 or self.resolution % self.base_resolution or self.factor < 2:
            raise InputError(
                f"base_resolution {self.base_resolution} must divide resolution {self.resolution}, at least by two"
            )
        for part, side in (("base", self.base_resolution), ("finer", self.resolution)):
            self._check_network(part, side)
        if self.text_width % self.text_heads:
            raise InputError(f"text_width {self.text_width} is not a multiple of text_heads {self.text_heads}")
        if self.prediction not in ("epsilon", "v"):
            raise InputError(f"prediction is {self.prediction!r}; it must be 'epsilon' or 'v'")
        if self.train_steps < 2:
            raise InputError(f"train_steps is {self.train_steps}; it must be 2 or more")

    def _check_network(self, part: str, side: int) -> None:
        channels: tuple[int, ...] = getattr(self, f"{part}_channels")
        attention: tuple[int, ...] = getattr(self, f"{part}_attention")
        if len(channels) < 2:
            raise InputError(f"{part}_channels {channels} are too few: two levels at least")
        odd = [c for c in channels if c < 1 or c % self.groups]
        if odd:
            raise InputError(f"{part}_channels {odd[0]} cannot be divided into {self.groups} groups")
        beyond = [i for i in attention if not 0 <= i < len(channels)]
        if beyond:
            raise InputError(f"{part}_attention {beyond[0]} does not exist: levels are 0 to {len(channels) - 1}")
        if side % 2 ** (len(channels) - 1):
            raise InputError(f"{side} pixels cannot be halved for {len(channels)} levels: {part}_channels has too many")

    @property
    def factor(self) -> int:
        """Pixels of the finished square on a side of a pixel of the base network's."""
        return self.resolution // self.base_resolution

    @classmethod
    def preset(cls, name: str) -> GLIDEConfig:
        """Give a named configuration; `PRESETS` lists them.

        Raises:
            InputError: there is none of this name.
        """
        return find(PRESETS, name, "GLIDE preset")


PRESETS = {
    "published": GLIDEConfig(),
    # 64 to 128 px, about as large as the bundled model's MP-S2S
    "mini": GLIDEConfig(
        resolution=128,
        base_resolution=64,
        base_channels=(32, 64, 96),
        base_attention=(2,),
        base_blocks=2,
        finer_channels=(16, 32, 64, 64),
        finer_attention=(3,),
        finer_blocks=1,
        head_width=32,
        groups=16,
        text_vocab=4096,
        text_length=32,
        text_width=128,
        text_layers=2,
        text_heads=2,
        dropout=0.0,
        prediction="v",
    ),
    # for tests: 16 to 32 px
    "tiny": GLIDEConfig(
        resolution=32,
        base_resolution=16,
        base_channels=(16, 32),
        base_attention=(1,),
        base_blocks=1,
        finer_channels=(16, 16),
        finer_attention=(),
        finer_blocks=1,
        head_width=16,
        groups=8,
        text_vocab=300,
        text_length=32,
        text_width=16,
        text_layers=1,
        text_heads=1,
        dropout=0.0,
        prediction="v",
    ),
}


@dataclass(frozen=True, kw_only=True)
class GLIDESampling:
    """Defaults of a GLIDE's sampling."""

    guidance_scale: float = 3.0
    """s of classifier-free guidance, in the base network; 1: none."""
    steps: int = 50
    """Steps of the base network."""
    finer_steps: int = 20
    """Steps of the super-resolution network."""
    eta: float = 1.0
    """Fresh noise in each step of the base network: 1 as DDPM adds it, 0 none (DDIM)."""

    def __post_init__(self) -> None:
        for name in ("steps", "finer_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise InputError(f"guidance_scale is {self.guidance_scale}; it must be 0 or more")
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta is {self.eta}; it must be within 0 to 1")
