"""`nuwa-lip bench`, on this machine's CPU or GPU; `bench growth`, `bench tokenizer`, `bench inpaint`, on the CPU.

`nuwa-lip bench steps`: what parallel steps cost in quality.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import track

from nuwa_lip.bench.measure import CPU, Row, as_json, machine, markdown
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.images import check_extras
from nuwa_lip.evaluation.report import command_line, write_json, write_text
from nuwa_lip.images.files import check_writable

STAGES = "limits,tokenizer,encoders,step,image,memory,quality,training,data,evaluation"


def bench(
    *,
    stages: str = STAGES,
    rounds: int = 5,
    threads: int | None = None,
    device: str = "cpu",
    small: bool = False,
    compare: Path | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Everything in one run at the official dimensions, as ratios to peers and to this machine's own limits.

    Takes about an hour and 12 GB on two cores. Peers that are not installed are skipped with a line. There are
    `nuwa-lip bench growth`, `bench steps`, `bench tokenizer` and `bench inpaint` besides, each with --help.

    Example: nuwa-lip bench --stages limits,step --json bench.json --compare before.json

    Args:
        stages: Which, with commas between: limits, tokenizer, encoders, step, image, memory, quality, training, data,
            evaluation.
        rounds: Interleaved repeats; medians are reported. What takes minutes is repeated half as often.
        threads: Of torch; as many as it chooses by default.
        device: What to measure: cpu, or cuda for a GPU, of which data and evaluation are left out.
        small: Tiny sizes, to see that everything runs; the figures mean nothing.
        compare: A file that --json has written on the same machine with the same threads, torch and sizes: say what
            changed beyond noise.
        json: Where to write the figures.
        markdown: Where to write the tables, which are printed in any case.
    """
    from nuwa_lip.bench import compare as comparison
    from nuwa_lip.bench import stages as all_stages

    chosen, where = all_stages.choose(stages), _device(device)
    notes = {**_prepare(rounds, threads, json, markdown, device=where), **all_stages.settings(small, where)}
    # a file that cannot be compared with is told before the work
    before = None if compare is None else comparison.read(compare, notes)
    found, skipped = all_stages.run(chosen, rounds, small=small, device=where)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    rows = [row for stage in found.values() for row in stage]
    _report("all", rows, {**notes, "stages": chosen, "skipped": skipped}, json, markdown, found)
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
    found = curves.run(rounds, small, memory=not small)
    rows = [row for part in found.values() for row in part]
    _report("growth", rows, {**notes, "small": small}, json, markdown, found)


def tokenizer(
    *, rounds: int = 5, threads: int | None = None, json: Path | None = None, markdown: Path | None = None
) -> None:
    """Encoding at paper size: defect-free against plain, plain against diffusers' VQModel if installed.

    Example: nuwa-lip bench tokenizer --json bench.json

    Args:
        rounds: Interleaved repeats; medians are reported.
        threads: Of torch; as many as it chooses by default.
        json: Where to write the figures.
        markdown: Where to write the table, which is printed in any case.
    """
    from nuwa_lip.bench import tokenizer as stage

    notes = _prepare(rounds, threads, json, markdown)
    rows, skipped = stage.run(rounds)
    for line in skipped:
        print(line, file=sys.stderr)
    _report("tokenizer", rows, {**notes, "skipped": skipped}, json, markdown)


def inpaint(
    *,
    model: str = "nuwa-lip-mini",
    rounds: int = 3,
    threads: int | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Repainting: the model's own work, the whole command, and a 24-megapixel photo with a small hole.

    Example: nuwa-lip bench inpaint --model nuwa-lip-mini --markdown bench.md

    Args:
        model: Bundled name, local folder or hub id.
        rounds: Interleaved repeats; medians are reported.
        threads: Of torch, for the model's own work; as many as it chooses by default.
        json: Where to write the figures.
        markdown: Where to write the table, which is printed in any case.
    """
    from nuwa_lip.bench import inpaint as stage

    notes = _prepare(rounds, threads, json, markdown)
    _report("inpaint", stage.run(model, rounds), {**notes, "model": model}, json, markdown)


def steps(
    benchmark: Annotated[Path, tyro.conf.Positional],
    *,
    model: str = "nuwa-lip-mini",
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
        limit: Use only the first so many photos.
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
    _check_steps(limit, seed, work, shard)
    _check_reports(json, markdown)
    part, parts = (0, 1) if shard is None else jobs.parse_shard(shard)
    source = read_benchmark(benchmark)
    n = len(source) if limit is None else min(limit, len(source))
    check_extras((), n)
    pipe = curve.Paced.from_pretrained(model)
    how = {"order": order or pipe.sampling.order, "schedule": schedule or pipe.sampling.schedule}
    setting = {"model": model, **how, "seed": seed}
    setting |= {"benchmark": benchmark.name, "benchmark_sha256": source.sha256, "n": n}
    run = {"definitions": jobs.DEFINITIONS, "weights": jobs.fingerprint(model), "benchmark_sha256": source.sha256}
    run |= {"steps": [chosen, *how.values(), seed], "rows": "of groups"}  # older ones ran every token twice
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


def _check_steps(limit: int | None, seed: int, work: Path | None, shard: str | None) -> None:
    for option, number, least in (("--limit", limit, 2), ("--seed", seed, 0)):
        if number is not None and number < least:
            raise InputError(f"{option} {number} is too small: {least} at least")
    if shard is not None and work is None:
        raise InputError("--shard needs --work DIR, the folder that all parts share")


def _numbers(text: str) -> list[int]:
    """ "1,2,4" → [1, 2, 4], rising, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--tokens {text!r} is not numbers from 1 on with commas between, like 1,2,4,8")
    return sorted({int(word) for word in words})


def _device(name: str) -> torch.device:
    """One that can be measured.

    Raises:
        InputError: it is none, or not here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise InputError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name} cannot be measured: take cpu or cuda")
    return device


def _prepare(rounds: int, threads: int | None, *reports: Path | None, device: torch.device = CPU) -> dict[str, object]:
    if rounds < 1:
        raise InputError(f"--rounds {rounds} is too small: 1 at least")
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads} is too small: 1 at least")
        torch.set_num_threads(threads)
    _check_reports(*reports)
    return machine(device)


def _check_reports(*reports: Path | None) -> None:
    for report in reports:
        if report is not None:
            check_writable(report)


def _report(
    stage: str,
    rows: list[Row],
    notes: dict[str, object],
    json_file: Path | None,
    markdown_file: Path | None,
    sections: Mapping[str, list[Row]] | None = None,
) -> None:
    table = markdown(rows)
    if sections is not None:
        table = "\n".join(f"## {name}\n\n{markdown(part)}" for name, part in sections.items())
    _write(table, as_json(stage, rows, notes), json_file, markdown_file)


def _write(text: str, found: dict[str, Any], json_file: Path | None, markdown_file: Path | None) -> None:
    print(text, end="")
    if json_file is not None:
        write_json(found, json_file)
    if markdown_file is not None:
        write_text(text, markdown_file)
