"""Small benchmarks of the bundled photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shards import Sample

Crop = tuple[int, int, int, int]
"""left, top, right, bottom."""


def demo_benchmark(out: Path, crops: Mapping[str, Crop | None]) -> Benchmark:
    """Bundled photos with rectangles as holes, each cut to its crop; None: whole."""
    photos = {name: Image.open(asset(f"demo/photos/{name}.jpg")).convert("RGB") for name in crops}
    samples = [
        Sample(key=name, image=photo.crop(crops[name]), captions=[f"a photo of {name}"], meta={})
        for name, photo in photos.items()
    ]
    return build_benchmark(samples, source="demo", rule="rectangles-40-60", seed=0, out=out)
