"""Recipes: complete training configurations by name, as functions whose docstrings say what to expect.

A run writes its recipe to recipe.json, which `--recipe FILE` loads back. Any field can be overridden on the
command line, nested ones with dots: `--schedule.steps 1000 --model.channels 16 32 64`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.disk import from_json, read_object
from nuwa_lip.disk.fields import find
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGANConfig, MPS2SConfig
from nuwa_lip.sampling import Sampling
from nuwa_lip.training.critics import Adversary
from nuwa_lip.training.dfvqgan_recipe import DFVQGANRecipe
from nuwa_lip.training.mps2s_recipe import MPS2SRecipe
from nuwa_lip.training.schedule import Schedule

DRAWN_HOLES = MaskRecipe(
    rectangles=0.25, block=0.3, strokes=0.15, border=0.05, everything=0.15, nothing=0.1, ratio=(0.01, 0.8)
)
"""Holes as people draw them: scratches and spots, one block, up to everything."""


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


def dfvqgan_mini_sharp() -> DFVQGANRecipe:
    """A sharper decoder for the tokens of a trained `dfvqgan_mini`, against a projected discriminator.

    nuwa-lip train dfvqgan mini-sharp --init-from nuwa-lip-mini --data 'shards/*-train-*.tar' --out runs/sharp \\
        --adversary.features efficientnet_lite0_fp16.safetensors

    One thread of an old CPU (AVX2): 0.45 s a photo. After 250 steps on the bundled model's tokens the grid is gone and
    edges are clean, texture is only beginning; LPIPS-squeeze in the hole of oracle inpainting is .50 instead of .41.
    """
    mini = dfvqgan_mini()
    return dataclasses.replace(
        mini,
        model=dataclasses.replace(mini.model, refinement=16),
        schedule=dataclasses.replace(
            mini.schedule, steps=1500, batch_size=8, learning_rate=3e-4, betas=(0.5, 0.9), weight_decay=0.0, ema=0.99
        ),
        masks=DRAWN_HOLES,
        adversary=Adversary(kind="projected", weight=2.0, start=0.05, head_start=0.05, crop=96, learning_rate=3.0),
        decoder_only=True,
    )


def dfvqgan_distil() -> DFVQGANRecipe:
    """A tokenizer of others learns to read photos with holes, by its own codes of complete ones; its sizes stay.

    nuwa-lip convert vq_ds16_c2i.pt -o vq16
    nuwa-lip train dfvqgan distil --init-from vq16 --data 'shards/*-train-*.tar' --out runs/distil

    One to two hours of one GPU (planned, not run). The log's `agreement` is the share of known codes that are right.
    """
    return DFVQGANRecipe(
        model=DFVQGANConfig(),
        schedule=Schedule(steps=4000, batch_size=8, learning_rate=3e-5, weight_decay=0.0, ema=0.999),
        masks=DRAWN_HOLES,
        connect=0.0,
        perceptual_weight=0.0,
        adversary=Adversary(weight=0.0),
        trained="encoder",
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
        sampling=Sampling(order="border", blend=True),
    )


def mps2s_prior() -> MPS2SRecipe:
    """What captions alone say, for the mini's decoder: a ready-made text encoder, and which codes go with its words.

    nuwa-lip data text-encoder all-MiniLM-L6-v2/ --data 'shards/*-train-*.tar' -o minilm/
    nuwa-lip train mps2s prior --init-from nuwa-lip-mini --text-encoder minilm/ --data tokens/* --out runs/prior

    A few minutes of one CPU core, for 2000 steps on 21,000 photos. Expect the caption alone to be ahead of nine others
    in 40 to 50 % of photos of flowers and clothes of which all is hidden, and colours to be followed at once with
    guidance 3; but where tokens are decided already it counts them twice.
    """
    return MPS2SRecipe(
        model=dataclasses.replace(MPS2SConfig.preset("mini"), caption_prior=4, caption_shift=True),
        schedule=Schedule(
            steps=2000,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=0.02,
            ema=0.98,
            log_every=50,
            sheet_every=2000,
            checkpoint_every=500,
        ),
        orders={"border": 1.0},
        trained="prior",
        sampling=Sampling(guidance_scale=3.0, order="border", num_inference_steps=32, blend=True),
    )


def mps2s_neighbours() -> MPS2SRecipe:
    """What the tokens around a position tell of the one there, for the mini's decoder, which `captions` learns to use.

    nuwa-lip train mps2s neighbours --init-from nuwa-lip-mini --data tokens/* --out runs/neighbours

    Nine minutes of a CPU core with AMX; 3,600 steps give 5.3 to 5.5 bits a token where all neighbours are known.
    """
    prior = dataclasses.replace(mps2s_prior(), trained="neighbours")
    schedule = dataclasses.replace(prior.schedule, steps=9000, learning_rate=3e-3, ema=0.995, sheet_every=9000)
    return dataclasses.replace(prior, schedule=schedule, model=dataclasses.replace(prior.model, neighbours=2))


def mps2s_captions() -> MPS2SRecipe:
    """The decoder of the mini with captions that count: from `mps2s_prior`, the photo's encoders frozen.

    nuwa-lip tokenize --model nuwa-lip-mini --data 'shards/*-train-*.tar' -o tokens/ --short-captions --variants 1 \\
        --masks.rectangles 0.1 --masks.block 0.8 --masks.border 0.1 --masks.strokes 0 --masks.everything 0 \\
        --masks.ratio 0.3 0.95
    nuwa-lip train mps2s captions --init-from runs/prior/model --data tokens/* --out runs/captions

    0.1 to 0.2 s of one CPU core a photo and step. With `--trained caption`, 120 steps of 32: on flowers and clothes the
    true caption is .04 to .07 bits a token ahead of others, and first of ten in 42 % (results/ablations.md).
    """
    return dataclasses.replace(
        mps2s_prior(),
        schedule=Schedule(
            steps=600,
            batch_size=16,
            accumulate=2,
            learning_rate=7e-4,
            warmup=0.02,
            ema=0.98,
            sheet_every=150,
            checkpoint_every=25,
        ),
        orders={"border": 0.3, "random": 0.7},
        parallel=0.5,
        everything=0.25,
        caption_only=0.25,
        first_tokens=48,
        trained="decoder",
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
        sampling=Sampling(top_k=128),
    )


DFVQGAN_RECIPES: dict[str, Callable[[], DFVQGANRecipe]] = {
    "mini": dfvqgan_mini,
    "mini-sharp": dfvqgan_mini_sharp,
    "tiny": dfvqgan_tiny,
    "paper-f8-8192": dfvqgan_paper_f8,
    "light-f8-8192": dfvqgan_light_f8,
    "paper-f16-1024": lambda: dfvqgan_paper_f16(1024),
    "paper-f16-12288": lambda: dfvqgan_paper_f16(12288),
    "distil": dfvqgan_distil,
    "vqgan-mini": dfvqgan_vqgan_mini,
    "vqgan-tiny": lambda: _plain(dfvqgan_tiny()),
}
MPS2S_RECIPES: dict[str, Callable[[], MPS2SRecipe]] = {
    "mini": mps2s_mini,
    "prior": mps2s_prior,
    "neighbours": mps2s_neighbours,
    "captions": mps2s_captions,
    "tiny": mps2s_tiny,
    "base": mps2s_base,
    "paper": mps2s_paper,
    "nuwa-mini": mps2s_nuwa_mini,
    "nuwa-tiny": lambda: _without_pixels(mps2s_tiny()),
}
STAGES: dict[str, tuple[type[Any], dict[str, Callable[[], Any]]]] = {
    "dfvqgan": (DFVQGANRecipe, DFVQGAN_RECIPES),
    "mps2s": (MPS2SRecipe, MPS2S_RECIPES),
}
"""Stage → the dataclass of its recipes, and these by name. A training outside this package adds its own (GLIDE)."""


def named(stage: str, name: str) -> Any:
    """Make the recipe of a stage by its name.

    Raises:
        InputError: there is none of this name.
    """
    return find(STAGES[stage][1], name, f"{stage} recipe")()


def lengthened(recipe: Any, steps: int) -> Any:
    """Give a recipe more steps; what a share of the steps says stays at the step where it was."""
    share = recipe.schedule.steps / steps
    schedule = dataclasses.replace(recipe.schedule, steps=steps, warmup=recipe.schedule.warmup * share)
    changes: dict[str, Any] = {"schedule": schedule}
    if isinstance(recipe, DFVQGANRecipe):
        adversary = recipe.adversary
        starts = {"start": adversary.start * share, "head_start": adversary.head_start * share}
        changes |= {"adversary": dataclasses.replace(adversary, **starts), "unquantised": recipe.unquantised * share}
    return dataclasses.replace(recipe, **changes)


def to_json(recipe: Any) -> dict[str, Any]:
    """Turn a recipe into the content of its recipe.json."""
    stage = next(name for name, (kind, _) in STAGES.items() if isinstance(recipe, kind))
    return {"stage": stage, **dataclasses.asdict(recipe)}


def from_file(stage: str, path: Path) -> Any:
    """Load the recipe in a recipe.json.

    Raises:
        InputError: there is no such file, it is damaged, or it is of another stage.
    """
    content = read_object(path)
    found = content.pop("stage", None)
    if found != stage:
        raise InputError(f"{path} is not a recipe of {stage} (its stage is {found!r})")
    return from_json(STAGES[stage][0], content, str(path))
