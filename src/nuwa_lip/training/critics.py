"""The discriminator of stage 1 and its settings: VQGAN's, or one that judges by a pretrained network's features."""

from dataclasses import dataclass
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nuwa_lip.disk.fields import ANY, Bounds, check_bounds
from nuwa_lip.errors import InputError
from nuwa_lip.models.losses import PatchGAN
from nuwa_lip.models.projected import CELL, EfficientNetLite0, ProjectedDiscriminator

BOUNDS: Bounds = {
    "crop": (ANY, 2**16),
    "weight": (ANY, 1e6),
    "start": (ANY, 1e3),
    "head_start": (ANY, 1e3),
    "filters": (ANY, 2**16),
    "layers": (ANY, 16),
    "learning_rate": (0, 1e6),
}


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The discriminator of stage 1 (L_G of Eq. 13)."""

    kind: Literal["patch", "projected"] = "patch"
    """VQGAN's PatchGAN, or a projected one, which judges by the features of a fixed network and learns in a fraction of
    the time."""
    features: str = ""
    """Of a projected one: the safetensors file of EfficientNet-Lite0 in timm's names."""
    crop: int = 0
    """Side in pixels of the squares, elsewhere in each step, that are judged in place of whole pictures (0), which
    costs less; of a projected one a multiple of 16."""
    weight: float = 0.8
    """Factor on the adaptive weight; 0: none."""
    start: float = 0.3
    """Share of the steps after which it begins; too early ruins a VQGAN."""
    head_start: float = 0.0
    """Share of the steps, before `start`, in which it learns alone: a trained decoder that follows a discriminator
    which knows nothing yet unlearns what it can."""
    filters: int = 64
    """Channels of its first layer, a multiple of 8; of a projected one: of all its heads' layers."""
    layers: int = 3
    """Halvings before a PatchGAN's last two layers; more see larger patches."""
    learning_rate: float = 1.0
    """As a multiple of the schedule's."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS, "adversary.")
        if self.filters < 8 or self.filters % 8:
            raise InputError(f"adversary.filters is {self.filters}; it must be a multiple of 8")
        if self.layers < 1:
            raise InputError(f"adversary.layers is {self.layers}; it must be 1 or more")
        if self.crop < 0 or (self.kind == "projected" and self.crop % CELL):
            raise InputError(f"adversary.crop is {self.crop}; it must be 0 (whole pictures) or a multiple of {CELL}")
        if not 0 <= self.head_start <= self.start:
            raise InputError(f"adversary.head_start is {self.head_start}; it must be within 0 and start {self.start}")
        if self.weight < 0 or not 0 <= self.start <= 1:
            raise InputError(f"adversary.weight {self.weight} must be 0 or more, and start {self.start} within 0 to 1")


def make_critic(adversary: Adversary) -> nn.Module:
    """The discriminator with its first weights.

    Raises:
        InputError: the weights of EfficientNet-Lite0, which a projected one judges by, are not there.
    """
    if adversary.kind == "patch":
        return PatchGAN(adversary.filters, adversary.layers)
    try:
        features = EfficientNetLite0(load_file(adversary.features))
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise InputError(
            f"adversary.features {adversary.features!r} is not a safetensors file of EfficientNet-Lite0 in the names "
            "of timm (tf_efficientnet_lite0), which adversary.kind projected needs"
        ) from error
    return ProjectedDiscriminator(features, adversary.filters)
