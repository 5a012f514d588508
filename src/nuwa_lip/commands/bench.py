"""`nuwa-lip bench` on this machine's CPU or GPU, `bench growth` on the CPU, and `bench steps`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track

from nuwa_lip.bench.measure import CPU, Row, as_json, machine, markdown
from nuwa_lip.bench.sizes import MODEL
from nuwa_lip.commands.options import Operand, check_least, check_reports
from nuwa_lip.disk import write_text
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.evaluation.report import command_line, write_report


def bench(
    *,
    stages: str = "all",
    rounds: int = 5,
    threads: int | None = None,
    device: str = "cpu",
    model: str = MODEL,
    small: bool = False,
    compare: Path | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Everything in one run at the official dimensions, as ratios to peers and to this machine's own limits.

    Takes about an hour and 12 GB on two cores. Peers that are not installed are skipped with a line. See also
    `nuwa-lip bench growth` and `bench steps`.

    Example: nuwa-lip bench --stages limits,step --json bench.json --compare before.json

    Args:
        stages: Which, with commas between: limits, tokenizer, encoders, step, image, inpaint, memory, painters,
            quality, training, data, evaluation.
        rounds: Interleaved repeats; medians are reported. What takes minutes is repeated half as often.
        threads: Of torch; as many as it chooses by default.
        device: What to measure: cpu, or cuda for a GPU, without inpaint, painters, data and evaluation.
        model: What the stage inpaint repaints with: bundled name, local folder or hub id.
        small: Tiny sizes, to see that everything runs; the figures mean nothing.
        compare: A file that --json has written on the same machine with the same threads, torch and sizes: report
            what changed beyond noise.
        json: Where to write the figures.
        markdown: Where to write the tables, which are printed in any case.
    """
    from nuwa_lip.bench import compare as comparison
    from nuwa_lip.bench import stages as all_stages

    chosen, where = all_stages.choose(stages), _device(device)
    notes = {**_prepare(rounds, threads, json, markdown, device=where), **all_stages.settings(small, where)}
    before = None if compare is None else comparison.read(compare, notes)  # fail before the work
    found, skipped = all_stages.measure_stages(chosen, rounds, small=small, device=where, model=model)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    rows = [row for stage in found.values() for row in stage]
    _report("all", found, {**notes, "stages": chosen, "model": model, "skipped": skipped}, json, markdown)
    if compare is not None and before is not None:
        print(comparison.report(compare, before, rows))


def growth(
    *,
    rounds: int = 3,
    threads: int | None = None,
    small: bool = False,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Time and memory against defective tokens, image size, candidates, model size, and photos of up to 100 megapixels.

    Each with a fit. Photos have a hole of fixed size; what counts is beyond reading and writing them.

    Example: nuwa-lip bench growth --json growth.json

    Args:
        rounds: Interleaved repeats; medians are reported.
        threads: Of torch; as many as it chooses by default.
        small: Tiny sizes and no memory, to see that everything runs.
        json: Where to write the figures.
        markdown: Where to write the table, which is printed in any case.
    """
    from nuwa_lip.bench import growth as curves

    notes = _prepare(rounds, threads, json, markdown)
    _report("growth", curves.measure_growth(rounds, small, memory=not small), {**notes, "small": small}, json, markdown)


def steps(
    benchmark: Operand,
    *,
    model: str = MODEL,
    tokens: str = "1,2,4,8,16",
    order: Literal["raster", "random", "border"] | None = None,
    schedule: Literal["cosine", "constant", "confidence"] | None = None,
    limit: int | None = None,
    seed: int = 0,
    work: Path | None = None,
    shard: str | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Quality against parallel steps: every photo with 1, 2, 4, ... tokens a step, compared in pairs.

    A run that was stopped goes on where it was when it is started again with the same --json or --work.

    Example: nuwa-lip bench steps benchmarks/test --model nuwa-lip-mini --json steps.json

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        model: Bundled name, local folder or hub id of a complete model.
        tokens: How many tokens a step decides on average, with commas between; all are compared with the least.
        order: Of decoding, with --schedule confidence among equals only; as the model says by default.
        schedule: How the steps share the tokens: few at first, as many in each, or those of which the model is surest;
            as the model says by default.
        limit: Use only the first N photos.
        seed: Photo i is repainted with seed + i.
        work: Keep what was measured of each photo in this folder; several processes may share it.
        shard: Such as 2/4: measure the second quarter of the photos into --work, and report nothing yet.
        json: Where to write the figures.
        markdown: Where to write the table, which is printed in any case.
    """
    from nuwa_lip.data.benchmark import read_benchmark
    from nuwa_lip.evaluation import job as jobs
    from nuwa_lip.evaluation import steps as curve

    chosen = _numbers(tokens)
    check_least(2, limit=limit)
    check_least(0, seed=seed)
    part, parts = jobs.parse_shard(shard, work)
    check_reports(json, markdown)
    source = read_benchmark(benchmark)
    n = jobs.count_photos(source, limit)
    pipe = curve.Paced.from_pretrained(model)
    how = {"order": order or pipe.sampling.order, "schedule": schedule or pipe.sampling.schedule}
    setting = {"model": model, **how, "seed": seed}
    setting |= {"benchmark": benchmark.name, "benchmark_sha256": source.sha256, "n": n}
    # older ones ran every token twice
    run = jobs.run_of(model, source, steps=[chosen, *how.values(), seed], rows="of groups")
    with jobs.open_store(run, work, json) as store:
        items = track(range(part, n, parts), "measuring", console=Console(stderr=True), transient=True)
        networks = jobs.Weights().networks(())
        curve.measure(pipe, source, networks, store, items, tokens_per_step=chosen, seed=seed, **how)
        if shard is not None:
            print(f"part {shard} of {n} photos is in {work}; the report comes without --shard")
            return
        points = curve.summarise_steps(store, n, chosen)
    text = curve.table(points) + "\n" + "\n".join(curve.describe(setting, chosen[0])) + "\n"
    found = {**setting, "points": [point.as_json() for point in points], "command": command_line()}
    _write(text, found, json, markdown)


def _numbers(text: str) -> list[int]:
    """Read "1,2,4" as [1, 2, 4]: rising, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--tokens {text!r} is not numbers from 1 on with commas between, like 1,2,4,8")
    return sorted({int(word) for word in words})


def _device(name: str) -> torch.device:
    """A device that can be measured.

    Raises:
        InputError: torch knows no such device, or it is not here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise InputError(f"--device {name} cannot be used: {first_line(error)}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name} cannot be measured: take cpu or cuda")
    return device


def _prepare(rounds: int, threads: int | None, *reports: Path | None, device: torch.device = CPU) -> dict[str, object]:
    """Check the options, set the number of threads, and describe the machine."""
    check_least(1, rounds=rounds, threads=threads)
    if threads is not None:
        torch.set_num_threads(threads)
    check_reports(*reports)
    return machine(device)


def _report(stage: str, sections: Mapping[str, list[Row]], notes: dict[str, object], *files: Path | None) -> None:
    """Print the rows, a table a section, and write them."""
    table = "\n".join(f"## {name}\n\n{markdown(rows)}" for name, rows in sections.items())
    _write(table, as_json(stage, [row for rows in sections.values() for row in rows], notes), *files)


def _write(text: str, found: dict[str, Any], json: Path | None, markdown_: Path | None) -> None:
    print(text, end="")
    if json is not None:
        write_report(json, found)
    if markdown_ is not None:
        write_text(markdown_, text)
