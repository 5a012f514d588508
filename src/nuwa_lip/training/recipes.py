"""Recipes: complete training configurations by name, as functions whose docstrings say what to expect.

A run writes its recipe to recipe.json, which `--recipe FILE` loads back. Any field can be overridden on the
command line, nested ones with dots: `--schedule.steps 1000 --model.channels 16 32 64`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from nuwa_lip.baselines.glide.recipe import GLIDE_RECIPES, GLIDERecipe
from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.errors import InputError
from nuwa_lip.hub import SamplingDefaults
from nuwa_lip.json_files import read_object
from nuwa_lip.models import DFVQGANConfig, MPS2SConfig
from nuwa_lip.models.orders import ORDERS
from nuwa_lip.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The PatchGAN of stage 1 (L_G of Eq. 13)."""

    weight: float = 0.8
    """Factor on the adaptive weight; 0: none."""
    start: float = 0.3
    """Share of the steps after which it begins; too early ruins a VQGAN."""
    filters: int = 64
    """Channels of its first layer, a multiple of 8."""
    layers: int = 3
    """Halvings before its last two layers; more see larger patches."""
    learning_rate: float = 1.0
    """As a multiple of the schedule's."""

    def __post_init__(self) -> None:
        if self.filters < 8 or self.filters % 8:
            raise InputError(f"adversary.filters is {self.filters}; it must be a multiple of 8")
        if self.layers < 1:
            raise InputError(f"adversary.layers is {self.layers}; it must be 1 or more")
        if self.weight < 0 or not 0 <= self.start <= 1:
            raise InputError(f"adversary.weight {self.weight} must be 0 or more, and start {self.start} within 0 to 1")


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
    unquantised: float = 0.0
    """Share of the steps, the first ones, in which latents are decoded as they are; then codes start from
    latents. Helps small codebooks: what no code stands for at the start is never learned."""
    revive_after: int = 200
    """Steps without use after which a code is replaced; 0: never."""


