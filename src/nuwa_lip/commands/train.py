"""`nuwa-lip train dfvqgan`, `mps2s` and `glide`: a recipe, overrides, and where to read and write."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nuwa_lip.baselines.glide.recipe import GLIDE_RECIPES, GLIDERecipe
from nuwa_lip.cli import help
from nuwa_lip.commands.options import Out, Paths
from nuwa_lip.disk import parse_json, read_object
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.fast.allocator import keep_freed_memory
from nuwa_lip.hub import load_model
from nuwa_lip.training import recipes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from nuwa_lip.data.photos import Photos
    from nuwa_lip.training.stage import Stage

LOST = re.compile(r"gloo|nccl|connection|timed out|timeout|process group", re.IGNORECASE)  # of a process that is gone
FEW = 50
"""Steps below which a budget is too small to learn much."""
recipes.STAGES["glide"] = (GLIDERecipe, GLIDE_RECIPES)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where a run reads and writes, and how it is started."""

    data: Paths
    """Stage 1 and GLIDE: shards (files, folders, patterns like 'photos-*.tar'). Later: token caches, one or more."""
    weights: tuple[float, ...] = ()
    """How often each of --data comes (--data 'a-*.tar' 'b-*.tar' --weights 3 1); else every sample equally often."""
    out: Out
    """Run folder."""
    validation: Paths = ()
    """Shards or token caches that are not learned from: metrics.jsonl has their loss with every sheet."""
    recipe: Path | None = None
    """A recipe.json, in place of a name."""
    resume: bool = False
    """Go on from the last checkpoint in the run folder, if there is one; more --schedule.steps lengthen the run."""
    overwrite: bool = False
    """Replace the run in the run folder."""
    init_from: str | None = None
    """Start from the weights of this model (fine-tuning); its sizes take the place of the recipe's."""
    skip_damaged: bool = False
    """If the last checkpoint is damaged, go on from the newest that is whole; several processes always do."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: each holds the whole model, or (MP-S2S only) a part of its weights and moments."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """If a loss is NaN or infinite: stop, or go back to the last checkpoint and leave out the batches since then."""
    wandb: str | None = None
    """Project of Weights & Biases that gets all figures, too."""
    patience: float = 30
    """Minutes after which a process that no longer answers ends the training of all."""
    max_minutes: float | None = None
    """Fit the number of steps to this time, measured on the first ones."""
    cache: Literal["ram", "device", "none"] = "ram"
    """Hold all photos decoded in memory, on the card, or read them as they are needed."""
    workers: int = 2
    """With shards: threads or processes that decode photos."""
    max_file_mb: int | None = None
    """Largest size of an exported weight file, in MiB."""


def dfvqgan(argv: list[str]) -> None:
    """Stage 1: train DF-VQGAN on photos.

    Example: nuwa-lip train dfvqgan mini --data shards/ --out runs/dfvqgan --schedule.steps 1000
    """
    options, recipe = parse("dfvqgan", argv)
    from nuwa_lip.training.dfvqgan import DFVQGANStage
    from nuwa_lip.training.distil import DistilStage

    kind = DistilStage if recipe.trained == "encoder" else DFVQGANStage
    weights = None
    if options.init_from:
        weights = load_model(options.init_from, need_mps2s=False).dfvqgan
        # codes that are learned already are kept; a decoder may grow
        wanted, own = recipe.model, weights.config
        model = dataclasses.replace(
            own,
            refinement=own.refinement or wanted.refinement,
            decoder_level_blocks=wanted.decoder_level_blocks or own.decoder_level_blocks,
        )
        recipe = dataclasses.replace(recipe, model=model, unquantised=0.0)

    def prepare(accelerator: Accelerator) -> Callable[[recipes.Schedule], Stage]:
        photos = _photos(options, recipe.model.resolution, accelerator)
        return lambda schedule: kind(
            dataclasses.replace(recipe, schedule=schedule), photos, accelerator, weights, _bytes(options)
        )

    def held(accelerator: Accelerator) -> Photos:
        others = dataclasses.replace(options, data=options.validation, weights=())
        return _photos(others, recipe.model.resolution, accelerator)

    adversary = recipe.adversary
    later = adversary.start - adversary.head_start if adversary.weight > 0 else None
    _run(options, recipe, prepare, later, held)


def mps2s(argv: list[str]) -> None:
    """Stage 2: train MP-S2S on a token cache; the result is a complete model folder.

    Example: nuwa-lip train mps2s mini --data tokens/ --out runs/mps2s --schedule.steps 1000
    """
    options, recipe = parse("mps2s", argv)
    from nuwa_lip.training import neighbours, prior
    from nuwa_lip.training.mps2s import MPS2SStage
    from nuwa_lip.training.ready_made_text import with_bert
    from nuwa_lip.training.tokens import TokenCache

    weights = load_model(options.init_from) if options.init_from else None
    if weights is not None and weights.mps2s is not None:
        switches = {name: getattr(recipe.model, name) for name in ("caption_prior", "caption_shift")}
        switches["neighbours"] = neighbours.radius(recipe.model.neighbours, weights.mps2s.config.neighbours)
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(weights.mps2s.config, **switches))
    if recipe.text_encoder is not None:
        recipe = dataclasses.replace(recipe, model=with_bert(recipe.model, Path(recipe.text_encoder)))
    stages = {"prior": prior.PriorStage, "neighbours": neighbours.NeighboursStage}

    def opened(folders: tuple[str, ...], weights: tuple[float, ...] = ()) -> TokenCache:
        return TokenCache.join([TokenCache.open(Path(folder), recipe.model) for folder in folders], weights)

    sharded = options.strategy == "fsdp"
    if sharded and options.validation:
        raise InputError("--validation is not for --strategy fsdp, whose average is in parts: leave it out")
    if recipe.trained in stages and (sharded or options.validation):
        raise InputError(f"--validation is not for a {recipe.trained}, nor is --strategy fsdp: leave them out")
    cache, others = opened(options.data, options.weights), opened(options.validation) if options.validation else None

    def prepare(accelerator: Accelerator) -> Callable[[recipes.Schedule], Stage]:
        held = cache if options.cache == "none" else cache.load("cpu" if options.cache == "ram" else accelerator.device)

        def made(schedule: recipes.Schedule) -> Stage:
            own = dataclasses.replace(recipe, schedule=schedule)
            if recipe.trained in stages:
                return stages[recipe.trained](own, held, accelerator, weights, _bytes(options))
            return MPS2SStage(own, held, accelerator, weights, _bytes(options), sharded)

        return made

    _run(options, recipe, prepare, None, lambda accelerator: others)


def glide(argv: list[str]) -> None:
    """The baseline GLIDE: train text encoder, base and super-resolution network on shards of captioned photos.

    Example: nuwa-lip train glide mini --data shards/ --out runs/glide --max-minutes 60
    """
    options, recipe = parse("glide", argv)
    from nuwa_lip.baselines.glide.folder import load_glide
    from nuwa_lip.baselines.glide.model import need_diffusers
    from nuwa_lip.baselines.glide.training import GLIDEStage

    need_diffusers()
    if options.validation:
        raise InputError("--validation is for DF-VQGAN and MP-S2S: leave it out")
    if options.max_file_mb is not None:
        raise InputError(f"--max-file-mb {options.max_file_mb} is for our own models; a GLIDE is one file")
    weights = load_glide(Path(options.init_from)) if options.init_from else None
    if weights is not None:
        recipe = dataclasses.replace(recipe, model=weights.model.config)

    def prepare(accelerator: Accelerator) -> Callable[[recipes.Schedule], Stage]:
        photos = _photos(options, recipe.model.resolution, accelerator)
        return lambda schedule: GLIDEStage(dataclasses.replace(recipe, schedule=schedule), photos, accelerator, weights)

    _run(options, recipe, prepare, None)


def _photos(options: Options, resolution: int, accelerator: Accelerator) -> Photos:
    """The photos of a run, a little larger than the model, so that crops of it keep their sharpness."""
    from nuwa_lip.data.streamed import open_photos

    how: Any = {"cache": options.cache, "workers": options.workers, "weights": options.weights}
    return open_photos(options.data, resolution * 5 // 4, device=accelerator.device, **how)


def parse(stage: str, argv: list[str]) -> tuple[Options, Any]:
    """Command line → options and recipe.

    Raises:
        InputError: no or an unknown recipe, an impossible option, or a resumed run that differs from its
            recipe.json.
    """
    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    file, out = _value(rest, "--recipe"), _value(rest, "--out", "-o")
    if name and file:
        raise InputError(f"the recipe is {name!r} or --recipe {file}, not both")
    base = recipes.named(stage, name) if name else None
    stored = Path(out) / "recipe.json" if out and "--resume" in rest else None
    if stored and stored.is_file():
        base = recipes.from_file(stage, stored)
    elif file:
        base = recipes.from_file(stage, Path(file))
    elif "-h" in rest or "--help" in rest:
        base = base or recipes.named(stage, "mini")
    elif base is None:
        raise InputError(f"train {stage} needs a recipe: {', '.join(recipes.STAGES[stage][1])}, or --recipe FILE")
    options, recipe = _cli(stage, base, rest)
    _check(options)
    if options.strategy == "fsdp" and stage != "mps2s":
        raise InputError(f"--strategy fsdp is for mps2s; {stage} is small enough for ddp")
    if stored and stored.is_file():
        steps = max(base.schedule.steps, recipe.schedule.steps)
        longer = dataclasses.replace(base, schedule=dataclasses.replace(base.schedule, steps=steps))
        if changed := _difference(longer, recipe):
            mend = "leave it out, or start anew with --init-from"
            raise InputError(f"--resume follows {stored}, where {changed}: {mend}")
        recipe = recipes.lengthened(base, steps) if steps > base.schedule.steps else recipe
    return options, recipe


def _check(options: Options) -> None:
    """Refuse what cannot be, before any work."""
    if options.resume and options.overwrite:
        raise InputError("--resume goes on with a run, --overwrite replaces it: give one of them")
    for name, value in (("max-minutes", options.max_minutes), ("patience", options.patience)):
        if value is not None and not value > 0:
            raise InputError(f"--{name} is {value}; it must be above 0")
    if options.max_file_mb is not None and options.max_file_mb < 1:
        raise InputError(f"--max-file-mb is {options.max_file_mb}; it must be 1 or more")
    least = 0 if options.cache == "none" else 1  # 0: read as they are needed, in this process
    if options.workers < least:
        raise InputError(f"--workers is {options.workers}; it must be {least} or more")


def _difference(old: Any, new: Any, name: str = "") -> str | None:
    """The first field, by its dotted name, in which two recipes differ, and its two values."""
    if not dataclasses.is_dataclass(old):
        return None if old == new else f"{name} is {old!r}, not {new!r}"
    fields = (field.name for field in dataclasses.fields(old))
    found = (_difference(getattr(old, f), getattr(new, f), f"{name}.{f}" if name else f) for f in fields)
    return next(filter(None, found), None)


def _cli(stage: str, base: Any, argv: list[str]) -> tuple[Options, Any]:
    flat = tyro.conf.arg(name="")
    command, kind = {"dfvqgan": dfvqgan, "mps2s": mps2s, "glide": glide}[stage], recipes.STAGES[stage][0]
    helping = "-h" in argv or "--help" in argv

    def take(options: Options, recipe: Any) -> tuple[Options, Any]:
        return options, recipe

    take.__annotations__ = {"options": Annotated[Options, flat], "recipe": Annotated[kind, flat]}
    take.__defaults__ = (base,)
    return tyro.cli(
        take,
        prog=f"nuwa-lip train {stage} RECIPE",
        description=f"{inspect.getdoc(command)}\n\nRecipes: {', '.join(recipes.STAGES[stage][1])}",
        args=argv,
        # a run that switched something off has that as its default when it is resumed, and the same words must do
        config=(tyro.conf.FlagCreatePairsOff,) if helping else (),
        registry=_registry(),
    )


def _registry() -> tyro.constructors.ConstructorRegistry:
    """The rules of help, and one that lets a field of any contents (`model.text_encoder`) be given as JSON."""
    registry = help.registry()

    @registry.primitive_rule
    def _(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if info.type not in (dict[str, Any], dict[str, Any] | None):
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="JSON",
            instance_from_str=lambda words: parse_json(words[0]),
            is_instance=lambda value: value is None or isinstance(value, dict),
            str_from_instance=lambda value: [json.dumps(value)],
        )

    return registry


def _value(argv: list[str], *flags: str) -> str | None:
    """What follows one of these flags, before tyro knows the recipe whose fields are flags."""
    found = None
    for word, following in zip(argv, [*argv, None][1:], strict=True):
        name, equals, value = word.partition("=")
        if name in flags:
            found = value if equals else following
    return found


def _run(
    options: Options,
    recipe: Any,
    prepare: Callable[[Accelerator], Callable[[recipes.Schedule], Stage]],
    later: float | None,
    held: Callable[[Accelerator], Any] | None = None,
) -> None:
    """Settle the number of steps, write recipe.json, train."""
    from nuwa_lip.training.loop import make_accelerator, train
    from nuwa_lip.training.plan import arithmetic_of
    from nuwa_lip.training.runs import RunFolder
    from nuwa_lip.training.validation import held_out
    from nuwa_lip.training.watching import in_short

    began = time.perf_counter()
    keep_freed_memory()
    accelerator = make_accelerator(recipe.schedule, options.patience)
    if options.strategy == "fsdp" and accelerator.num_processes == 1:
        raise InputError("--strategy fsdp is for several processes: torchrun --nproc-per-node N -m nuwa_lip train ...")
    flops, peak = arithmetic_of(recipe, accelerator.device, accelerator.num_processes)
    watching: Any = {"wandb": options.wandb, "flops": flops, "peak": peak}
    run = RunFolder(options.out, recipe.schedule.batch_size, accelerator.is_main_process, **watching)
    going_on = options.resume and (options.out / "recipe.json").is_file()
    if not going_on:
        run.check(options.overwrite)
    accelerator.wait_for_everyone()  # before one process writes what another one looks for
    budget = None if going_on else options.max_minutes
    try:
        others = held(accelerator) if held is not None and options.validation else None
        schedule, stage = _settle(prepare(accelerator), recipe.schedule, accelerator, budget, later, began)
    except BaseException:
        run.abandon()  # what was found amiss leaves nothing written
        raise
    written = recipes.to_json(dataclasses.replace(recipe, schedule=schedule))
    if not going_on:
        run.begin(written)
    elif read_object(options.out / "recipe.json").get("schedule", {}).get("steps") != schedule.steps:
        run.lengthen(written)
    if accelerator.is_main_process:
        print(f"{options.out}: {schedule.steps} steps on {accelerator.device}", file=sys.stderr)
    validate = None if others is None else held_out(others, accelerator)
    try:
        more: Any = {"skip_damaged": options.skip_damaged, "on_nan": options.on_nan}
        train(stage, schedule, run, accelerator, going_on, validate, **more)
    except KeyboardInterrupt:
        if accelerator.is_main_process and (kept := run.checkpoints()):
            print(f"{kept[-1]} has what was learned; the same words and --resume go on from there", file=sys.stderr)
        raise
    except RuntimeError as error:
        if accelerator.num_processes > 1 and LOST.search(str(error)):
            lost = f"another process has ended, or has not answered for {options.patience:g} minutes"
            mend = "--resume goes on from the last checkpoint"
            raise RuntimeError(f"{lost} ({first_line(error):.90}); {mend}") from error
        raise
    if accelerator.is_main_process:
        print(f"{options.out}: {in_short(run.last)}", file=sys.stderr)
        print(options.out / "model")


def _settle(
    build: Callable[[recipes.Schedule], Stage],
    schedule: recipes.Schedule,
    accelerator: Accelerator,
    minutes: float | None,
    later: float | None,
    began: float,
) -> tuple[recipes.Schedule, Stage]:
    """The schedule, fitted to a budget if there is one, and its stage."""
    from nuwa_lip.training.loop import steps_within

    def rehearsed(schedule: recipes.Schedule) -> Stage:
        accelerator.free_memory()  # it holds on to the stage before
        return build(schedule)

    if minutes is not None:
        steps = steps_within(minutes, schedule, rehearsed, later, began)
        accelerator.free_memory()
        schedule = dataclasses.replace(schedule, steps=accelerator_agrees(accelerator, steps))
        if schedule.steps < FEW:
            warnings.warn(
                f"--max-minutes {minutes:g} is time for {schedule.steps} steps, of which little is learned: give more "
                "time, or a smaller --schedule.batch-size",
                stacklevel=2,
            )
    return schedule, build(schedule)


def accelerator_agrees(accelerator: Accelerator, steps: int) -> int:
    """The smallest number of steps that any process has found."""
    import torch

    return int(accelerator.gather(torch.tensor([steps], device=accelerator.device)).min())


def _bytes(options: Options) -> int | None:
    return None if options.max_file_mb is None else options.max_file_mb * 2**20
