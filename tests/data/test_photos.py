"""Batches: a pure function of (seed, step), the same from memory and for any number of processes."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.data.photos import Photos, PhotoSet
from nuwa_lip.data.shards import Sample, write_shards
from nuwa_lip.data.streamed import StreamedPhotos, open_photos
from nuwa_lip.errors import InputError

SIZE = 16
N = 11


def sample(i: int) -> Sample:
    """A flat photo whose grey level is its number."""
    sizes = [(32, 32), (40, 30), (20, 60)]
    image = Image.new("RGB", sizes[i % 3], (10 * i, 10 * i, 10 * i))
    captions = [f"photo {i} caption {k}" for k in range(i % 3)]
    return Sample(key=f"k{i}", image=image, captions=captions, meta={"source": "flickr8k"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    shards = write_shards([sample(i) for i in range(N)], folder, image_format="png", max_bytes=9000)
    assert len(shards) == 3
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> PhotoSet:
    return PhotoSet.load(folder, SIZE)


def sources(folder: Path) -> list[Photos]:
    return [PhotoSet.load(folder, SIZE), StreamedPhotos(folder, SIZE, workers=0, window=2)]


def numbers(batch) -> list[int]:
    """The photos' numbers, after checking that pixels, captions and keys belong together."""
    found = [int(key[1:]) for key in batch.keys]
    for number, caption, pixels in zip(found, batch.captions, batch.images, strict=True):
        assert (pixels == 10 * number).all()
        assert caption.startswith(f"photo {number} ") if number % 3 else caption == ""
    return found


def test_load_keeps_pixels_and_shapes(photos: PhotoSet) -> None:
    assert len(photos) == N and photos.size == SIZE
    assert photos.images.shape == (N, 3, SIZE, SIZE) and photos.images.dtype == torch.uint8
    assert photos.aspects[0] == 0  # a square copy from a squeezed source: unknown
    assert photos.aspects[1] == pytest.approx(4 / 3)
    assert photos.aspects[2] == pytest.approx(0.5)  # 20 x 60, its ends cut off