@dataclass(frozen=True, kw_only=True)
class MPS2SRecipe:
    """Stage 2."""

    model: MPS2SConfig
    schedule: Schedule
    orders: Mapping[str, float] = field(default_factory=lambda: {"raster": 1.0})
    """How often each order of decoding is trained, in any unit."""
    parallel: float = 0.0
    """Share of the steps that train deciding several tokens at once, 2 to 32 on average, for parallel steps."""
    start_from_codes: bool = False
    """Token embeddings begin as a projection of the codebook, alike where codes are: a help where many codes meet few
    photos."""
    gradient_checkpointing: bool = False
    """Keep only what goes into the blocks, and run them again for their gradients: less memory, more time."""
    caption_dropout: float = 0.1
    """Share of the captions replaced by "", for guidance."""
    sampling: SamplingDefaults = SamplingDefaults()
    """What the finished model is sampled with when the user does not say."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.orders) - set(ORDERS))
        if unknown:
            raise InputError(f"orders names {unknown[0]!r}; there are: {', '.join(ORDERS)}")
        weights = {name: self.orders.get(name, 0.0) for name in ORDERS}  # all, so that each is a flag
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise InputError(f"orders {weights} must not be negative, and one of them must be positive")
        object.__setattr__(self, "orders", weights)
        if not 0 <= self.parallel <= 1:
            raise InputError(f"parallel is {self.parallel}; it must be a share, 0 to 1")


Recipe = TypeVar("Recipe", DFVQGANRecipe, MPS2SRecipe, GLIDERecipe)


def dfvqgan_mini() -> DFVQGANRecipe:
    """Stage 1 of the bundled model: 128 px, 16 x 16 tokens, 2.9 M parameters; 53 minutes on two shared CPU cores, bf16.

    nuwa-lip train dfvqgan mini --data 'shards/*-train-*.tar' --out runs/dfvqgan

    Expect LPIPS-squeeze (batch mean, connected photos included) to fall from 1.2 to 0.3 in the first half, and 90 % of
    the codes to be in use. There is no adversary: this short, it would only add noise.
    """
    return DFVQGANRecipe(
        model=DFVQGANConfig.preset("mini"),
        schedule=Schedule(
            steps=2100, batch_size=16, learning_rate=8e-4, ema=0.995, sheet_every=250, checkpoint_every=100
        ),
        masks=MaskRecipe(rectangles=0.6, strokes=0.1, border=0.1, everything=0.1, nothing=0.1, ratio=(0.2, 0.6)),
        connect=0.7,
        adversary=Adversary(weight=0.0, filters=32, layers=2),
        revive_after=50,
    )


def dfvqgan_vqgan_mini() -> DFVQGANRecipe:
    """The baseline VQGAN: as `dfvqgan_mini`, with relative estimation and connections off; for equal steps.

    nuwa-lip train dfvqgan vqgan-mini --data 'shards/*-train-*.tar' --out runs/vqgan
    """
    return _plain(dfvqgan_mini())


def _plain(recipe: DFVQGANRecipe) -> DFVQGANRecipe:
    model = dataclasses.replace(recipe.model, relative_estimation=False, symmetrical_connections=False)
    return dataclasses.replace(recipe, model=model)


def dfvqgan_tiny() -> DFVQGANRecipe:
    """Stage 1 for the synthetic shapes at 32 px, for tests and to try a change: a minute or two on two cores.

    nuwa-lip train dfvqgan tiny --data shapes/ --out runs/dfvqgan
    """
    return DFVQGANRecipe(
        model=DFVQGANConfig.preset("tiny"),
        # many small steps: what is to be learned is simple
        schedule=Schedule(
            steps=2000, batch_size=8, learning_rate=1e-3, ema=0.99, weight_decay=0.0, precision="fp32"
        ),  # bf16 gains nothing at this size
        masks=MaskRecipe(rectangles=0.6, everything=0.2, nothing=0.2, ratio=(0.2, 0.6)),
        augmentation=Augmentation(scale=(1.0, 1.0), flip=False, colour=0.0, stretch=False),
        pixel_loss="l2",  # shapes are small and strongly coloured: L1's median is grey
        pixel_weight=5.0,
        perceptual_weight=0.0,
        unquantised=0.4,
        adversary=Adversary(weight=0.0),
        revive_after=50,
    )


def dfvqgan_paper_f8() -> DFVQGANRecipe:
    """Stage 1 with the official settings (ImageNet, 256 px, 32 x 32 tokens, 48.5 M parameters): GPUs, days.

    accelerate launch -m nuwa_lip train dfvqgan paper-f8-8192 --data 'imagenet-*.tar' --out runs/dfvqgan
    """
    return DFVQGANRecipe(
        model=DFVQGANConfig.preset("paper-f8-8192"),
        schedule=Schedule(
            steps=500_000,
            batch_size=128,
            learning_rate=5.76e-4,
            betas=(0.5, 0.9),
            weight_decay=0.0,
            ema=0.9999,
            log_every=50,
            sheet_every=5000,
            checkpoint_every=5000,
        ),
        adversary=Adversary(start=0.1),
    )


def dfvqgan_light_f8() -> DFVQGANRecipe:
    """`dfvqgan_paper_f8` with a finest level half as wide: as good in about equal time of training, faster to use."""
    return dataclasses.replace(dfvqgan_paper_f8(), model=DFVQGANConfig.preset("light-f8-8192"))


def dfvqgan_paper_f16(codes: int) -> DFVQGANRecipe:
    """`dfvqgan_paper_f8` with 16 x 16 tokens and 1024 or 12288 codes."""
    return dataclasses.replace(dfvqgan_paper_f8(), model=DFVQGANConfig.preset(f"paper-f16-{codes}"))


def mps2s_mini() -> MPS2SRecipe:
    """Stage 2 of the bundled model: 5.9 M parameters; 50 minutes on two CPU cores, bf16, then twice more.

    nuwa-lip tokenize --model runs/dfvqgan/model --data 'shards/*-train-*.tar' -o tokens/ \\
        --variants 1 --masks.ratio 0.3 0.6
    nuwa-lip train mps2s mini --data tokens/ --out runs/mps2s

    and on other crops and holes (the card says of which photos more):

    nuwa-lip tokenize --model runs/dfvqgan/model --data 'shards/*-train-*.tar' -o more-tokens/ \\
        --variants 1 --masks.ratio 0.3 0.6 --seed 1
    nuwa-lip train mps2s mini --init-from runs/mps2s/model --data more-tokens/ --out runs/mps2s-more \\
        --schedule.steps 1650 --schedule.learning-rate 1e-3 --schedule.warmup 0.03

    and at last for parallel steps too, 21 minutes:

    nuwa-lip tokenize --model runs/dfvqgan/model --data 'shards/*-train-*.tar' -o last-tokens/ \\
        --variants 2 --masks.ratio 0.3 0.6 --seed 2
    nuwa-lip train mps2s mini --init-from runs/mps2s-more/model --data last-tokens/ --out runs/mps2s-last \\
        --parallel 0.5 --schedule.steps 1060 --schedule.learning-rate 7e-4 --schedule.warmup 0.03

    Expect the loss to fall from 6.9 nats for each defective token to 4.4, and to 4.1 in the second training; in
    the third it ends at 4.2, the mean of steps with one token and with several, which are harder.
    """
    return MPS2SRecipe(
        model=MPS2SConfig.preset("mini"),
        schedule=Schedule(
            steps=1550,
            batch_size=32,
            accumulate=2,
            learning_rate=1.4e-3,
            ema=0.995,
            sheet_every=500,
            checkpoint_every=100,
        ),
        orders={"raster": 0.5, "border": 0.3, "random": 0.2},
        start_from_codes=True,
        sampling=SamplingDefaults(order="border", blend=True),
    )


def mps2s_tiny() -> MPS2SRecipe:
    """Stage 2 for the synthetic shapes at 32 px.

    nuwa-lip train mps2s tiny --data tokens/ --out runs/mps2s
    """
    return MPS2SRecipe(
        model=MPS2SConfig.preset("tiny"),
        schedule=Schedule(steps=4000, batch_size=32, learning_rate=3e-3, ema=0.99, weight_decay=0.01, precision="fp32"),
    )


def mps2s_nuwa_mini() -> MPS2SRecipe:
    """The baseline NÜWA: as `mps2s_mini` without the pixels, on tokens of the photo with its hole zero (VQGAN's).

    nuwa-lip tokenize --model runs/vqgan/model --data 'shards/*-train-*.tar' -o tokens-vqgan/ \\
        --variants 1 --masks.ratio 0.3 0.6
    nuwa-lip train mps2s nuwa-mini --data tokens-vqgan/ --out runs/nuwa

    Measure NÜWA with `nuwa-lip evaluate images BENCH --model runs/nuwa/model --unpasted`, NÜWA-P without --unpasted.
    """
    return _without_pixels(mps2s_mini())


def _without_pixels(recipe: MPS2SRecipe) -> MPS2SRecipe:
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, perspectives=("text", "tokens")))


def mps2s_base() -> MPS2SRecipe:
    """Stage 2 at width 768 on 16 x 16 or 32 x 32 tokens of 256 px; one GPU, some 100,000 photos or more."""
    return MPS2SRecipe(
        model=MPS2SConfig.preset("base"),
        schedule=Schedule(
            steps=200_000,
            batch_size=64,
            learning_rate=5e-4,
            ema=0.9999,
            log_every=50,
            sheet_every=2500,
            checkpoint_every=2500,
        ),
        orders={"raster": 0.5, "random": 0.5},
    )


def mps2s_paper() -> MPS2SRecipe:
    """Stage 2 with the official settings: 1.49 B parameters; the paper trained on 64 A100 for two weeks."""
    return MPS2SRecipe(
        model=MPS2SConfig.preset("paper"),
        schedule=Schedule(
            steps=1_000_000,
            batch_size=512,
            learning_rate=5e-4,
            ema=0.9999,
            log_every=50,
            sheet_every=5000,
            checkpoint_every=5000,
        ),
        gradient_checkpointing=True,
        sampling=SamplingDefaults(top_k=128),
    )


DFVQGAN_RECIPES: dict[str, Callable[[], DFVQGANRecipe]] = {
    "mini": dfvqgan_mini,
    "tiny": dfvqgan_tiny,
    "paper-f8-8192": dfvqgan_paper_f8,
    "light-f8-8192": dfvqgan_light_f8,
    "paper-f16-1024": lambda: dfvqgan_paper_f16(1024),
    "paper-f16-12288": lambda: dfvqgan_paper_f16(12288),
    "vqgan-mini": dfvqgan_vqgan_mini,
    "vqgan-tiny": lambda: _plain(dfvqgan_tiny()),
}
MPS2S_RECIPES: dict[str, Callable[[], MPS2SRecipe]] = {
    "mini": mps2s_mini,
    "tiny": mps2s_tiny,
    "base": mps2s_base,
    "paper": mps2s_paper,
    "nuwa-mini": mps2s_nuwa_mini,
    "nuwa-tiny": lambda: _without_pixels(mps2s_tiny()),
}
STAGES: dict[str, tuple[type[Any], dict[str, Callable[[], Any]]]] = {
    "dfvqgan": (DFVQGANRecipe, DFVQGAN_RECIPES),
    "mps2s": (MPS2SRecipe, MPS2S_RECIPES),
    "glide": (GLIDERecipe, GLIDE_RECIPES),
}


def named(stage: str, name: str) -> Any:
    """Make the recipe of a stage by its name.

    Raises:
        InputError: there is none of this name.
    """
    recipes = STAGES[stage][1]
    if name not in recipes:
        raise InputError(f"no {stage} recipe is called {name!r}; there are: {', '.join(recipes)}")
    return recipes[name]()


def to_json(recipe: Any) -> dict[str, Any]:
    """Turn a recipe into the content of its recipe.json."""
    stage = next(name for name, (kind, _) in STAGES.items() if isinstance(recipe, kind))
    return {"stage": stage, **dataclasses.asdict(recipe)}


def from_file(stage: str, path: Path) -> Any:
    """Load the recipe in a recipe.json.

    Raises:
        InputError: there is no such file, it is damaged, or it is of the other stage.
    """
    content = read_object(path)
    found = content.pop("stage", None)
    if found != stage:
        raise InputError(f"{path} is not a recipe of {stage} (its stage is {found!r})")
    return _build(STAGES[stage][0], content, str(path))


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A dataclass from what JSON makes of it."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {values!r}, not an object with fields")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}: update nuwa-lip, or remove it")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = _build(typing.cast(type[Any], hints[name]), value, f"{where}: {name}")
        elif not _fits(value, hints[name]):
            hint = hints[name]
            wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
            raise InputError(f"{where}: {name} is {value!r}; it must be {wanted}")
        elif isinstance(value, list):
            value = tuple(value)
        built[name] = value
    try:
        return kind(**built)
    except TypeError as error:
        raise InputError(f"{where} cannot be used: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a field's type; lists stand for tuples."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is tuple:
        parts = parts[:1] * len(value) if parts[-1:] == (...,) and isinstance(value, list) else parts
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(v, parts[1]) for v in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
