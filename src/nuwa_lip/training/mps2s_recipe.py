"""The recipe of stage 2: what of a photo is hidden, in which order its tokens are predicted, and which parts learn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nuwa_lip.disk.fields import ANY, Bounds, check_bounds
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2SConfig
from nuwa_lip.models.orders import ORDERS
from nuwa_lip.sampling import Sampling
from nuwa_lip.training.schedule import Schedule

BOUNDS: Bounds = {
    "parallel": (ANY, 1e3),
    "caption_dropout": (0, 1),
    "everything": (ANY, 1e3),
    "caption_only": (ANY, 1e3),
    "refine": (ANY, 1e3),
    "first_tokens": (ANY, 2**20),
    "contrast": (0, 1e3),
}


@dataclass(frozen=True, kw_only=True)
class MPS2SRecipe:
    """The configuration of a training of stage 2, MP-S2S."""

    model: MPS2SConfig
    schedule: Schedule
    orders: Mapping[str, float] = field(default_factory=lambda: {"raster": 1.0})
    """How often each order of decoding is trained, in any unit."""
    parallel: float = 0.0
    """Share of the steps that train deciding several tokens at once, 2 to 32 on average, for parallel steps."""
    start_from_codes: bool = False
    """Whether token embeddings begin as a projection of the codebook, alike where codes are: a help where many codes
    meet few photos."""
    gradient_checkpointing: bool = False
    """Whether only the blocks' inputs are kept, and they run again for their gradients: less memory, more time."""
    caption_dropout: float = 0.1
    """Share of the captions replaced by "", for guidance."""
    text_encoder: str | None = None
    """Folder of a BERT (config.json, model.safetensors, tokenizer.json) that reads the captions, in place of a text
    encoder trained from scratch. It stays as it is: what it says of a caption is worked out once."""
    everything: float = 0.0
    """Share of the samples of which all is hidden and predicted."""
    caption_only: float = 0.0
    """Share of the samples of which all is hidden, but only the tokens in the hole are predicted: nothing but the
    caption tells what they are."""
    refine: float = 0.0
    """Share of the other samples that show in the hole what a first pass would have painted, a reduced and enlarged
    copy of the photo: the second pass of large holes learns from them."""
    first_tokens: int | None = None
    """Most tokens that are predicted of a sample in a random order, the first ones: what a caption says counts most
    there, and a sample costs less; but what is decided later is then learned from the other orders alone. None: all."""
    contrast: float = 0.0
    """Weight of telling a photo's caption from another one of the batch by its tokens (`training.contrast`), beside
    Eq. 15; 5 and 8 have been tried. A step then takes more than half as long again. 0: none."""
    trained: Literal["all", "decoder", "caption", "prior", "neighbours"] = "all"
    """decoder: the encoders of pixels and tokens and the token embedding stay as they are; caption: the decoder's
    blocks, too, so that only what reads the caption learns; prior: the same, to tell what stands in a region of the
    whole photo from the caption alone, which takes minutes; neighbours: what of the tokens around a position tells the
    token there, from photos alone, which takes minutes, too."""
    sampling: Sampling = Sampling()
    """What the finished model is sampled with when the user does not say."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        unknown = sorted(set(self.orders) - set(ORDERS))
        if unknown:
            raise InputError(f"orders names {unknown[0]!r}; there are: {', '.join(ORDERS)}")
        weights = {name: self.orders.get(name, 0.0) for name in ORDERS}  # all, so that each is a flag
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise InputError(f"orders {weights} must not be negative, and one of them must be positive")
        object.__setattr__(self, "orders", weights)
        for name in ("parallel", "everything", "caption_only", "refine"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a share, 0 to 1")
        if self.first_tokens is not None and self.first_tokens < 1:
            raise InputError(f"first_tokens is {self.first_tokens}; it must be 1 or more")
        if self.everything + self.caption_only > 1:
            raise InputError(f"everything {self.everything} and caption_only {self.caption_only} exceed 1 together")
