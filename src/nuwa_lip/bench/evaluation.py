"""Measuring quality: how fast benchmarks are built, and time and memory of evaluating finished photos.

Photos are noisy copies of a bundled one, of the size that published photos have. The finished ones, whose holes are
blurred, are evaluated by the command with the bundled networks, in a fresh process.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

from PIL import Image, ImageFilter

from nuwa_lip.bench.inpaint import COMMAND
from nuwa_lip.bench.loading import rate, samples
from nuwa_lip.bench.measure import Row, child, timing, timings
from nuwa_lip.bench.sizes import Bench
from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.masks import RULE_KINDS
from nuwa_lip.data.objects import OBJECT_KINDS
from nuwa_lip.data.shards import write_shards
from nuwa_lip.data.sources import open_source
from nuwa_lip.images.png import write_png

RULES = tuple(f"{kind}-40-60" for kind in RULE_KINDS if kind not in OBJECT_KINDS)
"""Rules that need no annotated objects."""
WORKERS = 2
BUILD_BAR = 60.0
"""Least number of photos that are cut, masked and written in a second of CPU time."""
TIME_BAR = 240.0
"""Seconds for the official number of pairs."""
MEMORY_BAR = 2000.0
"""MB of all processes that evaluate these."""


def measure_evaluation(bench: Bench) -> list[Row]:
    """Measure building a benchmark by each rule, then evaluating."""
    return _building(bench) + _evaluating(bench)


def _building(bench: Bench) -> list[Row]:
    """Measure building benchmarks of centre squares from shards of JPEGs, as `nuwa-lip data benchmark` does."""
    sizes = bench.sizes
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(samples(sizes.photos, sizes.photo_size), Path(folder))
        cases = {rule: partial(_build, shards, rule, sizes.dfvqgan.resolution) for rule in RULES}
        found = timings(cases, bench.rounds, clock=time.process_time)  # that counts all threads, which share the work
    bar = None if sizes.small else BUILD_BAR
    return [
        rate(f"building a benchmark, {rule}, in a CPU second", seconds, sizes.photos, bar)
        for rule, seconds in found.items()
    ]


def _build(shards: list[Path], rule: str, side: int) -> None:
    """Make a benchmark of photos of `side` pixels by a mask rule, and remove it."""
    with tempfile.TemporaryDirectory() as folder:
        photos = open_source(shards, side)
        build_benchmark(photos, source="shards", rule=rule, seed=0, out=Path(folder) / "benchmark", size=side)


def _evaluating(bench: Bench) -> list[Row]:
    """Measure `nuwa-lip evaluate images --results` on finished photos: time, and the sum of its processes' peaks."""
    sizes = bench.sizes
    with tempfile.TemporaryDirectory() as folder:
        out, results = Path(folder) / "benchmark", Path(folder) / "results"
        photos, side = samples(sizes.pairs, sizes.photo_size), sizes.dfvqgan.resolution
        _finish(build_benchmark(photos, source="photos", rule=RULES[0], seed=0, out=out, size=side), results)
        words = ("evaluate", "images", str(out), "--results", str(results), "--workers", str(WORKERS))
        done = [child(COMMAND, *words, workers=True) for _ in range(max(1, bench.rounds // 2))]
    took, peak = timing([one.seconds for one in done]), max(one.peak_mb for one in done)
    what = f"evaluating {sizes.pairs} finished photos, {WORKERS} processes"
    bars = (None, None) if sizes.small else (TIME_BAR, MEMORY_BAR)
    return [
        Row(what, took.seconds, "s", bar=bars[0], noise=took.noise),
        Row(f"{what}, sum of their peaks", peak, "MB", bar=bars[1]),
    ]


def _finish(benchmark: Benchmark, results: Path) -> None:
    """Write each photo of a benchmark with its hole blurred."""
    results.mkdir()
    for item in benchmark:
        photo, hole = Image.fromarray(item.image), Image.fromarray(item.mask)
        photo.paste(photo.filter(ImageFilter.GaussianBlur(4)), mask=hole)
        write_png(photo, results / f"{item.name}.png")
