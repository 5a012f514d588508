"""A small benchmark of drawn shapes, made once."""

from dataclasses import replace

import pytest

from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shapes import shape_samples


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """Four captioned squares of 40 px, two of them cut to another size."""
    samples = list(shape_samples(4, size=40))
    for i in range(2):
        samples[i] = replace(samples[i], image=samples[i].image.crop((0, 0, 40, 33)))
    out = tmp_path_factory.mktemp("baselines") / "bench"
    return build_benchmark(samples, source="shapes", rule="rectangles-40-60", seed=0, out=out)
