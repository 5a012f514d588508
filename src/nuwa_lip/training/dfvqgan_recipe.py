"""The recipe of stage 1: holes and crops, the losses and their weights, and when codes are used."""

from dataclasses import dataclass
from typing import Literal

from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.disk.fields import Bounds, check_bounds
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGANConfig
from nuwa_lip.training.critics import Adversary
from nuwa_lip.training.schedule import Schedule

BOUNDS: Bounds = {
    "connect": (0, 1),
    "pixel_weight": (0, 1e6),
    "perceptual_weight": (0, 1e6),
    "codebook_weight": (0, 1e6),
    "unquantised": (0, 1),
    "revive_after": (0, 10**10),
}


@dataclass(frozen=True, kw_only=True)
class DFVQGANRecipe:
    """The configuration of a training of stage 1, DF-VQGAN."""

    model: DFVQGANConfig
    schedule: Schedule
    masks: MaskRecipe = MaskRecipe(rectangles=0.4, everything=0.4, nothing=0.2, ratio=(0.1, 0.4))
    """How holes are drawn; officially up to 40 % of the photo in rectangles, all of it, or nothing."""
    connect: float = 0.5
    """Share of the photos with a hole that are decoded with the symmetrical connections."""
    augmentation: Augmentation = Augmentation()
    """How crops are drawn."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared difference of pixels."""
    pixel_weight: float = 1.0
    """Weight of that loss."""
    perceptual: str = "auto"
    """Q: squeezenet, vgg16, a safetensors file of either, or auto: VGG-16 if the hub's cache has it."""
    perceptual_weight: float = 1.0
    """Weight of Q's loss (L_P of Eq. 13); 0: none."""
    codebook_weight: float = 1.0
    """Weight of the codebook's and the commitment loss together (L_V of Eq. 13)."""
    adversary: Adversary = Adversary()
    """The discriminator, and when it begins."""
    decoder_only: bool = False
    """Whether encoder and codes stay as they are, so that tokens keep their meaning and a trained stage 2 its worth."""
    trained: Literal["all", "encoder"] = "all"
    """What learns: encoder: it alone, from its own codes of complete photos (`training.distil`); the losses above are
    not used then."""
    unquantised: float = 0.0
    """Share of the steps, the first ones, in which latents are decoded as they are; then codes start from
    latents. Helps small codebooks: what no code stands for at the start is never learned."""
    revive_after: int = 200
    """Steps without use after which a code is replaced; 0: never."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        if self.trained == "encoder" and self.decoder_only:
            raise InputError("trained is encoder, and decoder_only lets the decoder alone learn: give one of them")
        if self.adversary.crop > self.model.resolution:
            raise InputError(
                f"adversary.crop {self.adversary.crop} is more than model.resolution {self.model.resolution}"
            )