@pytest.mark.parametrize("kind", [0, 1])
def test_an_epoch_shows_every_photo_once(folder: Path, kind: int) -> None:
    batches = islice(sources(folder)[kind].batches(4, seed=3), 11)
    order = [n for batch in batches for n in numbers(batch)]
    epochs = [order[i : i + N] for i in range(0, 4 * N, N)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("kind", [0, 1])
def test_any_step_can_be_the_first(folder: Path, kind: int) -> None:
    source = sources(folder)[kind]
    through = list(islice(source.batches(3, seed=1), 15))
    for start in (1, 4, 13):
        later = next(source.batches(3, seed=1, start_step=start))
        assert later.keys == through[start].keys and later.captions == through[start].captions
        assert torch.equal(later.images, through[start].images)
        assert torch.equal(later.aspects, through[start].aspects)


@pytest.mark.parametrize("kind", [0, 1])
def test_processes_share_the_batch_that_one_would_see(folder: Path, kind: int) -> None:
    source = sources(folder)[kind]
    whole = list(islice(source.batches(4, seed=2), 5))
    parts = [list(islice(source.batches(4, seed=2, rank=r, world_size=2), 5)) for r in (0, 1)]
    for one, left, right in zip(whole, *parts, strict=True):
        assert one.keys == left.keys + right.keys and one.captions == left.captions + right.captions
    with pytest.raises(InputError, match="batch size 3"):
        next(source.batches(3, seed=2, rank=0, world_size=2))


def test_workers_do_not_change_the_stream(folder: Path) -> None:
    streams = [StreamedPhotos(folder, SIZE, workers=n, window=2) for n in (0, 2)]
    alone, workers = (list(islice(s.batches(4, seed=0, start_step=2), 4)) for s in streams)
    for a, b in zip(alone, workers, strict=True):
        assert a.keys == b.keys and torch.equal(a.images, b.images) and a.captions == b.captions


def test_seeds_and_captions_vary(photos: PhotoSet) -> None:
    assert photos.batch(0, N, seed=0).keys != photos.batch(0, N, seed=1).keys
    picked = {text for step in range(30) for text in photos.batch(step, N, seed=0).captions}
    assert {"photo 2 caption 0", "photo 2 caption 1"} <= picked


def test_a_photo_changes_its_caption_from_step_to_step(tmp_path: Path) -> None:
    photo = PhotoSet.load(write_shards([sample(2)], tmp_path), SIZE)
    assert len({photo.batch(step, 1, seed=0).captions[0] for step in range(20)}) == 2


def test_open_photos_chooses_the_cache(folder: Path) -> None:
    assert isinstance(open_photos(folder, SIZE, cache="none"), StreamedPhotos)
    for cache in ("ram", "device"):
        assert isinstance(open_photos(folder, SIZE, cache=cache, device="cpu"), PhotoSet)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_streamed_batches_lie_where_a_gpu_fetches_them(
    device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def loader(stream: object, **options: object) -> list[str]:
        given.append(options)
        return ["a batch"]

    monkeypatch.setattr("nuwa_lip.data.streamed.DataLoader", loader)
    assert [*open_photos(folder, SIZE, cache="none", device=device).batches(2, seed=0)] == ["a batch"]
    assert [options["pin_memory"] for options in given] == [device == "cuda"]


def damaged(folder: Path) -> Path:
    """A shard with two good photos and one that cannot be decoded."""
    path = write_shards([sample(i) for i in range(3)], folder, image_format="png")[0]
    data = path.read_bytes()
    spot = data.index(b"IDAT", data.index(b"k1.png"))
    path.write_bytes(data[: spot + 4] + bytes(12) + data[spot + 16 :])
    return path


def test_damaged_photos_are_skipped_or_replaced(tmp_path: Path) -> None:
    shard = damaged(tmp_path)
    with pytest.warns(UserWarning, match="skipped 1 .*k1"):
        assert PhotoSet.load(shard, SIZE).keys == ["k0", "k2"]
    with pytest.warns(UserWarning, match="k1"):
        batch = next(StreamedPhotos(shard, SIZE, workers=0).batches(3, seed=0))
    assert len(batch.keys) == 3 and set(batch.keys) == {"k0", "k2"}
    numbers(batch)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(np.random.default_rng(0).bytes(3000))
    for load in (
        lambda: PhotoSet.load(tmp_path, SIZE),
        lambda: next(StreamedPhotos(tmp_path, SIZE, workers=0).batches(2, seed=0)),
    ):
        with pytest.raises(InputError, match="no photo could be read"):
            load()


@pytest.fixture(scope="module")
def two(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sources of photos, of 11 and of 3."""
    other = tmp_path_factory.mktemp("other")
    write_shards([sample(i) for i in (20, 21, 22)], other, image_format="png")
    return [str(folder), str(other)]


@pytest.mark.parametrize("kind", [PhotoSet.load, lambda *a, **k: StreamedPhotos(*a, workers=0, window=2, **k)])
def test_sources_are_mixed_by_weight(two: list[str], kind: Any) -> None:
    source = kind(two, SIZE, weights=(1, 3))
    through = [batch.keys for batch in islice(source.batches(8, seed=4), 40)]
    counts = [sum(int(key[1:]) >= 20 for key in keys) for keys in through]
    assert 0.67 < sum(counts) / 320 < 0.83 and 2 <= min(counts) < max(counts)
    for start in (5, 29):  # resumed, and by 2 and 4 processes
        for processes in (2, 4):
            parts = [
                next(source.batches(8, seed=4, start_step=start, rank=rank, world_size=processes)).keys
                for rank in range(processes)
            ]
            assert sum(parts, []) == through[start]
    assert through != [batch.keys for batch in islice(source.batches(8, seed=5), 40)]
    with pytest.raises(InputError, match="--weights has 3 numbers for 2 of --data"):
        kind(two, SIZE, weights=(1, 3, 1))


def test_sources_elsewhere_are_mixed_with_local_ones(two: list[str]) -> None:
    fsspec = pytest.importorskip("fsspec")
    name = next(Path(two[1]).glob("*.tar"))
    with fsspec.open("memory://mixed/a.tar", "wb") as file:
        file.write(name.read_bytes())
    mixed = StreamedPhotos([two[0], "memory://mixed/a.tar"], SIZE, workers=0, weights=(1, 1))
    through = [batch.keys for batch in islice(mixed.batches(4, seed=0), 20)]
    assert next(mixed.batches(4, seed=0, start_step=13)).keys == through[13]
    assert 30 < sum(int(key[1:]) >= 20 for keys in through for key in keys) < 50
