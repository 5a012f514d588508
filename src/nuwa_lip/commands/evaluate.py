"""`nuwa-lip evaluate images`: measure a model, a folder of results, or a classic on a benchmark folder."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file

from nuwa_lip.assets import asset
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import methods, report
from nuwa_lip.evaluation.images import measure
from nuwa_lip.evaluation.methods import Repaint
from nuwa_lip.models.perceptual import squeezenet

PERCEPTUAL = "squeezenet/squeezenet1_1_caffe_fp16.safetensors"


def images(
    benchmark: Annotated[Path, tyro.conf.Positional],
    *,
    model: str | None = None,
    results: Path | None = None,
    baseline: Literal["telea", "navier-stokes"] | None = None,
    json: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    sheet: Path | None = None,
    save_images: Path | None = None,
) -> None:
    """Measure repainted photos against the originals of a benchmark folder.

    Give --model, or --results, or --baseline; with --baseline beside one of the others, both are measured in
    one pass and shown side by side.

    Example: nuwa-lip evaluate images benchmarks/test --model nuwa-lip-mini --baseline telea --json out.json

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        model: Bundled name, local folder or hub id; photo i is repainted with seed + i.
        results: Folder of pictures NNNNN.png made elsewhere.
        baseline: OpenCV's inpainting (needs the extra `evaluate`).
        json: Where to write the figures.
        limit: Use only the first so many photos.
        seed: Of the model's sampling and of the sheet's choice.
        sheet: Where to write a PNG with 24 random rows: photo, hole, result(s), caption.
        save_images: Keep the model's pictures in this folder; a run that was stopped goes on from them.
    """
    if model is not None and results is not None:
        raise InputError("--model and --results exclude each other; give one of them")
    if save_images is not None and model is None:
        raise InputError("--save-images keeps a model's pictures; give --model")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative")
    if limit is not None and limit < 2:
        raise InputError(f"--limit {limit} is too small: 2 photos at least")
    source = read_benchmark(benchmark)
    chosen = _methods(source, model, results, baseline, seed, save_images)
    n = len(source) if limit is None else min(limit, len(source))
    drawn = report.Sheet(n, seed=seed) if sheet else None
    items = track(islice(source, n), "repainting", total=n, console=Console(stderr=True), transient=True)
    figures = measure(items, chosen, squeezenet(load_file(asset(PERCEPTUAL))), drawn.watch if drawn else None)

    Console().print(report.table(figures, f"{benchmark.name}: n = {n}, sha256 {source.sha256[:12]}"))
    if json is not None:
        main, *others = figures
        content: dict[str, Any] = {
            "method": main,
            "model": model,
            "seed": seed,
            "benchmark": benchmark.name,
            "benchmark_sha256": source.sha256,
            **figures[main].as_json(),
            "compared": {name: figures[name].as_json() for name in others},
            "command": " ".join(["nuwa-lip", *sys.argv[1:]]),
        }
        report.write_json(content, json)
    if drawn is not None and sheet is not None:
        drawn.save(sheet)


def _methods(
    source: Benchmark,
    model: str | None,
    results: Path | None,
    baseline: str | None,
    seed: int,
    save_images: Path | None,
) -> dict[str, Repaint]:
    """What is to be measured, the main one first."""
    chosen: dict[str, Repaint] = {}
    if model is not None:
        chosen[Path(model).name] = methods.model(model, seed)
        if save_images is not None:
            run = {"model": model, "seed": seed, "benchmark_sha256": source.sha256}
            chosen[Path(model).name] = methods.kept(chosen[Path(model).name], save_images, run)
    if results is not None:
        chosen[results.name] = methods.results(results)
    if baseline is not None:
        chosen[f"opencv-{baseline}"] = methods.baseline(baseline)
    if not chosen:
        raise InputError("nothing to measure: give --model NAME, --results DIR or --baseline telea")
    return chosen
