"""`nuwa-lip bench`, `bench growth`, `bench tokenizer`, `bench inpaint`: speed and memory on this machine's CPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from nuwa_lip.bench.measure import Row, as_json, machine, markdown
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.report import write_json

STAGES = "limits,tokenizer,encoders,step,image,training,data"


def bench(
    *,
    stages: str = STAGES,
    rounds: int = 5,
    threads: int | None = None,
    small: bool = False,
    compare: Path | None = None,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Everything in one run at the official dimensions, as ratios to peers and to this machine's own limits.

    Takes about an hour and 12 GB on two cores. Peers that are not installed are skipped with a line. There are
    `nuwa-lip bench growth`, `bench tokenizer` and `bench inpaint` besides, each with --help.

    Example: nuwa-lip bench --stages limits,step --json bench.json --compare before.json

    Args:
        stages: Which, with commas between: limits, tokenizer, encoders, step, image, training, data.
        rounds: Interleaved repeats; medians are reported. What takes minutes is repeated half as often.
        threads: Of torch; as many as it chooses by default.
        small: Tiny sizes, to see that everything runs; the figures mean nothing.
        compare: A file that --json has written: say what changed beyond noise.
        json: Where to write the figures.
        markdown: Where to write the tables, which are printed in any case.
    """
    from nuwa_lip.bench import compare as comparison
    from nuwa_lip.bench import stages as all_stages

    chosen = all_stages.choose(stages)
    if compare is not None:
        comparison.read(compare)  # a wrong file is told before the work
    notes = _prepare(rounds, threads)
    found, skipped = all_stages.run(chosen, rounds, small=small)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    rows = [row for stage in found.values() for row in stage]
    _report("all", rows, {**notes, "stages": chosen, "small": small, "skipped": skipped}, json, markdown, found)
    if compare is not None:
        print(comparison.report(compare, rows))


def growth(
    *,
    rounds: int = 3,
    threads: int | None = None,
    small: bool = False,
    json: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Time and memory against defective tokens, image size, candidates, model size, each with a fit.

    Example: nuwa-lip bench growth --json growth.json

    Args:
        rounds: Interleaved repeats; medians are reported.
        threads: Of torch; as many as it chooses by default.
        small: Tiny sizes and no memory, to see that everything runs.
        json: Where to write the figures.
        markdown: Where to write the table, which is printed in any case.
    """
    from nuwa_lip.bench import growth as curves

    notes = _prepare(rounds, threads)
    rows = curves.run(rounds, small, memory=not small)
    _report("growth", rows, {**notes, "small": small}, json, markdown)


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

    notes = _prepare(rounds, threads)
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

    notes = _prepare(rounds, threads)
    _report("inpaint", stage.run(model, rounds), {**notes, "model": model}, json, markdown)


def _prepare(rounds: int, threads: int | None) -> dict[str, object]:
    if rounds < 1:
        raise InputError(f"--rounds {rounds} is too small: 1 at least")
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads} is too small: 1 at least")
        torch.set_num_threads(threads)
    return machine()


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
    print(table, end="")
    if json_file is not None:
        write_json(as_json(stage, rows, notes), json_file)
    if markdown_file is not None:
        markdown_file.write_text(table, encoding="utf-8")
