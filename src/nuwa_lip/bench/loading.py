"""Reading training data: shards of JPEG against what others read them with, and the token cache."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.bench.measure import Row, Timing, times, timings
from nuwa_lip.bench.sizes import Bench
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.shards import Sample, read_encoded, write_shards
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.data.streamed import StreamedPhotos
from nuwa_lip.training.token_parts import Part
from nuwa_lip.training.tokens import TokenCache, pack_masks

BATCH = 16
TOKEN_BATCH = 64


def measure_loading(bench: Bench) -> list[Row]:
    """Measure photos a second, at the size that training needs."""
    count, size, ours = bench.sizes.photos, bench.sizes.trained_dfvqgan.resolution, "shards into memory, two threads"
    with tempfile.TemporaryDirectory() as folder:
        shards = [str(shard) for shard in write_shards(samples(count, bench.sizes.photo_size), Path(folder))]
        pictures = [sample.picture for sample in read_encoded(shards, Skipped())]
        cases: dict[str, Callable[[], object]] = {
            ours: lambda: PhotoSet.load(shards, size),
            "Pillow, full decoding, one thread": lambda: [_pillow(picture, size) for picture in pictures],
        }
        if importlib.util.find_spec("cv2") is not None:
            cases["OpenCV, full decoding"] = lambda: [_opencv(picture, size) for picture in pictures]
        else:
            bench.skipped.append("opencv is not installed; it is left out (pip install opencv-python-headless)")
        found = timings(cases, bench.rounds)
        streamed = _stream(shards, size, count, bench.rounds)
    rows = [rate(what, t, count) for what, t in {**found, "shards streamed, two workers": streamed}.items()]
    for what, peer in list(found.items())[1:]:
        rows.append(times(f"{what} / {ours}", peer, found[ours]))
    return [*rows, _token_cache(bench)]


def rate(what: str, timing: Timing, count: int, bar: float | None = None) -> Row:
    """State a time as photos a second, which must reach the bar if there is one.

    Args:
        what: the line's name.
        timing: seconds for `count` photos.
        count: photos.
        bar: photos a second.
    """
    value = count / timing.seconds
    return Row(what, value, "photos/s", bar=bar, at_least=bar is not None, noise=timing.noise)


def samples(count: int, size: tuple[int, int]) -> Iterator[Sample]:
    """Yield a bundled photo at another size, with a camera's noise, so that its JPEGs have a photo's size."""
    photo = np.asarray(Image.open(asset("demo/photos/mountains.jpg")).convert("RGB").resize(size), dtype=np.int16)
    rng = np.random.default_rng(0)
    for i in range(count):
        noisy = (photo + rng.integers(-6, 7, photo.shape)).clip(0, 255).astype(np.uint8)
        yield Sample(key=f"{i:05}", image=Image.fromarray(noisy), captions=["mountains"], meta={})


def _pillow(picture: bytes, size: int) -> np.ndarray:
    """Decode all of a photo with Pillow, then reduce it, as a plain loader does."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _opencv(picture: bytes, size: int) -> Any:
    """Decode all of a photo with OpenCV, then reduce it."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.resize(decoded, (size, size), interpolation=cv2.INTER_AREA)


def _stream(shards: list[str], size: int, count: int, rounds: int) -> Timing:
    """Time photos from worker processes that are already running."""
    size_of_batch = min(BATCH, count)
    laps = count // size_of_batch
    batches = StreamedPhotos(shards, size).batches(size_of_batch, seed=0)
    found = timings({"streamed": lambda: [next(batches) for _ in range(laps)]}, rounds)["streamed"]
    # the last, incomplete batch is left out
    return found._replace(seconds=found.seconds * count / (laps * size_of_batch))


def _token_cache(bench: Bench) -> Row:
    """Measure a batch of stage 2 from a cache of random content, in memory."""
    config, rng = bench.sizes.trained_mps2s, np.random.default_rng(0)
    rows, side = 4 * TOKEN_BATCH, config.image_size
    masks = torch.zeros(rows, 1, side, side, dtype=torch.bool)
    part = Part(
        images=torch.from_numpy(rng.integers(0, 256, (rows, 3, side, side), dtype=np.uint8)),
        masks=torch.from_numpy(pack_masks(masks)),
        tokens=torch.zeros(rows, *config.grid, dtype=torch.int16),
        whole=torch.zeros(rows, *config.grid, dtype=torch.int16),
        captions=[["mountains"]] * rows,
    )
    about: Any = {"variants": 1, "factor": side // config.grid[0], "codebook_size": config.codebook_size}
    cache = TokenCache(folder=Path(), parts=(part,), checked=True, **about)
    found = timings({"batch": lambda: cache.batch(0, TOKEN_BATCH, seed=0)}, bench.rounds)["batch"]
    return rate(f"token cache, batches of {TOKEN_BATCH}", found, TOKEN_BATCH)
