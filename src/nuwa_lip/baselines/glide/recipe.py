"""Complete training configurations of a GLIDE, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from nuwa_lip.baselines.glide.config import GLIDEConfig, GLIDESampling
from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.errors import InputError
from nuwa_lip.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class GLIDERecipe:
    """The training of both networks and the text encoder, in one run."""

    model: GLIDEConfig
    """Sizes of the networks."""
    schedule: Schedule
    """Steps, batch size, learning rate and the like."""
    masks: MaskRecipe = MaskRecipe(rectangles=0.6, strokes=0.1, border=0.1, everything=0.2, ratio=(0.2, 0.6))
    """How holes are drawn; there must be one, because nothing else is learned."""
    augmentation: Augmentation = Augmentation()
    """How crops are drawn."""
    caption_dropout: float = 0.2
    """Share of the captions replaced by "", for guidance."""
    finer: float = 0.5
    """Share of each batch that the super-resolution network learns from, one photo at least: it costs most."""
    sampling: GLIDESampling = GLIDESampling()
    """Defaults of the finished model's sampling."""

    def __post_init__(self) -> None:
        if self.masks.nothing > 0:
            raise InputError(f"masks.nothing is {self.masks.nothing}; without a hole nothing is learned: make it 0")
        if not 0 <= self.caption_dropout <= 1:
            raise InputError(f"caption_dropout is {self.caption_dropout}; it must be within 0 to 1")
        if not 0 < self.finer <= 1:
            raise InputError(f"finer is {self.finer}; it must be above 0, and 1 at most")


def glide_mini() -> GLIDERecipe:
    """Train a GLIDE of 6.2 M parameters, 64 to 128 px, to compare the bundled model with; two CPU cores, bf16.

    nuwa-lip train glide mini --data 'shards/*-train-*.tar' --out runs/glide --max-minutes 103

    A step takes about 4 seconds of one core: 2,800 are about the 103 minutes that both stages of the bundled model
    took together. Expect the losses (of v, over the hole) at 0.5 and 0.4 after ten steps, and slowly less from there.
    """
    return GLIDERecipe(
        model=GLIDEConfig.preset("mini"),
        schedule=Schedule(
            steps=2800, batch_size=16, learning_rate=6e-4, ema=0.995, sheet_every=500, checkpoint_every=100
        ),
    )


def glide_tiny() -> GLIDERecipe:
    """Train on the synthetic shapes at 32 px, for tests and to try a change.

    nuwa-lip train glide tiny --data shapes/ --out runs/glide
    """
    return GLIDERecipe(
        model=GLIDEConfig.preset("tiny"),
        schedule=Schedule(steps=2000, batch_size=16, learning_rate=2e-3, ema=0.99, precision="fp32"),
        augmentation=Augmentation(scale=(1.0, 1.0), flip=False, colour=0.0, stretch=False),
        sampling=GLIDESampling(steps=20, finer_steps=8),
    )


def glide_published() -> GLIDERecipe:
    """Train the published sizes (64 to 256 px, about 0.9 billion parameters): GPUs, and millions of captioned photos.

    accelerate launch -m nuwa_lip train glide published --data 'photos-*.tar' --out runs/glide --cache none
    """
    return GLIDERecipe(
        model=GLIDEConfig.preset("published"),
        schedule=Schedule(
            steps=2_500_000,
            batch_size=2048,
            learning_rate=1e-4,
            betas=(0.9, 0.999),
            ema=0.9999,
            log_every=50,
            sheet_every=5000,
            checkpoint_every=5000,
        ),
        sampling=GLIDESampling(guidance_scale=5.0, steps=100, finer_steps=27),
    )


GLIDE_RECIPES: dict[str, Callable[[], GLIDERecipe]] = {
    "mini": glide_mini,
    "tiny": glide_tiny,
    "published": glide_published,
}
