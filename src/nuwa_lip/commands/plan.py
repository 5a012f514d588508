"""`nuwa-lip plan`: what a training costs on GPUs that one does not have yet."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nuwa_lip.disk import lines_of, parse_json, read_text, write_json
from nuwa_lip.errors import InputError
from nuwa_lip.training import recipes

if TYPE_CHECKING:
    from nuwa_lip.training.plan import Way


def plan(
    stage: tyro.conf.Positional[Literal["dfvqgan", "mps2s"]],
    recipe: tyro.conf.Positional[str],
    *,
    gpus: Annotated[str, tyro.conf.arg(metavar="NxKIND")],
    batch_size: int | None = None,
    steps: int | None = None,
    samples: float | None = None,
    epochs: float = 1,
    utilisation: float | None = None,
    measured: Path | None = None,
    measured_on: str | None = None,
    price: float | None = None,
    json: Path | None = None,
) -> None:
    """Say what a training costs before anything is paid: memory of a GPU, time, money, and how to share the batch.

    Example: nuwa-lip plan mps2s paper --gpus 64xA100-80G

    Args:
        stage: dfvqgan or mps2s.
        recipe: Name of a recipe, or a recipe.json.
        gpus: Number and kind, such as 64xA100-80G.
        batch_size: Samples of a step, in place of the recipe's.
        steps: Steps, in place of the recipe's.
        samples: Samples of the data set, from which steps follow; with --epochs.
        epochs: How often each sample is seen.
        utilisation: Share of the GPUs' bf16 peak that is reached; assumed to be 0.35.
        measured: A run folder of yours, whose images per second say what is reached; with --measured-on.
        measured_on: What that run ran on, such as 1xH100-80G.
        price: US dollars for a GPU's hour; a usual price otherwise.
        json: Write the figures here, too.
    """
    from nuwa_lip.training import plan as planning

    file = Path(recipe)
    made = recipes.from_file(stage, file) if recipe.endswith(".json") else recipes.named(stage, recipe)
    count, kind = planning.parse_gpus(gpus)
    for name, value in (("batch-size", batch_size), ("steps", steps), ("samples", samples), ("epochs", epochs)):
        if value is not None and not value > 0:
            raise InputError(f"--{name} is {value}; it must be above 0")
    batch = batch_size or made.schedule.batch_size
    if batch % count:
        raise InputError(
            f"a batch of {batch} is no multiple of {count} GPUs: give --batch-size {-(-batch // count) * count}"
        )
    steps = max(1, round(samples * epochs / batch)) if samples else steps or made.schedule.steps
    schedule = dataclasses.replace(made.schedule, batch_size=batch, steps=steps, accumulate=1)
    made = dataclasses.replace(made, schedule=schedule)
    cost, gpu = planning.cost_of(made), planning.KINDS[kind]
    reached, source = _utilisation(stage, utilisation, measured, measured_on)
    found = planning.ways(cost, made, count, gpu.memory)
    best, share = planning.recommended(found), batch // count
    dollars = gpu.price if price is None else price
    lines = [
        f"{stage} {recipe} on {count}x{kind}: {gpu.memory / 2**30:.0f} GiB and {gpu.peak / 1e12:.0f} TFLOP/s each",
        f"parameters that learn: {cost.parameters / 1e6:,.1f} M",
        f"a step: {batch} samples, {batch * 3 * cost.forward / 1e12:,.1f} TFLOP",
        f"in all: {steps:,} steps, {batch * steps / 1e6:,.1f} M samples",
        f"utilisation: {reached:.0%} of the peak ({source})",
        "",
        f"{'way':24} {'at a time':>9} {'parts':>5} {'GB a GPU':>8} {'s a step':>8} {'days':>7} {'US$':>11}",
    ]
    rows = []
    for way in found:
        seconds = way.flops / (count * gpu.peak * reached)
        days, money = seconds * steps / 86400, seconds * steps / 3600 * count * dollars
        row = {"way": way.name, "part": way.part, "accumulate": share // way.part if way.part else None}
        rows.append(row | {"bytes": way.memory, "seconds": seconds, "days": days, "dollars": money})
        fits = f"{way.part:9} {share // way.part:5}" if way.part else f"{'none':>9} {'':5}"
        time = f"{seconds:8.3f} {days:7.1f} {money:11,.0f}" if way.part else ""
        lines.append(f"{way.name:24} {fits} {way.memory / planning.GB:8.1f} {time}".rstrip())
    lines += ["", _advice([stage, recipe], made, best, share)]
    if stage == "mps2s":
        side, (h, w) = made.model.image_size, made.model.grid
        each = 3 * side**2 + side**2 // 8 + 8 * h * w
        lines.append(
            f"token cache: {each / 1e3:,.0f} kB a sample" + (f", {samples * each / 1e12:,.1f} TB" if samples else "")
        )
    print("\n".join(lines))
    if json is not None:
        figures = dataclasses.asdict(cost) | {"utilisation": reached, "steps": steps, "batch_size": batch, "ways": rows}
        write_json(json, figures | {"recommended": None if best is None else best.name})


def _advice(words: list[str], recipe: Any, best: Way | None, share: int) -> str:
    """The words of the command line that trains in the best way."""
    if best is None:
        return "nothing fits: take more GPUs, larger ones, or a smaller model"
    again, does = "again" in best.name, getattr(recipe, "gradient_checkpointing", False)
    words = ["train", *words] + ["--strategy fsdp"] * best.name.startswith("fsdp")
    words += [f"--{'' if again else 'no-'}gradient-checkpointing"] * (again != does)
    words += [f"--schedule.accumulate {share // best.part}"] * (share > best.part)
    return f"recommended: {' '.join(words)}"


def _utilisation(stage: str, given: float | None, run: Path | None, where: str | None) -> tuple[float, str]:
    """The share of the peak that is reached, and how it is known.

    Raises:
        InputError: a run was measured on nobody knows what, or has no figures.
    """
    from nuwa_lip.training import plan as planning

    if (run is None) != (where is None):
        raise InputError("--measured RUN and --measured-on NxKIND go together")
    if run is None or where is None:
        if given is not None and not 0 < given <= 1:
            raise InputError(f"--utilisation is {given}; it must be above 0, and 1 at most")
        return (planning.UTILISATION, "assumed") if given is None else (given, "given")
    count, kind = planning.parse_gpus(where)
    recipe = recipes.from_file(stage, run / "recipe.json")
    rates = [parse_json(line).get("images_per_second") for line in lines_of(read_text(run / "metrics.jsonl"))]
    rates = [rate for rate in rates if isinstance(rate, int | float)]
    if not rates:
        raise InputError(f"{run / 'metrics.jsonl'} has no images_per_second")
    rate = statistics.median(rates)
    share = rate * 3 * planning.cost_of(recipe).forward / (count * planning.KINDS[kind].peak)
    return min(1.0, share), f"{run}: {rate:,.1f} samples a second on {where}"
