"""`nuwa-lip evaluate images`: measure a model, a folder of results, or a classic on a benchmark folder.

`nuwa-lip evaluate tokenizer`: measure a DF-VQGAN or a VQGAN alone (the figures of Tables 2 and 3).
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from nuwa_lip.baselines import registry
from nuwa_lip.baselines.glide.folder import is_glide
from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.commands.evaluate_cluster import measure_on_cluster
from nuwa_lip.commands.options import Operand, check_least, check_reports
from nuwa_lip.data.benchmark import Benchmark, read_benchmark
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation import job as jobs
from nuwa_lip.evaluation import report
from nuwa_lip.evaluation.encodings import Encoders, Encoding, summarise_encodings
from nuwa_lip.evaluation.encodings import measure as measure_encodings
from nuwa_lip.evaluation.group import group_size, joined_group
from nuwa_lip.evaluation.images import parse_extras, summarise
from nuwa_lip.evaluation.tokenizers import load_tokenizer, summarise_tokenizer
from nuwa_lip.evaluation.tokenizers import measure as measure_tokenizer
from nuwa_lip.hub import read_sampling


def images(
    benchmark: Operand,
    *,
    model: str | None = None,
    results: Path | None = None,
    unpasted: bool = False,
    blend: Literal["on", "off"] | None = None,
    baseline: Literal["telea", "navier-stokes", "glide", "amused", "stable-diffusion", "lama"] | None = None,
    baseline_model: str | None = None,
    baseline_steps: int | None = None,
    baseline_guidance: float | None = None,
    json: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    best_of: int = 1,
    rank: Literal["likelihood", "clip"] = "likelihood",
    sheet: Path | None = None,
    save_images: Path | None = None,
    save_baseline: Path | None = None,
    metrics: str = "",
    inception: Path | None = None,
    vgg: Path | None = None,
    lite: Path | None = None,
    clip: str = "openai/clip-vit-base-patch32",
    download: bool = False,
    work: Path | None = None,
    workers: int = 1,
    shard: str | None = None,
    cluster: bool = False,
) -> None:
    """Measure repainted photos against the originals of a benchmark folder.

    Give --model, or --results, or --baseline; with --baseline beside one of the others, both are measured in
    one pass and shown side by side. A run that was stopped goes on where it was when it is started again with
    the same --json or --work.

    Example: nuwa-lip evaluate images benchmarks/test --model nuwa-lip-mini --baseline telea --json out.json

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        model: Bundled name, local folder or hub id; photo i is repainted with seed + i.
        results: Folder of pictures NNNNN.png made elsewhere.
        unpasted: Measure the model's whole picture, known pixels as it gives them (the paper's NÜWA).
        blend: Fit the model's colours at the hole's edge, which is not of the paper; otherwise as the model says.
        baseline: OpenCV's inpainting (needs the extra `evaluate`), or another's model (the extra `baselines`).
        baseline_model: Its weights: for glide a folder of `train glide` or with the published files, for lama the
            file; for amused and stable-diffusion a folder or hub id, if not the usual one.
        baseline_steps: Steps of its sampling.
        baseline_guidance: Its classifier-free guidance, 1 for none.
        json: Where to write the figures.
        limit: Use only the first N photos.
        seed: Of the model's sampling and of the sheet's choice.
        best_of: Repaint every photo N times and measure the best.
        rank: What is best: the model's likelihood, or CLIP's similarity to the caption.
        sheet: Where to write a PNG with 24 random rows: photo, hole, result(s), caption.
        save_images: Keep the model's pictures in this folder; a run that was stopped goes on from them.
        save_baseline: The same for the baseline's pictures; --results and `evaluate human make` read both folders.
        metrics: More figures, with commas: fid, kid, lpips, clip, clip-hole (of the hole's crop), which need the extra
            `evaluate` and weights, fed, known (error of the known part, as BrushBench's tables have it), and detail
            (sharpness of the hole and visibility of its border, over those of the true photo).
        inception: Weights for fid and kid, safetensors or .pth; otherwise from torch's cache.
        vgg: Weights for lpips, safetensors or .pth; otherwise from the hub's or torch's cache.
        lite: Weights for fed, EfficientNet-Lite0's as timm names them; otherwise from the hub's or torch's cache.
        clip: Weights for clip: a folder, or a hub id in the local cache.
        download: Fetch weights that are missing.
        work: Keep what was measured of each photo in this folder; several processes may share it.
        workers: Processes that measure together.
        shard: Such as 2/4: measure the second quarter of the photos into --work, and report nothing yet.
        cluster: Share the photos among the processes of a Ray cluster, one for each device: of that which RAY_ADDRESS
            names, else of one that is started on this machine (needs the extra `cluster`).
    """
    if model is not None and results is not None:
        raise InputError("--model and --results exclude each other; give one of them")
    for given, what in (
        (save_images is not None, "--save-images keeps a model's pictures"),
        (best_of > 1, "--best-of chooses among a model's candidates"),
        (unpasted, "--unpasted measures a model's whole picture"),
        (blend is not None, "--blend is for a model's pictures"),
    ):
        if given and model is None:
            raise InputError(f"{what}; give --model")
    if save_baseline is not None and baseline is None:
        raise InputError("--save-baseline keeps a baseline's pictures; give --baseline")
    check_least(0, seed=seed)
    check_least(1, best_of=best_of, workers=workers)
    check_least(2, limit=limit)
    part, parts = jobs.parse_shard(shard, work)
    if cluster and (workers > 1 or shard is not None):
        raise InputError("--cluster shares the photos among its own processes: leave --workers and --shard out")
    if (cluster or shard is not None) and group_size() > 1:
        raise InputError("torchrun shares the photos among its processes: leave --cluster and --shard out")
    if model is not None and is_glide(model):
        raise InputError(f"--model {model} is a GLIDE: give it as --baseline glide --baseline-model {model}")
    options = BaselineOptions(
        model=baseline_model, steps=baseline_steps, guidance=baseline_guidance, seed=seed, download=download
    )
    registry.check(baseline, options)
    check_reports(sheet)
    source, extras = read_benchmark(benchmark), parse_extras(metrics)
    n = jobs.count_photos(source, limit, extras)
    job = jobs.Job(
        benchmark=benchmark,
        model=model,
        results=results,
        baseline=baseline,
        baseline_options=options,
        unpasted=unpasted,
        blend=None if blend is None else blend == "on",
        seed=seed,
        best_of=best_of,
        rank=rank,
        save_images=save_images,
        save_baseline=save_baseline,
        extras=extras,
        weights=jobs.Weights(inception=inception, vgg=vgg, lite=lite, clip=clip, download=download),
    )
    with joined_group() as group, group.open_store(job.describe(source), work, json) as store:
        if shard is not None:
            jobs.measure(job, source, store, range(part, n, parts))
            print(f"part {shard} of {n} photos is in {work}; the report comes without --shard")
            return
        drawn = report.Sheet(n, seed=seed) if sheet else None
        if cluster:
            measure_on_cluster(job, source, store, range(n))
        else:
            watch = drawn.watch if drawn else None
            jobs.measure(job, source, store, group.share(range(n)), workers=workers, watch=watch)
        group.wait(store, n)
        if group.rank:
            return
        figures = summarise(store, n, job.names(), extras)
        setting = _setting(job, source, n)
        Console().print(report.table(figures, f"{benchmark.name}: n = {n}, sha256 {source.sha256[:12]}"))
        print("\n".join(report.describe(setting, n)))
        if baseline in registry.NAMES:
            print(f"{baseline}: {options}")
        if json is not None:
            main, *others = figures
            content = {
                "method": main,
                **setting,
                **figures[main].as_json(),
                "compared": {name: figures[name].as_json() for name in others},
                "command": report.command_line(),
            }
            report.write_report(json, content)
    if drawn is not None and sheet is not None:
        drawn.complete(job.repaints(source) if drawn.missing else {}, source)
        drawn.save(sheet)


def tokenizer(
    benchmark: Operand,
    *,
    model: str,
    json: Path | None = None,
    encodings: list[Encoding] | None = None,
    limit: int | None = None,
    metrics: str = "",
    lite: Path | None = None,
    work: Path | None = None,
    workers: int = 1,
) -> None:
    """Measure a tokenizer: reconstruction, oracle inpainting, average distance, what a hole does to known tokens.

    With --encodings, compare ways of encoding a photo with a hole by weights that were trained on whole photos.
    A run that was stopped goes on where it was when it is started again with the same --work.

    Example: nuwa-lip evaluate tokenizer benchmarks/test --model runs/dfvqgan/model --json dfvqgan.json

    Example: nuwa-lip evaluate tokenizer benchmarks/test --model vq16 --encodings defect-free zero partial filled

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        model: Bundled name, local folder or hub id of a model, stage 1 being enough.
        json: Where to write the figures.
        encodings: Measure these instead: defect-free (ours), zero (in the hole), partial (convolutions), filled
            (smoothly from the hole's edge). How many known codes are those of the complete photo, and what becomes of
            the known pixels beside the hole.
        limit: Use only the first N photos.
        metrics: More figures, with commas: fid, kid, lpips, clip, fed; their weights come from caches, or by --lite.
        lite: Weights for fed, EfficientNet-Lite0's as timm names them.
        work: Keep what was measured of each photo in this folder.
        workers: Processes that measure together.
    """
    check_least(2, limit=limit)
    check_least(1, workers=workers)
    source, extras, weights = read_benchmark(benchmark), parse_extras(metrics), jobs.Weights(lite=lite)
    n = jobs.count_photos(source, limit, extras)
    if encodings is not None:
        if extras:
            raise InputError("--metrics are of whole pictures, and --encodings looks at codes: leave one of them out")
        return _encodings(model, source, n, encodings, json, work, workers)
    asked = {"metrics": sorted(extras), **weights.describe(extras)} if extras else {}
    load = partial(load_tokenizer, model)
    dfvqgan = load()
    setting = {
        "model": model,
        "benchmark": benchmark.name,
        "benchmark_sha256": source.sha256,
        "side": dfvqgan.config.resolution,
        "n": n,
    }
    with jobs.open_store(jobs.run_of(model, source, **asked), work, json) as store:
        measure = partial(measure_tokenizer, extras=extras, weights=weights)
        jobs.measure_shared(measure, dfvqgan, load, source, store, store.missing(n), workers)
        figures = summarise_tokenizer(store, n, dfvqgan.config.codebook_size, extras)
    Console().print(report.table(figures.photos, f"{model} on {benchmark.name}"))
    print("\n".join(report.describe_tokenizer(figures, setting)))
    if json is not None:
        report.write_report(json, {**setting, **figures.as_json(), "command": report.command_line()})


def _encodings(
    model: str, source: Benchmark, n: int, names: list[Encoding], json: Path | None, work: Path | None, workers: int
) -> None:
    """Measure ways of encoding, and report on them.

    Args:
        model, json, work, workers: as for `tokenizer`.
        source: the benchmark.
        n: number of photos.
        names: of the ways.
    """
    load = partial(Encoders.load, model, names)
    encoders = load()
    run = {**jobs.run_of(model, source), "encodings": list(encoders.names)}
    with jobs.open_store(run, work, json) as store:
        jobs.measure_shared(measure_encodings, encoders, load, source, store, store.missing(n), workers)
        figures, common = summarise_encodings(store, n, encoders.names)
    side = encoders.model.config.resolution
    setting = {"model": model, "benchmark": source.folder.name, "benchmark_sha256": source.sha256, "side": side, "n": n}
    print("\n".join(report.describe_encodings(figures, common, setting)))
    if json is not None:
        report.write_report(json, {**setting, **common, "encodings": figures, "command": report.command_line()})


def _setting(job: jobs.Job, source: Benchmark, n: int) -> dict[str, Any]:
    """Describe the setting, for the report."""
    return {
        "model": job.model,
        **({"unpasted": True} if job.unpasted else {}),
        **({"baseline_options": dataclasses.asdict(job.baseline_options)} if job.baseline in registry.NAMES else {}),
        "seed": job.seed,
        "seeds": None if job.model is None else [job.seed, job.seed + n - 1],
        "best_of": None if job.model is None else job.best_of,
        "rank": job.rank if job.best_of > 1 else None,
        "blend": None if job.model is None else read_sampling(job.model).blend if job.blend is None else job.blend,
        "benchmark": job.benchmark.name,
        "benchmark_sha256": source.sha256,
        "resize": job.resize(),
    }
