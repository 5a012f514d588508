"""`nuwa-lip bench tokenizer` and `nuwa-lip bench inpaint`: speed and memory on this machine's CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from nuwa_lip.bench.measure import Row, as_json, machine, markdown
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.report import write_json


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
    stage: str, rows: list[Row], notes: dict[str, object], json_file: Path | None, markdown_file: Path | None
) -> None:
    table = markdown(rows)
    print(table, end="")
    if json_file is not None:
        write_json(as_json(stage, rows, notes), json_file)
    if markdown_file is not None:
        markdown_file.write_text(table, encoding="utf-8")
