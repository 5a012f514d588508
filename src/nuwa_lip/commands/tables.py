"""`nuwa-lip evaluate table1` to `table4` and `ratios`: train and measure rows, and show the paper's beside ours."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from nuwa_lip import hub
from nuwa_lip.baselines import methods, registry
from nuwa_lip.baselines.glide.folder import is_glide
from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.commands.options import check_least
from nuwa_lip.commands.table_options import Options, given_seeds, without_seed
from nuwa_lip.commands.variants import Plan, Step, ratio_steps, table1_steps, table4_steps, tokenizer_steps
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.disk import write_text, written_whole
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.images import parse_extras
from nuwa_lip.evaluation.job import DEFINITIONS, Job, Weights, count_photos
from nuwa_lip.evaluation.likelihood import others_at_hand
from nuwa_lip.evaluation.report import command_line, write_report
from nuwa_lip.tables import assemble, page, pictures, specs
from nuwa_lip.tables.budget import budgets_of
from nuwa_lip.tables.layout import Kind, Table
from nuwa_lip.tables.measure import Setting, images_row, tokenizer_row
from nuwa_lip.tables.rows import RowFolder, seeded

Steps = Callable[[Plan, str], list[Step]]
Shared = Annotated[Options, tyro.conf.arg(name="")]
Measure = Callable[[str, str, str, Setting], object]
"""Row, its name with the seed, its model, setting."""


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
        options: Shared by all tables.
        best_of: Show each model of ours a second time with the best of N candidates (officially 2).
        rank: What the best is chosen by: the model's own likelihood, or officially CLIP, whose weights it needs.
        metrics: More figures, with commas: fid, kid, lpips, clip, fed.
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

    def measure(row: str, name: str, model: str, setting: Setting) -> None:
        candidates = best_of if ".best-of-" in row else 1
        job = job_of(row, model, setting.source, candidates, extras, seed)
        weights = replace(job.weights, lite=options.lite)
        images_row(name, replace(job, rank=rank, weights=weights), setting)

    def plan(training: int) -> Plan:
        return replace(options.plan(training), finetune_data=finetune_data, finetune=finetune, glide=glide)

    _run(options, build, measure, table1_steps, plan, extras=extras)


def job_of(row: str, model: str, source: Benchmark, best_of: int, extras: tuple[str, ...], seed: int) -> Job:
    """Read what a row is given as: a method, one with its weights (glide:FOLDER), finished pictures, a model of ours.

    Args:
        row: its name.
        model: what it is given as.
        source: the benchmark.
        best_of: candidates of which the best is measured.
        extras: figures beside the usual ones.
        seed: of the sampling.
    """
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
    whole = base in ("nuwa-p", "nuwa-lip-whole")
    return replace(job, model=model, best_of=best_of, unpasted=base == "nuwa", whole=whole, blend=False)


def table2(options: Shared, *, codes: tuple[int, int, int] = (1024, 12288, 8192), metrics: str = "") -> None:
    """Table 2: VQGAN, VQGAN-P, VQGAN with partial convolutions and DF-VQGAN in three vocabularies.

    The first two are on the recipe's own token grid, the third on one of twice as many tokens a side.

    Example: nuwa-lip evaluate table2 benchmarks/test --train --data shards/ --only df-vqgan-coarse-1024

    Args:
        options: Shared by all tables.
        codes: Sizes of the three codebooks.
        metrics: More figures, with commas: fid, kid, lpips, clip, fed.
    """
    if len(set(codes[:2])) < 2 or min(codes) < 2:
        raise InputError(f"--codes {codes}: two different sizes and that of the finer grid, each 2 or more")
    _run_tokenizers(options, partial(specs.table2, codes), metrics)


def table3(options: Shared, *, codes: int | None = None, metrics: str = "") -> None:
    """Table 3: DF-VQGAN without both of its parts, with relative estimation only, and in full.

    Example: nuwa-lip evaluate table3 benchmarks/test --train --data shards/ --stage1 "mini --schedule.steps 4000"

    Args:
        options: Shared by all tables.
        codes: Size of the codebook; the recipe's own if it is not given.
        metrics: More figures, with commas: fid, kid, lpips, clip, fed.
    """
    vocabulary = options.plan(0).own_vocabulary() if codes is None else f"coarse-{codes}"
    _run_tokenizers(options, partial(specs.table3, vocabulary), metrics)


def table4(options: Shared, *, others: int = 9, metrics: str = "") -> None:
    """Table 4: the perspectives of MP-S2S, by bits per defective token, captions swapped, and FSD.

    Example: nuwa-lip evaluate table4 benchmarks/test --train --data shards/ --only text-pixels

    Args:
        options: Shared by all tables.
        others: Other captions that each true one is compared with, or as many as the benchmark has.
        metrics: More figures, with commas: fid, kid, lpips, clip, fed.
    """
    _run_stage2(options, specs.table4, table4_steps, others, metrics)


def ratios(options: Shared, *, others: int = 9, metrics: str = "") -> None:
    """Footnote 6: stage 2 trained on holes of 20 to 40, 40 to 60 and 60 to 80 % of the photo.

    Example: nuwa-lip evaluate ratios benchmarks/test --train --data shards/

    Args:
        options: Shared by all tables.
        others: Other captions that each true one is compared with, or as many as the benchmark has.
        metrics: More figures, with commas: fid, kid, lpips, clip, fed.
    """
    _run_stage2(options, specs.ratios, ratio_steps, others, metrics)


def _run_tokenizers(options: Options, build: Callable[[Sequence[str]], Table], metrics: str) -> None:
    """Run a table of tokenizers; `build` takes the further figures."""
    extras, weights = parse_extras(metrics), Weights(lite=options.lite)

    def measure(row: str, name: str, model: str, setting: Setting) -> None:
        changes = {"relative_estimation": False, "partial_convolution": True} if row.startswith("partial-") else None
        tokenizer_row(name, model, setting, changes, extras=extras, weights=weights)

    _run(options, lambda *_: build(extras), measure, tokenizer_steps, extras=extras)


def _run_stage2(
    options: Options, build: Callable[[int, Sequence[str]], Table], steps: Steps, others: int, metrics: str
) -> None:
    """Run a table of results and likelihoods; `build` takes the number of other captions and the further figures."""
    extras = parse_extras(metrics)

    def measure(row: str, name: str, model: str, setting: Setting) -> None:
        job = Job(benchmark=setting.source.folder, model=model, extras=extras, blend=False)  # the paper does not blend
        job = replace(job, weights=replace(job.weights, lite=options.lite))
        images_row(name, job, setting, with_likelihood=True)

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
    """Train and measure the rows that are chosen, then show all that there are.

    `build` makes the table of a benchmark from its name and the number of other captions that it has.
    """
    check_least(0, others=others)
    pattern = build("", others)
    options.check(pattern)
    Weights(lite=options.lite).describe(extras)  # missing ones are told before any training
    compares, command = pattern.kind == "stage2", command_line()
    targets: list[tuple[Table, Setting]] = []
    for path in options.benchmark:
        source, name = read_benchmark(path), path.absolute().name
        own = others_at_hand(source.captions, others) if compares else 0
        n = count_photos(source, options.limit, extras)  # checked before any training
        wanted = {"definitions": DEFINITIONS, "benchmark_sha256": source.sha256, "n": n}
        wanted |= {"likelihood": own} if compares else {}
        folder = RowFolder(options.out, name, pattern.kind, wanted, None if n == len(source) else n)
        shown = options.pictures if name in (options.pictures_of or (name,)) else 0
        how: dict[str, Any] = {"pictures": shown, "workers": options.workers, "others": own, "command": command}
        targets.append((build(name, own), Setting(source=source, folder=folder, n=n, **how)))
    models = _models(options, pattern, steps, plan or options.plan)
    for _, setting in targets:
        for name, model in models.items():
            training: dict[str, Any] = {"training": model.training, "budget": budgets_of(model.runs)}
            measure(model.row, name, model.model, replace(setting, **training))
        for stale, why in setting.folder.stale().items():
            print(f"{setting.folder.path(stale)} was measured otherwise ({why}): left out", file=sys.stderr)
    blocks = [assemble.assemble(table, setting.source, setting.folder) for table, setting in targets]
    _write(blocks, [setting.chosen() for _, setting in targets], options.out, command)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The model that is measured for a row."""

    row: str
    model: str
    training: Sequence[str] = ()
    """The commands that trained it."""
    runs: Sequence[Path] = ()
    """Their folders."""


