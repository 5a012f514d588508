"""`nuwa-lip evaluate table1` to `table4` and `ratios`: train and measure rows, and show the paper's beside ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from nuwa_lip import hub
from nuwa_lip.baselines import methods, registry
from nuwa_lip.baselines.glide.folder import is_glide
from nuwa_lip.baselines.registry import BaselineOptions
from nuwa_lip.commands.variants import (
    Plan,
    Step,
    ratio_steps,
    table1_steps,
    table4_steps,
    tokenizer_steps,
)
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.images import check_extras, parse_extras
from nuwa_lip.evaluation.job import DEFINITIONS, Job
from nuwa_lip.evaluation.likelihood import others_at_hand
from nuwa_lip.evaluation.report import command_line, write_json
from nuwa_lip.tables import assemble, page, pictures, specs
from nuwa_lip.tables.budget import budgets_of
from nuwa_lip.tables.layout import Kind, Table
from nuwa_lip.tables.measure import Setting, images_row, tokenizer_row
from nuwa_lip.tables.rows import RowFolder, seeded
from nuwa_lip.training.runs import written_whole

Steps = Callable[[Plan, str], list[Step]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all tables have in common."""

    benchmark: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders made by `nuwa-lip data benchmark`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("results")
    """Results folder: rows, pictures, and the table itself."""
    row: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=MODEL, once for each row whose model is at hand; NAME-seed1=MODEL for a second training."""
    only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train and measure this row alone (may be given again); the table shows what else has been measured before."""
    train: bool = False
    """Train the rows that are not given, each by the commands that its JSON names; needs --data."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH ...")] = ()
    """Shards to train on."""
    models: Path | None = None
    """Where trained models are kept; by default in the results folder."""
    stage1: str = "mini"
    """Recipe of stage 1 and overrides, in quotes: "mini --schedule.steps 4000"; the same for every row."""
    stage2: str = "mini"
    """The same of stage 2."""
    tokenize: str = ""
    """More words for `nuwa-lip tokenize`, in quotes."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings; with several a row shows their mean."""
    limit: int | None = None
    """Use only the first so many photos of each benchmark."""
    pictures: int = 24
    """Photos of each benchmark whose results the page shows; 0: none."""
    pictures_of: tuple[str, ...] = ()
    """Show photos of these benchmarks only, by their folders' names: say, of those that may be published."""
    workers: int = 1
    """Processes that measure together."""

    def check(self, table: Table) -> None:
        """Refuse what cannot be, before any work."""
        if not self.benchmark:
            raise InputError(f"evaluate {table.name} needs a benchmark folder, made by nuwa-lip data benchmark")
        names = [folder.absolute().name for folder in self.benchmark]
        if len(set(names)) < len(names):
            raise InputError(f"two benchmarks are called {max(names, key=names.count)}: rows go by that name")
        for option, value, least in (
            ("--limit", self.limit, 2),
            ("--pictures", self.pictures, 0),
            ("--workers", self.workers, 1),
            ("--seeds", min(self.seeds, default=-1), 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{option} {value} is too small: {least} at least")
        for name in self.pictures_of:
            if name not in names:
                raise InputError(f"--pictures-of {name} is none of the benchmarks: {', '.join(names)}")
        if self.train and not self.data:
            raise InputError("--train needs --data, the photos to train on")
        table.check(self.only, "--only")
        table.check([without_seed(name) for name in self.given()], "--row")

    def given(self) -> dict[str, str]:
        """Models by row."""
        found = {}
        for text in self.row:
            name, equals, model = text.partition("=")
            if not (name and equals and model):
                raise InputError(f"--row {text!r} is not like NAME=MODEL")
            found[name] = model
        return found

    def plan(self, seed: int) -> Plan:
        """How rows are trained."""
        return Plan(
            models=self.models or self.out / "models",
            data=self.data,
            stage1=self.stage1,
            stage2=self.stage2,
            tokenize=self.tokenize,
            seed=seed,
        )


Shared = Annotated[Options, tyro.conf.arg(name="")]
Measure = Callable[[str, str, str, RowFolder, Benchmark, Setting], object]
"""Row, its name with the seed, its model, where rows are, benchmark, setting."""


def table1(
    options: Shared,
    *,
    best_of: int = 1,
    rank: Literal["likelihood", "clip"] = "likelihood",
    metrics: str = "",
    seed: int = 0,
    finetune_data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH ...")] = (),
    finetune: str = "mini",
    glide: str = "mini",
) -> None:
    """Table 1: NÜWA-LIP against NÜWA, NÜWA-P, GLIDE, OpenCV and anything else, on any benchmarks.

    A row's model is a model folder, a folder of finished pictures NNNNN.png, or a method of `evaluate images
    --baseline`, with its weights as in glide:FOLDER. Rows of other names than the paper's are shown as they are
    called. NÜWA is measured unpasted; NÜWA-P is the same model.

    Example: nuwa-lip evaluate table1 benchmarks/coco --row nuwa-lip=runs/mps2s/model --row telea=telea

    Args:
        options: see there.
        best_of: Show each model of ours a second time with the best of so many candidates (officially 2).
        rank: What the best is chosen by: the model's own likelihood, or officially CLIP, whose weights it needs.
        metrics: More figures, with commas: fid, kid, lpips, clip.
        seed: Of the models' sampling.
        finetune_data: Shards for the fine-tuned row.
        finetune: Recipe of the fine-tuning and overrides, in quotes.
        glide: Recipe of GLIDE and overrides, in quotes.
    """
    if best_of < 1 or seed < 0:
        raise InputError(f"--best-of {best_of} and --seed {seed}: 1 and 0 at least")
    extras = parse_extras(metrics)
    usual = {row.name for row in specs.table1(best_of=best_of).rows}
    for name in options.given():
        if not re.fullmatch(r"[\w.+-]+", name):
            raise InputError(f"--row {name!r}: files are named after rows; take letters, digits, and . + - _")
    further = [name for name in options.given() if name not in usual and without_seed(name) == name]

    def build(benchmark: str, _: int) -> Table:
        return specs.table1(benchmark, further, best_of, extras)

    def measure(row: str, name: str, model: str, folder: RowFolder, source: Benchmark, setting: Setting) -> None:
        candidates = best_of if ".best-of-" in row else 1
        job = replace(job_of(row, model, source, candidates, extras, seed), rank=rank)
        images_row(name, job, folder, source, setting)

    def plan(training: int) -> Plan:
        return replace(options.plan(training), finetune_data=finetune_data, finetune=finetune, glide=glide)

    _run(options, build, measure, table1_steps, plan, extras=extras)


def job_of(row: str, model: str, source: Benchmark, best_of: int, extras: tuple[str, ...], seed: int) -> Job:
    """What to measure: a method's name, one with its weights (glide:FOLDER), finished pictures, or a model of ours."""
    method, _, weights = model.partition(":")
    path = Path(model)
    job = Job(benchmark=source.folder, extras=extras, seed=seed)
    if path.is_dir() and (is_glide(path) or (path / "base_inpaint.pt").exists()):
        method, weights = "glide", model
    if method in methods.BASELINES:
        return replace(job, baseline=method)
    if method in registry.NAMES:
        return replace(job, baseline=method, baseline_options=BaselineOptions(model=weights or None, seed=seed))
    if path.is_dir() and not (path / "config.json").exists():
        return replace(job, results=path)
    base = row.partition(".best-of-")[0]
    # NÜWA-P is the same model with the known pixels pasted, and sees the same: the whole photo. The paper never blends
    return replace(job, model=model, best_of=best_of, unpasted=base == "nuwa", whole=base == "nuwa-p", blend=False)


def table2(options: Shared, *, codes: tuple[int, int, int] = (1024, 12288, 8192)) -> None:
    """Table 2: VQGAN, VQGAN-P, VQGAN with partial convolutions and DF-VQGAN in three vocabularies.

    The first two are on the recipe's own token grid, the third on one of twice as many tokens a side.

    Example: nuwa-lip evaluate table2 benchmarks/test --train --data shards/ --only df-vqgan-coarse-1024

    Args:
        options: see there.
        codes: Sizes of the three codebooks.
    """
    if len(set(codes[:2])) < 2 or min(codes) < 2:
        raise InputError(f"--codes {codes}: two different sizes and that of the finer grid, each 2 or more")
    _run(options, lambda *_: specs.table2(codes), _measure_tokenizer, tokenizer_steps)


def table3(options: Shared, *, codes: int | None = None) -> None:
    """Table 3: DF-VQGAN without both of its parts, with relative estimation only, and in full.

    Example: nuwa-lip evaluate table3 benchmarks/test --train --data shards/ --stage1 "mini --schedule.steps 4000"

    Args:
        options: see there.
        codes: Size of the codebook; the recipe's own if it is not given.
    """
    vocabulary = options.plan(0).own_vocabulary() if codes is None else f"coarse-{codes}"
    _run(options, lambda *_: specs.table3(vocabulary), _measure_tokenizer, tokenizer_steps)


def table4(options: Shared, *, others: int = 9, metrics: str = "") -> None:
    """Table 4: the perspectives of MP-S2S, by bits per defective token, captions swapped, and FSD.

    Example: nuwa-lip evaluate table4 benchmarks/test --train --data shards/ --only text-pixels

    Args:
        options: see there.
        others: Other captions that each true one is compared with, or as many as the benchmark has.
        metrics: More figures, with commas: fid, kid, lpips, clip.
    """
    _run_stage2(options, specs.table4, table4_steps, others, metrics)


def ratios(options: Shared, *, others: int = 9, metrics: str = "") -> None:
    """Footnote 6: stage 2 trained on holes of 20 to 40, 40 to 60 and 60 to 80 % of the photo.

    Example: nuwa-lip evaluate ratios benchmarks/test --train --data shards/

    Args:
        options: see there.
        others: Other captions that each true one is compared with, or as many as the benchmark has.
        metrics: More figures, with commas: fid, kid, lpips, clip.
    """
    _run_stage2(options, specs.ratios, ratio_steps, others, metrics)


def _measure_tokenizer(row: str, name: str, model: str, folder: RowFolder, source: Benchmark, setting: Setting) -> None:
    changes = {"relative_estimation": False, "partial_convolution": True} if row.startswith("partial-") else None
    tokenizer_row(name, model, folder, source, setting, changes)


def _run_stage2(
    options: Options, build: Callable[[int, Sequence[str]], Table], steps: Steps, others: int, metrics: str
) -> None:
    """Rows of results and likelihoods; `build` takes the number of other captions and the further figures."""
    extras = parse_extras(metrics)

    def measure(row: str, name: str, model: str, folder: RowFolder, source: Benchmark, setting: Setting) -> None:
        job = Job(benchmark=source.folder, model=model, extras=extras, blend=False)  # the paper does not blend
        images_row(name, job, folder, source, setting, with_likelihood=True)

    _run(options, lambda _, own: build(own, extras), measure, steps, others=others, extras=extras)


def _run(
    options: Options,
    build: Callable[[str, int], Table],
    measure: Measure,
    steps: Steps,
    plan: Callable[[int], Plan] | None = None,
    others: int = 9,
    extras: tuple[str, ...] = (),
) -> None:
    """Train and measure the rows that are asked for, then show all that there are.

    Args:
        options, measure, steps, plan, others, extras: see there.
        build: a benchmark's name and the number of other captions that it has → its table.
    """
    if others < 0:
        raise InputError(f"--others {others} is too small: 0 at least")
    pattern = build("", others)
    options.check(pattern)
    sources = [read_benchmark(folder) for folder in options.benchmark]
    compares = pattern.kind == "stage2"
    own_others = [others_at_hand(source.captions, others) if compares else 0 for source in sources]
    tables = [build(source.folder.absolute().name, own) for source, own in zip(sources, own_others, strict=True)]
    numbers = [len(source) if options.limit is None else min(options.limit, len(source)) for source in sources]
    for n in numbers:  # before any training
        check_extras(extras, n)
    command = command_line()
    models = _models(options, pattern, steps, plan or options.plan)
    folders = []
    for source, n, own in zip(sources, numbers, own_others, strict=True):
        wanted = {"definitions": DEFINITIONS, "benchmark_sha256": source.sha256, "n": n}
        wanted |= {"likelihood": own} if compares else {}
        first = None if n == len(source) else n
        folders.append(RowFolder(options.out, source.folder.absolute().name, pattern.kind, wanted, first))
    settings = []
    for source, folder, n, own in zip(sources, folders, numbers, own_others, strict=True):
        shown = not options.pictures_of or folder.benchmark in options.pictures_of
        pictures = options.pictures if shown else 0
        setting = Setting(n=n, pictures=pictures, workers=options.workers, others=own, command=command)
        settings.append(setting)
        for name, model in models.items():
            own_setting = replace(setting, training=model.training, budget=budgets_of(model.runs))
            measure(model.row, name, model.model, folder, source, own_setting)
        for stranger, why in folder.strangers().items():
            print(f"{folder.path(stranger)} was measured otherwise ({why}): left out", file=sys.stderr)
    blocks = [assemble.assemble(*three) for three in zip(tables, sources, folders, strict=True)]
    _write(blocks, folders, [setting.chosen() for setting in settings], options.out, command)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is measured for a row."""

    row: str
    model: str
    training: Sequence[str] = ()
    """The commands that trained it."""
    runs: Sequence[Path] = ()
    """Their folders."""


def _models(options: Options, table: Table, steps: Steps, plan: Callable[[int], Plan]) -> dict[str, Chosen]:
    """The rows to measure, by their names with the seed."""
    from nuwa_lip.cli import run

    given = options.given()
    found: dict[str, Chosen] = {}
    todo: list[Step] = []  # run when all rows are known to be in order
    for row in table.measured():
        if options.only and row.name not in options.only:
            continue
        base = row.name.partition(".best-of-")[0]
        for seed in sorted({0, *options.seeds, *_given_seeds(base, given)}):
            name = seeded(row.name, seed)
            model = given.get(name, given.get(seeded(base, seed)))
            if model is None and base.startswith("partial-"):  # the weights of the VQGAN
                model = given.get(seeded("vqgan-" + base.removeprefix("partial-"), seed))
            if model is not None:
                check_given(model, table.kind)
                found[name] = Chosen(row=row.name, model=model, runs=[Path(model).parent])
            elif options.train and seed in options.seeds:
                line = steps(plan(seed), row.name)
                todo += line
                if line:
                    found[name] = Chosen(
                        row=row.name,
                        model=str(line[-1].out / "model"),
                        training=[step.command for step in line],
                        runs=[step.out for step in line],
                    )
        if row.name in options.only and not any(chosen.row == row.name for chosen in found.values()):
            mend = f"give --row {row.name}=MODEL or --train"
            if options.train:
                needs = "--finetune-data" if row.name == "nuwa-lip-finetuned" else "a method's name or pictures"
                mend = f"it is not trained by these options; give --row {row.name}=MODEL, or {needs}"
            raise InputError(f"--only {row.name}: there is no model to measure; {mend}")
    for step in todo:
        step.run(run)
    return found


def check_given(model: str, kind: Kind) -> None:
    """Refuse a row's model that does not exist, before any other row is trained or measured."""
    method = model.partition(":")[0]
    other = kind == "images" and (method in methods.BASELINES or method in registry.NAMES or Path(model).is_dir())
    if not other:
        hub.resolve(model)


def without_seed(name: str) -> str:
    """`nuwa-lip-seed1` → "nuwa-lip"."""
    return re.sub(r"-seed\d+$", "", name)


def _given_seeds(row: str, given: Mapping[str, str]) -> list[int]:
    """Further trainings of a row whose models are given."""
    words = [name.removeprefix(f"{row}-seed") for name in given if name.startswith(f"{row}-seed")]
    return [int(word) for word in words if word.isdecimal()]


def _write(
    blocks: list[assemble.Block], folders: list[RowFolder], chosen: list[list[int]], out: Path, command: str
) -> None:
    """Show the table, and write it as JSON, CSV, Markdown, HTML and, of each benchmark, sheets of pictures."""
    name = blocks[0].table.name
    console = Console()
    for block in blocks:
        for shown in assemble.as_text(block, console.width):
            console.print(shown)
            print()
        print("\n".join(assemble.about(block)))
        for text, word in block.answers():
            print(f"{word + ':':10} {text}")
    write_json(assemble.as_json(blocks, command), out / f"{name}.json")
    texts = {
        "csv": assemble.as_csv(blocks),
        "md": assemble.as_markdown(blocks, command),
        "html": page.page(blocks, folders, chosen, command),
    }
    for ending, text in texts.items():
        with written_whole(out / f"{name}.{ending}") as part:
            part.write_text(text, encoding="utf-8")
    for block, folder, photos in zip(blocks, folders, chosen, strict=True):
        for ending, changes in (("", False), ("-changes", True)):
            sheet = pictures.sheet(block, folder, photos, changes=changes)
            if sheet is not None:
                with written_whole(out / f"{name}-{folder.benchmark}{ending}.png") as part:
                    sheet.save(part, "PNG")
    console.print(f"{out / name}.json, .csv, .md, .html", highlight=False, markup=False, soft_wrap=True)
