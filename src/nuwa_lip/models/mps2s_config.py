"""Sizes and switches of an MP-S2S (Eq. 15), and the presets by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nuwa_lip.disk.fields import ANY, Bounds, check_bounds, find, lists_to_tuples
from nuwa_lip.errors import InputError

LAYERS, CODES = (0, 256), (1, 2**24)
BOUNDS: Bounds = {
    **dict.fromkeys(("codebook_size", "text_vocab"), CODES),
    **dict.fromkeys(("image_size", "patch_size", "width", "text_length", "text_width"), (1, 2**16)),
    **dict.fromkeys(("grid", "heads", "text_heads"), (1, 2**10)),
    **dict.fromkeys(("text_layers", "pixel_layers", "token_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("mlp_ratio", "text_mlp_ratio"), (0, 64)),
    "dropout": (0, 1),
    "layer_scale": (-1e6, 1e6),
    "caption_prior": (ANY, 2**8),
    "neighbours": (0, 8),
    "pad_id": (0, 2**24),
}
PERSPECTIVES = ("text", "pixels", "tokens")


@dataclass(frozen=True, kw_only=True)
class MPS2SConfig:
    """Sizes and switches of an `MPS2S`; the defaults are the official sizes, `preset` gives named ones."""

    codebook_size: int = 8192
    """V, of the DF-VQGAN."""
    grid: tuple[int, int] = (32, 32)
    """Rows and columns of tokens."""
    image_size: int = 256
    """Side of the square images in pixels."""
    patch_size: int = 16
    """Side of a patch of the pixel encoder."""
    width: int = 1280
    """D, of pixel encoder, token encoder and decoder."""
    heads: int = 20
    """Attention heads in these."""
    text_layers: int = 12
    """Blocks of the text encoder."""
    pixel_layers: int = 12
    """Blocks of the pixel encoder."""
    token_layers: int = 12
    """Blocks of the token encoder."""
    decoder_layers: int = 24
    """Blocks of the decoder."""
    text_vocab: int = 49408
    """Most different word pieces."""
    text_length: int = 77
    """Most word pieces of a caption, begin and end included."""
    text_width: int = 512
    """Width of the text encoder."""
    text_heads: int = 8
    """Attention heads of the text encoder."""
    mlp_ratio: float = 4.0
    """Hidden units of a feed-forward layer as a multiple of the width."""
    text_mlp_ratio: float = 2.5
    """Hidden units of the text encoder's feed-forward layers as a multiple of its width."""
    dropout: float = 0.1
    """Share of what a layer adds that is dropped in training."""
    layer_scale: float = 0.1
    """Initial factor on what a layer adds."""
    rotary: bool = False
    """Whether attention also knows how far apart two tokens stand (rotary positions in two dimensions), which learned
    positions alone take many photos to find out."""
    pointer: bool = False
    """Whether a row of the decoder begins with the token encoder's state of the position that it is to predict: a
    short way, by which small trainings learn from the surroundings first."""
    caption_prior: int = 0
    """Regions on a side in which a caption alone tilts the decoder's output (`CaptionPrior`); 0: none."""
    caption_shift: bool = False
    """Whether every block of the decoder also adds a projection of the caption's mean state to its input: a short way
    for what holds for all of the hole (a kind, a class), beside the attention to single words."""
    neighbours: int = 0
    """How many cells around the position that it is to predict a row of the decoder is given the tokens of, known ones
    and those decided so far (`Neighbours`): a short way to what attention must search for; 0: none."""
    perspectives: tuple[str, ...] = PERSPECTIVES
    """What the decoder sees (Table 4); the others are not built."""
    pad_id: int = 0
    """Word piece that fills captions up."""
    text_encoder: dict[str, Any] | None = None
    """Description of a ready-made text encoder (`text.describe`), in place of the built-in one."""

    def __post_init__(self) -> None:
        lists_to_tuples(self)
        check_bounds(self, BOUNDS)
        for name, value in (self.text_encoder or {}).items():
            most = LAYERS[1] if name.endswith("layers") else CODES[1]
            if isinstance(value, int) and abs(value) > most:
                raise InputError(f"text_encoder: {name} is {value!r:.80}; it must be {most} at most")
        unknown = [name for name in self.perspectives if name not in PERSPECTIVES]
        if unknown or not self.perspectives:
            raise InputError(f"perspectives {self.perspectives} must be one or more of {', '.join(PERSPECTIVES)}")
        for width, heads in (("width", "heads"), ("text_width", "text_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise InputError(f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}")
        if self.rotary and self.width // self.heads % 8:
            raise InputError(f"rotary needs heads as wide as a multiple of 8, not {self.width // self.heads}")
        if self.caption_prior < 0 or any(side < self.caption_prior for side in self.grid):
            raise InputError(f"caption_prior is {self.caption_prior}; it must be 0 to {min(self.grid)}, as the grid is")
        if self.image_size % self.patch_size:
            raise InputError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @classmethod
    def preset(cls, name: str) -> MPS2SConfig:
        """Return a named configuration.

        Raises:
            InputError: `PRESETS` has no such name.
        """
        return find(PRESETS, name, "MP-S2S preset")


PRESETS = {
    # the official widths and depths: 1.49 billion parameters
    "paper": MPS2SConfig(),
    "base": MPS2SConfig(
        width=768, heads=12, text_layers=6, pixel_layers=6, token_layers=6, decoder_layers=12, layer_scale=1.0
    ),
    # the bundled model: 128 px, 16 x 16 tokens, trainable on a CPU
    "mini": MPS2SConfig(
        codebook_size=1024,
        grid=(16, 16),
        image_size=128,
        width=192,
        heads=3,
        text_layers=2,
        pixel_layers=2,
        token_layers=3,
        decoder_layers=5,
        text_vocab=4096,
        text_length=32,
        text_width=128,
        text_heads=2,
        mlp_ratio=2.0,
        text_mlp_ratio=2.0,
        dropout=0.0,
        layer_scale=1.0,
        rotary=True,
        pointer=True,
    ),
    # for tests: 32 px, 8 x 8 tokens
    "tiny": MPS2SConfig(
        codebook_size=64,
        grid=(8, 8),
        image_size=32,
        patch_size=8,
        width=32,
        heads=2,
        text_layers=1,
        pixel_layers=1,
        token_layers=1,
        decoder_layers=2,
        text_vocab=512,
        text_length=32,
        text_width=32,
        text_heads=2,
        mlp_ratio=2.0,
        text_mlp_ratio=2.0,
        dropout=0.0,
        layer_scale=1.0,
    ),
}
