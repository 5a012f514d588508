"""Published sets as they are downloaded: the tutorial on five photos in each layout, to shards and to training."""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.streamed import StreamedPhotos, open_photos
from nuwa_lip.training.dfvqgan import DFVQGANStage
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.tokens import TokenCache
from tests.folders import contents
from tests.small_runs import dfvqgan_recipe, make_cpu_accelerator, mps2s_recipe, open_cache

PAGE = Path(__file__).parents[2] / "docs/training.md"
PHOTOS = 5


def put_photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save(path, "JPEG")
    return path


def imagenet(folder: Path) -> None:
    for i in range(PHOTOS):
        name = ("n01440764", "n01443537")[i % 2]
        put_photo(folder / f"ILSVRC2012/train/{name}/{name}_{i}.JPEG", i)


def coco(folder: Path) -> None:
    images = [{"license": 4, "file_name": f"{i:012d}.jpg", "height": 48, "width": 64, "id": i} for i in range(PHOTOS)]
    for image in images:
        put_photo(folder / "train2017" / str(image["file_name"]), 10)
    captions = [{"image_id": i, "id": 10 * i + k, "caption": f"photo {i}, {k}."} for i in range(PHOTOS) for k in (0, 1)]
    content = {"info": {}, "licenses": [{"id": 4, "url": "by"}], "images": images, "annotations": captions}
    (folder / "annotations").mkdir()
    (folder / "annotations/captions_train2017.json").write_text(json.dumps(content))


def flickr30k(folder: Path) -> None:
    lines = ["image_name| comment_number| comment"]
    for i in range(PHOTOS):
        put_photo(folder / f"flickr30k-images/{1000 + i}.jpg", 20 + i)
        lines += [f"{1000 + i}.jpg| {k}| Photo {i} , told {k} ." for k in range(5)]
    (folder / "results.csv").write_text("\n".join(lines))


def visual_genome(folder: Path) -> None:
    told = []
    for i in range(PHOTOS):
        put_photo(folder / f"VisualGenome/VG_100K{'_2' * (i % 2)}/{i + 1}.jpg", 30 + i)
        region = {"region_id": i, "image_id": i + 1, "x": 1, "y": 2, "width": 30, "height": 20, "phrase": f"thing {i}"}
        told.append({"id": i + 1, "regions": [region]})
    (folder / "region_descriptions.json").write_text(json.dumps(told))


def img2dataset(folder: Path) -> None:
    """What img2dataset writes with `--output_format webdataset`; one address of six was dead."""
    out = folder / "shards/cc3m"
    out.mkdir(parents=True)
    with tarfile.open(out / "00000.tar", "w") as tar:
        for i in range(PHOTOS):
            key, photo = f"00000{i:04d}", put_photo(folder / "one.jpg", 40 + i).read_bytes()
            told = {"caption": f"alt text {i}", "url": f"https://example.org/{i}.jpg", "key": key, "status": "success"}
            more = {"error_message": None, "width": 64, "height": 48, "exif": "{}", "sha256": "0" * 64}
            parts = {"jpg": photo, "json": json.dumps(told | more).encode(), "txt": told["caption"].encode()}
            for ending, content in parts.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (out / "00000_stats.json").write_text(json.dumps({"count": 6, "successes": 5, "failed_to_download": 1}))
    (out / "00000.parquet").write_bytes(b"PAR1")


LAYOUTS: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "imagenet": (imagenet, 0, ""),
    "coco": (coco, 2, "photo 3, 1."),
    "flickr30k": (flickr30k, 5, "Photo 3 , told 4 ."),
    "vg": (visual_genome, 1, "thing 3"),
    "cc3m": (img2dataset, 1, "alt text 3"),
}
"""How each is laid out, captions a photo, and one of them."""


def lines_of_the_page(command: str) -> list[list[str]]:
    """The page's lines of a command, in words."""
    section = PAGE.read_text().split("### Published sets")[1].split("\n### ")[0]
    return [shlex.split(line)[1:] for line in re.findall(rf"^nuwa-lip {command} .*$", section, re.MULTILINE)]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downloads")
    for lay_out, _, _ in LAYOUTS.values():
        lay_out(folder)
    return folder


def test_each_layout_becomes_shards_that_training_reads(
    downloads: Path, nuwa_lip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(downloads)
    said = [nuwa_lip(*words) for words in lines_of_the_page("data shards")]
    assert [done.code for done in said] == [0] * (len(LAYOUTS) - 1), "img2dataset's are shards already"
    before = contents(downloads / "shards/cc3m")
    for name, (_, captions, text) in LAYOUTS.items():
        photos = PhotoSet.load(f"shards/{name}", 40)
        assert len(photos) == PHOTOS and {len(texts) for texts in photos.captions} == {captions}
        assert not text or text in [one for texts in photos.captions for one in texts]
        streamed = next(StreamedPhotos(f"shards/{name}", 40, workers=0).batches(PHOTOS, seed=0))
        assert sorted(streamed.keys) == sorted(photos.keys)
    assert contents(downloads / "shards/cc3m").items() >= before.items(), "nothing but an index was added"


def values(words: list[str], option: str) -> list[str]:
    """What follows an option, up to the next one."""
    rest = words[words.index(option) + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))]


def test_both_stages_train_on_them(downloads: Path, nuwa_lip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(downloads)
    if not Path("shards/coco").is_dir():
        assert all(nuwa_lip(*words).code == 0 for words in lines_of_the_page("data shards"))
    accelerator = make_cpu_accelerator()
    first, second = lines_of_the_page("train")
    data, weights = values(first, "--data"), [*map(float, values(first, "--weights"))]
    stage: Any = DFVQGANStage(
        dfvqgan_recipe(perceptual_weight=0.0),
        open_photos(data, 40, cache="none", workers=0, weights=weights),
        accelerator,
    )
    batches = stage.batches(0)
    for step in range(2):
        figures = stage.step(step, next(batches))
        assert figures and all(np.isfinite(float(value)) for value in figures.values())
    stage.export(Path("runs/dfvqgan/model"))
    for words in lines_of_the_page("tokenize"):
        done = nuwa_lip(*words)
        assert done.code == 0 and "2 variants of each" in done.out, done.err
    recipe = mps2s_recipe()
    caches = [open_cache(Path(folder), recipe) for folder in values(second, "--data")]
    cache = TokenCache.join(caches, [*map(float, values(second, "--weights"))])
    stage = MPS2SStage(recipe, cache, accelerator)
    batches = stage.batches(0)
    for step in range(2):
        figures = stage.step(step, next(batches))
        assert figures and all(np.isfinite(float(value)) for value in figures.values())
