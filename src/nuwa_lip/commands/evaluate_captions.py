"""`nuwa-lip evaluate captions`: whether what is painted is what the caption asks for."""

from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from nuwa_lip.baselines import methods
from nuwa_lip.commands.options import Operand, Paths, check_least, check_reports
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem, read_benchmark
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import captions as asking
from nuwa_lip.evaluation import job as jobs
from nuwa_lip.evaluation.report import command_line, write_report
from nuwa_lip.images.sheets import draw_sheet, show_hole
from nuwa_lip.pipeline import InpaintPipeline

PER_CLASS = 250
"""Photos of each class that the classifier is fitted to."""
SHEET_ROWS = 12


def captions(
    benchmark: Operand,
    *,
    model: str,
    ask: Literal["colours", "classes"] = "colours",
    photos: Paths = (),
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    json: Path | None = None,
    sheet: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    work: Path | None = None,
) -> None:
    """Measure how often what is painted is what the caption asks for.

    Colours: each hole is repainted from one seed as red, yellow, white, purple, pink and blue, in the words of the
    photo's own caption; of the six results, the one asked for a colour should hold most of it. Classes: each hole is
    repainted as one of the benchmark's captions, drawn by chance; a classifier should name that one from the hole.

    Example: nuwa-lip evaluate captions benchmarks/flowers --model nuwa-lip-mini --sheet colours.png

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        model: Bundled name, local folder or hub id of a complete model.
        ask: What the captions ask for.
        photos: For classes: shards of captioned photos of the same classes, which the classifier is fitted to.
        guidance_scale: How closely captions are followed, if not as the model says.
        num_inference_steps: Parallel steps of the sampling, if not as the model says.
        json: Where to write the figures.
        sheet: Where to write a PNG with the first results.
        limit: Use only the first so many photos.
        seed: Of the sampling, to which the photo's number is added, and of the choice of classes.
        work: Keep what was measured of each photo in this folder.
    """
    if ask == "classes" and not photos:
        raise InputError("--ask classes needs --photos: shards of the same classes that the classifier is fitted to")
    check_least(1, limit=limit)
    check_reports(sheet)
    source = read_benchmark(benchmark)
    n = len(source) if limit is None else min(limit, len(source))
    kept: list[tuple[list[Image.Image], str]] = []
    options = {"guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps}
    paint = _painter(model, options, seed, kept)
    run = jobs.run_of(model, source, captions=[ask, seed, options])
    with jobs.open_store(run, work, json) as store:
        if ask == "colours":
            asking.ask_for_colours(paint, source, range(n), store)
            found = asking.summarise_colours(store, n)
        else:
            found = _classes(paint, source, n, photos, seed)
    chance = 1 / len(found.each)
    low, high = found.interval
    print(f"{model} on {benchmark.name}: {found.share:.3f} [{low:.3f}, {high:.3f}] right of what was asked for")
    print(", ".join(f"{name} {share:.2f}" for name, share in found.each.items()))
    print(f"n = {found.n} photos, chance {chance:.3f}, 95 % interval over the photos, sha256 {source.sha256}")
    if sheet is not None:
        _draw(kept, len(asking.COLOURS) if ask == "colours" else 1, sheet)
    if json is not None:
        setting = {"model": model, "benchmark": benchmark.name, "benchmark_sha256": source.sha256, "seed": seed}
        about = {"ask": ask, **options, "command": command_line()}
        write_report(json, {**setting, **found.as_json(), **about})


def _painter(model: str, options: dict[str, Any], seed: int, kept: list[tuple[list[Image.Image], str]]) -> asking.Paint:
    """The model as a function of photo and caption; what it paints first is kept for the sheet."""
    pipeline = cache(partial(InpaintPipeline.from_pretrained, model))

    def paint(item: BenchmarkItem, caption: str) -> np.ndarray:
        painted = methods.paint(pipeline(), item, caption, seed, **options)
        if len(kept) < SHEET_ROWS * len(asking.COLOURS):
            photo = Image.fromarray(item.image)
            kept.append(([photo, show_hole(photo, item.mask), Image.fromarray(painted)], caption))
        return painted

    return paint


def _classes(paint: asking.Paint, source: Benchmark, n: int, photos: tuple[str, ...], seed: int) -> asking.Obeyed:
    """Ask for a class in each hole, and let a classifier name it from the hole alone."""
    networks = jobs.Weights().networks(())
    asked = asking.asked_classes(source, n, seed)
    features, labels = [], []
    for picture, caption in _examples(photos, source, seed):
        everything = np.ones(picture.shape[:2], dtype=bool)
        features.append(networks.vectors([picture], everything)["squeezenet_hole"][0])
        labels.append(caption)
    classifier = asking.RidgeClassifier(np.stack(features), labels)
    truth = [networks.vectors([item.image], item.mask)["squeezenet_hole"][0] for item in (source[i] for i in range(n))]
    real = np.mean([a == b for a, b in zip(classifier(np.stack(truth)), source.captions[:n], strict=True)])
    print(f"the classifier names {real:.3f} of the true holes rightly (fitted to {len(labels)} photos)")
    found = []
    for i, caption in enumerate(asked):
        item = source[i]
        found.append(networks.vectors([paint(item, caption)], item.mask)["squeezenet_hole"][0])
    return asking.summarise_classes(classifier(np.stack(found)), asked)


def _examples(photos: tuple[str, ...], source: Benchmark, seed: int) -> list[tuple[np.ndarray, str]]:
    """Photos of the benchmark's captions, at most `PER_CLASS` of each."""
    loaded = PhotoSet.load(photos, source[0].image.shape[0], workers=1)
    counts = dict.fromkeys(set(source.captions), 0)
    found = []
    for i in np.random.default_rng(seed).permutation(len(loaded)).tolist():
        caption = next(iter(loaded.captions[i]), "")
        if counts.get(caption, PER_CLASS) < PER_CLASS:
            counts[caption] += 1
            found.append((loaded.images[i].permute(1, 2, 0).numpy(), caption))
    if min(counts.values()) == 0:
        missing = min(counts, key=lambda caption: counts[caption])
        raise InputError(f"no photo of --photos has the caption {missing!r}, which the benchmark has")
    return found


def _draw(kept: list[tuple[list[Image.Image], str]], together: int, path: Path) -> None:
    """A sheet of photo, hole and results; `together` results of a photo share a row."""
    rows = []
    for first in range(0, len(kept), together):
        group = kept[first : first + together]
        pictures = [*group[0][0][:2], *(pictures[2] for pictures, _ in group)]
        rows.append((pictures, " / ".join(caption for _, caption in group)))
    draw_sheet(rows[:SHEET_ROWS], cell=144).save(path)
