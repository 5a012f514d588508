"""`nuwa-lip evaluate likelihood`: how likely a model finds the truth, and whether it listens to captions."""

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nuwa_lip.commands.options import Operand, check_least
from nuwa_lip.data.benchmark import read_benchmark
from nuwa_lip.evaluation import job as jobs
from nuwa_lip.evaluation.likelihood import measure_likelihood, other_captions, summarise_likelihood
from nuwa_lip.evaluation.report import command_line, number, write_report
from nuwa_lip.hub import load_model

SHOWN = {
    "bits": ("bits per defective token, true caption ↓", 4),
    "bits_swapped": ("the same, another photo's caption", 4),
    "bits_without": ("the same, no caption", 4),
    "swap_gain": ("gain by the true caption, paired ↑", 4),
    "caption_rank": ("caption rank: ahead of all others ↑", 3),
    "caption_wins": ("share of the others it is ahead of ↑", 3),
}


def likelihood(
    benchmark: Operand,
    *,
    model: str,
    json: Path | None = None,
    limit: int | None = None,
    others: int = 9,
    seed: int = 0,
    work: Path | None = None,
    workers: int = 1,
) -> None:
    """Measure the likelihood of what really stood in each hole, given its caption and given others.

    A run that was stopped goes on where it was when it is started again with the same --work.

    Example: nuwa-lip evaluate likelihood benchmarks/test --model nuwa-lip-mini --json likelihood.json

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        model: Bundled name, local folder or hub id of a complete model.
        json: Where to write the figures, and the bits of each photo.
        limit: Use only the first N photos.
        others: Other captions of the set that each true one is compared with.
        seed: Of the choice of these.
        work: Keep what was measured of each photo in this folder.
        workers: Processes that measure together.
    """
    check_least(0, others=others, seed=seed)
    check_least(1, limit=limit, workers=workers)
    source = read_benchmark(benchmark)
    n = len(source) if limit is None else min(limit, len(source))
    load = partial(load_model, model)
    parts = load()
    reads = parts.mps2s is not None and parts.mps2s.text is not None
    if reads:
        other_captions(source.captions, 0, others, seed)  # fail early if there are too few
    run = jobs.run_of(model, source, likelihood=[others if reads else 0, seed])
    with jobs.open_store(run, work, json) as store:
        measure = partial(measure_likelihood, others=others, seed=seed)
        jobs.measure_shared(measure, parts, load, source, store, store.missing(n), workers)
        found = summarise_likelihood(store, n, parts.sampling.order)
    table = Table(title=f"{model} on {benchmark.name}")
    table.add_column("figure")
    table.add_column(Path(model).name, justify="right")
    for name, (label, digits) in SHOWN.items():
        if found.figures[name] is not None:
            table.add_row(label, number(found.figures[name], f".{digits}f", found.intervals[name]))
    Console().print(table)
    print(f"n = {n}, {found.others} other captions, order {found.order}, benchmark sha256 {source.sha256}")
    print("in brackets: 95 % intervals over the photos; bits compare models of the same tokenizer only")
    if json is not None:
        setting = {"model": model, "benchmark": benchmark.name, "benchmark_sha256": source.sha256, "seed": seed}
        write_report(json, {**setting, **found.as_json(), "command": command_line()})
