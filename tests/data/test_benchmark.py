"""Benchmark folders: the same bytes from the same seed, and one clear line for each kind of damage."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.commands import benchmark as command
from nuwa_lip.data.benchmark import build_benchmark, read_benchmark, verify_benchmark
from nuwa_lip.data.shards import Sample, write_shards
from nuwa_lip.errors import InputError

RULE = "rectangles-40-60"


def samples(n: int = 3) -> list[Sample]:
    """Noise photos of different sizes."""
    rng = np.random.default_rng(0)
    sizes = [(40, 56), (33, 48), (64, 64), (50, 37)]
    photos = [rng.integers(0, 256, (*sizes[i % 4], 3), dtype=np.uint8) for i in range(n)]
    return [
        Sample(key=f"photo{i}", image=Image.fromarray(p), captions=[f"a café, number {i}", "another"], meta={})
        for i, p in enumerate(photos)
    ]


def build(out: Path, seed: int = 0, rule: str = RULE, limit: int | None = None):
    return build_benchmark(samples(), source="noise", rule=rule, seed=seed, out=out, limit=limit)


def test_builds_what_the_source_holds(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "b")
    assert [item.name for item in benchmark] == ["00000", "00001", "00002"]
    for item, sample in zip(benchmark, samples(), strict=True):
        np.testing.assert_array_equal(item.image, np.asarray(sample.image))
        assert item.mask.dtype == bool and item.mask.shape == item.image.shape[:2]
        assert 0.4 <= item.mask.mean() <= 0.6
        assert item.caption == sample.captions[0]
    verify_benchmark(benchmark)


def test_same_seed_same_bytes_other_seed_other_masks(tmp_path: Path) -> None:
    first, second, third = build(tmp_path / "1"), build(tmp_path / "2"), build(tmp_path / "3", seed=1)
    for file in sorted((tmp_path / "1").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "2" / file.relative_to(tmp_path / "1")).read_bytes()
    assert first.sha256 == second.sha256 != third.sha256


def test_limit_keeps_the_same_first_items(tmp_path: Path) -> None:
    whole, part = build(tmp_path / "whole"), build(tmp_path / "part", limit=2)
    assert len(part) == 2
    assert part.info["items"] == whole.info["items"][:2]


@pytest.mark.parametrize("kind", ["rectangles", "strokes", "border", "centre"])
@pytest.mark.parametrize("low", [10, 30, 50])
def test_every_rule_keeps_its_bucket(tmp_path: Path, kind: str, low: int) -> None:
    benchmark = build(tmp_path / "b", rule=f"{kind}-{low}-{low + 10}")
    assert all(low / 100 - 0.01 <= item.mask.mean() <= low / 100 + 0.11 for item in benchmark)


def test_size_cuts_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[:, :10], wide[:, 10:30], wide[:, 30:50] = 255, (200, 0, 0), (0, 0, 200)
    tall = Image.fromarray(wide).transpose(Image.Transpose.ROTATE_90)
    photos = [Sample(key=str(i), image=photo, captions=[]) for i, photo in enumerate((Image.fromarray(wide), tall))]
    kwargs = {"source": "two", "rule": "centre-30-30", "seed": 0}
    first, second = build_benchmark(photos, out=tmp_path / "b", size=20, **kwargs)
    assert first.image.shape == second.image.shape == (20, 20, 3)
    assert (first.image[:, 5] == (200, 0, 0)).all() and (first.image[:, -6] == (0, 0, 200)).all()
    assert (second.image[-6] == (200, 0, 0)).all() and second.caption == ""
    with pytest.warns(UserWarning, match="enlarged, as they are smaller than 50 pixels: 2"):
        assert build_benchmark(photos, out=tmp_path / "large", size=50, **kwargs)[1].image.shape == (50, 50, 3)


def test_command_builds_from_a_folder_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "b"
    photos.mkdir()
    for sample in samples():
        sample.image.save(photos / f"{sample.key}.png")
        (photos / f"{sample.key}.txt").write_text("\n".join(sample.captions), encoding="utf-8")
    command.benchmark(out=out, source=[str(photos)])
    command.benchmark(verify=out)
    shown = capsys.readouterr().out
    assert "without a caption" not in shown
    made, checked = shown.split("sha256")[1:]
    assert made.split()[0] == checked.split()[0] == read_benchmark(out).sha256
    assert [item.caption for item in read_benchmark(out)] == [s.captions[0] for s in samples()]
    some = next(photos.glob("*.txt"))
    some.write_text("")
    command.benchmark(out=tmp_path / "bare", source=[str(photos)])
    assert f"{len(read_benchmark(out))} photos, 1 of them without a caption" in capsys.readouterr().out


def test_command_names_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--source is missing"):
        command.benchmark(out=tmp_path / "b")
    with pytest.raises(InputError, match="--limit 0"):
        command.benchmark(out=tmp_path / "b", source=["x"], limit=0)
    with pytest.raises(InputError, match="--seed -1"):
        command.benchmark(out=tmp_path / "b", source=["x"], seed=-1)
    with pytest.raises(InputError, match="-o is missing"):
        command.benchmark(source=["x"])
    with pytest.raises(InputError, match="circles-10-20"):
        command.benchmark(out=tmp_path / "b", source=["x"], rule="circles-10-20")
    with pytest.raises(InputError, match="--captions needs --layout"):
        command.benchmark(out=tmp_path / "b", source=["x"], captions=tmp_path)
    with pytest.raises(InputError, match="segments-20-30 needs objects"):
        command.benchmark(out=tmp_path / "b", source=["x"], rule="segments-20-30", layout="coco")
    with pytest.raises(InputError, match="one folder of photos, not 2"):
        command.benchmark(out=tmp_path / "b", source=["x", "y"], layout="coco")
    with pytest.raises(InputError, match="not a benchmark folder"):
        command.benchmark(verify=tmp_path)
    with pytest.raises(InputError, match="absent"):
        command.benchmark(out=tmp_path / "b", source=[str(tmp_path / "absent.tar")])
    assert not any(tmp_path.iterdir())


def test_refuses_an_existing_folder_and_leaves_no_half(tmp_path: Path) -> None:
    build(tmp_path / "b")
    with pytest.raises(InputError, match="exists already"):
        build(tmp_path / "b")
    with pytest.raises(InputError, match="holds no photo"):
        build_benchmark([], source="nothing", rule=RULE, seed=0, out=tmp_path / "empty")
    with pytest.raises(InputError, match="holds no photo"):
        build_benchmark([], source="nothing", rule=RULE, seed=0, out=tmp_path / "new" / "empty")
    with pytest.raises(InputError, match="cannot write to .*name another folder"):
        build(tmp_path / "b" / "captions.jsonl" / "b2")
    with pytest.raises(InputError, match="has no objects for the rule boxes-10-20"):
        build(tmp_path / "c", rule="boxes-10-20")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    verify_benchmark(read_benchmark(tmp_path / "b"))
    assert build(tmp_path / "new" / "b3").sha256 == read_benchmark(tmp_path / "b").sha256


def test_damage_is_named(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "b")
    mask_file, image_file = (tmp_path / "b" / kind / "00001.png" for kind in ("masks", "images"))
    mask = mask_file.read_bytes()
    Image.new("L", (5, 4), 255).save(mask_file)
    with pytest.raises(InputError, match="is 5x4; its photo is 48x33"):
        benchmark[1]
    moved = np.roll(np.asarray(Image.open(BytesIO(mask))), 1, axis=0)
    Image.fromarray(moved).save(mask_file)
    with pytest.raises(InputError, match=r"masks/00001.png differs"):
        verify_benchmark(benchmark)
    Image.new("L", (48, 33), 0).save(mask_file)
    with pytest.raises(InputError, match="nothing to repaint"):
        benchmark[1]
    mask_file.write_bytes(mask)
    image_file.write_bytes(image_file.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        benchmark[1]
    image_file.unlink()
    with pytest.raises(InputError, match="is missing"):
        benchmark[1]


def test_verify_names_the_first_file_that_differs(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "b")
    for name in ("00002", "00001"):
        file = tmp_path / "b" / "images" / f"{name}.png"
        pixels = np.array(Image.open(file))
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(file)
    with pytest.raises(InputError, match=r"b/images/00001.png differs"):
        verify_benchmark(benchmark)
    captions = tmp_path / "b" / "captions.jsonl"
    captions.write_text(captions.read_text(encoding="utf-8").replace("number 0", "number 7"), encoding="utf-8")
    with pytest.raises(InputError, match=r"captions.jsonl, line 1, differs"):
        verify_benchmark(read_benchmark(tmp_path / "b"))


def test_items_that_are_not_the_recorded_ones_are_refused_when_read(tmp_path: Path) -> None:
    """The hash that stands beside a figure is that of what was measured."""
    benchmark = build(tmp_path / "b")
    mask_file, image_file = (tmp_path / "b" / kind / "00001.png" for kind in ("masks", "images"))
    for file in (mask_file, image_file):
        whole = file.read_bytes()
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
        with pytest.raises(InputError, match=f"{file.parent.name}/00001.png differs from benchmark.json: restore it"):
            benchmark[1]
        file.write_bytes(whole)
    captions = tmp_path / "b" / "captions.jsonl"
    captions.write_text(captions.read_text(encoding="utf-8").replace("number 2", "number 7"), encoding="utf-8")
    changed = read_benchmark(tmp_path / "b")
    assert changed[1].name == "00001"
    with pytest.raises(InputError, match=r"captions.jsonl, line 3, differs"):
        changed[2]
    info_file = tmp_path / "b" / "benchmark.json"
    info = json.loads(info_file.read_text())
    info["items"][1]["mask"] = info["items"][0]["mask"]
    info_file.write_text(json.dumps(info))
    with pytest.raises(InputError, match="its sha256 does not belong to its items"):
        read_benchmark(tmp_path / "b")


BY, NC = (f"http://creativecommons.org/licenses/{kind}/2.0/" for kind in ("by", "by-nc"))


def licensed() -> list[Sample]:
    """The same photos; two state where they are from, one of them under a free licence."""
    stated = ({"license": NC, "url": "http://a/0.jpg"}, {"license": BY, "url": "http://a/1.jpg", "id": "1"}, {})
    return [replace(sample, meta=meta) for sample, meta in zip(samples(), stated, strict=True)]


def test_licence_and_address_stay_with_the_photo_and_out_of_the_hash(tmp_path: Path) -> None:
    options = {"source": "noise", "rule": RULE, "seed": 0}
    stated = build_benchmark(licensed(), out=tmp_path / "stated", **options)
    assert [(item.license, item.url) for item in stated] == [
        (NC, "http://a/0.jpg"),
        (BY, "http://a/1.jpg"),
        (None, None),
    ]
    lines = [json.loads(line) for line in (tmp_path / "stated" / "captions.jsonl").read_text().splitlines()]
    assert lines[1]["license"] == BY and "id" not in lines[1] and "license" not in lines[2]
    assert stated.sha256 == build(tmp_path / "b").sha256


def test_command_takes_photos_of_these_licences_only(tmp_path: Path) -> None:
    write_shards(licensed(), tmp_path / "shards", image_format="png")
    source = [str(tmp_path / "shards")]
    command.benchmark(out=tmp_path / "free", source=source, license=["/by/", "/by-sa/"])
    free = read_benchmark(tmp_path / "free")
    assert [item.license for item in free] == [BY] and free.info["source"] == "shards license /by/ /by-sa/"
    assert [line["key"] for line in map(json.loads, open(tmp_path / "free" / "captions.jsonl"))] == ["photo1"]
    with pytest.raises(InputError, match=f"no photo of shards has a licence with /by-sa/; there are: {NC}, {BY}"):
        command.benchmark(out=tmp_path / "none", source=source, license=["/by-sa/"])
    write_shards(samples(), tmp_path / "silent", image_format="png")
    with pytest.raises(InputError, match="silent states no licences; leave out --license"):
        command.benchmark(out=tmp_path / "none", source=[str(tmp_path / "silent")], license=["/by/"])
    assert not (tmp_path / "none").exists()


def test_command_takes_licences_of_coco_before_it_opens_photos(tmp_path: Path) -> None:
    content = {
        "licenses": [{"id": 4, "url": BY}, {"id": 2, "url": NC}],
        "images": [{"id": i, "file_name": f"{i}.png", "license": 4 if i else 2} for i in range(3)],
        "annotations": [{"image_id": i, "caption": f"number {i}"} for i in range(3)],
    }
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps(content))
    (tmp_path / "photos").mkdir()
    for i in (1, 2):  # the other one is not even there
        samples()[i].image.save(tmp_path / "photos" / f"{i}.png")
    options = {"source": [str(tmp_path / "photos")], "layout": "coco", "captions": captions}
    command.benchmark(out=tmp_path / "free", license=["/by/"], **options)
    assert [item.license for item in read_benchmark(tmp_path / "free")] == [BY, BY]
    with pytest.raises(InputError, match=f"has a licence with zero or public; there are: {NC}, {BY}"):
        command.benchmark(out=tmp_path / "none", license=["zero", "public"], **options)


def test_a_folder_that_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmark.json is missing"):
        read_benchmark(tmp_path)
    build(tmp_path / "b")
    info = tmp_path / "b" / "benchmark.json"
    text = info.read_text()
    info.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(InputError, match="format 9"):
        read_benchmark(tmp_path / "b")
    info.write_text(text.replace('"n": 3', '"n": 2'))
    with pytest.raises(InputError, match="damaged: 2 photos, 3 hashes, 3 captions"):
        read_benchmark(tmp_path / "b")
    info.write_text(text[:50])
    with pytest.raises(InputError, match="damaged"):
        read_benchmark(tmp_path / "b")