def _models(options: Options, table: Table, steps: Steps, plan: Callable[[int], Plan]) -> dict[str, Chosen]:
    """Choose the rows to measure, by their names with the seed, and train those that are to be trained."""
    from nuwa_lip.cli import run

    given = options.given()
    found: dict[str, Chosen] = {}
    todo: list[Step] = []  # run when all rows are known to be in order
    for row in table.measured():
        if options.only and row.name not in options.only:
            continue
        base = row.name.partition(".best-of-")[0]
        for seed in sorted({0, *options.seeds, *given_seeds(base, given)}):
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
    """Check a row's model, before any other row is trained or measured.

    Raises:
        InputError: it does not exist.
    """
    method = model.partition(":")[0]
    other = kind == "images" and (method in methods.BASELINES or method in registry.NAMES or Path(model).is_dir())
    if not other:
        hub.resolve(model)


def _write(blocks: list[assemble.Block], chosen: list[list[int]], out: Path, command: str) -> None:
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
    write_report(out / f"{name}.json", assemble.as_json(blocks, command))
    write_text(out / f"{name}.csv", assemble.as_csv(blocks))
    write_text(out / f"{name}.md", assemble.as_markdown(blocks, command))
    write_text(out / f"{name}.html", page.page(blocks, chosen, command))
    for block, photos in zip(blocks, chosen, strict=True):
        for ending, changes in (("", False), ("-changes", True)):
            sheet = pictures.sheet(block, photos, changes=changes)
            if sheet is not None:
                with written_whole(out / f"{name}-{block.folder.benchmark}{ending}.png") as part:
                    sheet.save(part, "PNG")
    console.print(f"{out / name}.json, .csv, .md, .html", highlight=False, markup=False, soft_wrap=True)
