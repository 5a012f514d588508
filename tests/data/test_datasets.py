"""MaskCOCO, MaskFlickr and MaskVG by the command, from small extracts made in the datasets' real formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip import cli
from nuwa_lip.data.benchmark import read_benchmark, verify_benchmark
from nuwa_lip.errors import InputError


def put_photos(folder: Path, *names: str, size: tuple[int, int] = (640, 480)) -> Path:
    rng = np.random.default_rng(len(names))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size).save(path)
    return folder


def put_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(*words: object) -> None:
    cli.run(["data", "benchmark", *map(str, words)])


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """val2017, captions_val2017.json, instances_val2017.json: a bear, a kitchen, a crowd of people only."""
    ids = (285, 139, 1000)
    put_photos(tmp_path / "val2017", *(f"{i:012d}.jpg" for i in ids))
    images = [{"license": 4, "file_name": f"{i:012d}.jpg", "height": 480, "width": 640, "id": i} for i in ids]
    captions = [{"image_id": i, "id": 10 + i, "caption": f"The photo {i} of COCO."} for i in sorted(ids)]
    put_json(tmp_path / "captions_val2017.json", {"info": {}, "images": images, "annotations": captions})
    square = [200.0, 100.0, 440.0, 100.0, 440.0, 340.0, 200.0, 340.0]  # 240 x 240, a quarter of the centre square
    corner = [[80.0, 0.0, 320.0, 0.0, 80.0, 240.0]]  # half of that, starting where the centre square does
    objects = [
        {
            "segmentation": [square],
            "area": 57600.0,
            "iscrowd": 0,
            "image_id": 285,
            "bbox": [200.0, 100.0, 240.0, 240.0],
        },
        {"segmentation": corner, "area": 28800.0, "iscrowd": 0, "image_id": 139, "bbox": [80.0, 0.0, 240.0, 240.0]},
        {"segmentation": corner, "area": 4.0, "iscrowd": 0, "image_id": 139, "bbox": [0.0, 0.0, 2.0, 2.0]},
        {"segmentation": {"counts": [9, 8], "size": [480, 640]}, "iscrowd": 1, "image_id": 1000, "bbox": [0, 0, 9, 9]},
    ]
    numbered = [{"id": 900 + i, "category_id": 1, **one} for i, one in enumerate(objects)]
    put_json(tmp_path / "instances_val2017.json", {"images": images, "annotations": numbered, "categories": []})
    return tmp_path


def coco_words(coco: Path) -> list[object]:
    return ["--source", coco / "val2017", "--layout", "coco", "--captions", coco / "captions_val2017.json"]


def test_mask_coco(coco: Path) -> None:
    run(*coco_words(coco), "--size", 64, "--seed", 3, "-o", coco / "MaskCOCO")
    run(*coco_words(coco), "--size", 64, "--seed", 3, "-o", coco / "again")
    benchmark = read_benchmark(coco / "MaskCOCO")
    assert benchmark.captions == ("The photo 285 of COCO.", "The photo 139 of COCO.", "The photo 1000 of COCO.")
    assert all(item.image.shape == (64, 64, 3) and 0.4 <= item.mask.mean() <= 0.6 for item in benchmark)
    assert (benchmark.info["rule"], benchmark.info["seed"], benchmark.info["size"]) == ("rectangles-40-60", 3, 64)
    for file in (coco / "MaskCOCO").rglob("*.*"):
        assert file.read_bytes() == (coco / "again" / file.relative_to(coco / "MaskCOCO")).read_bytes()


def test_mask_coco_of_objects(coco: Path) -> None:
    words = [*coco_words(coco), "--objects", coco / "instances_val2017.json", "--size", 64]
    with pytest.warns(UserWarning) as told:
        run(*words, "--rule", "boxes-20-30", "-o", coco / "boxes")
        run(*words, "--rule", "segments-20-30", "-o", coco / "segments")
    assert [str(one.message).split(",")[0] for one in told] == ["photos left out"] * 2 + ["holes outside of 20% to 30%"]
    assert all(str(one.message).endswith(": 1") for one in told)
    boxes, segments = read_benchmark(coco / "boxes"), read_benchmark(coco / "segments")
    assert boxes.captions == segments.captions == ("The photo 285 of COCO.", "The photo 139 of COCO.")
    for item in boxes:
        assert item.mask.mean() == 0.25
    top, left = (int(np.argmax(boxes[1].mask.any(axis=axis))) for axis in (1, 0))
    assert (top, left) == (0, 0)  # 80 pixels are cut off on the left
    assert boxes[0].mask[14, 17] and not boxes[0].mask[12, 17]
    assert abs(segments[1].mask.mean() - 0.125) < 0.02
    verify_benchmark(segments)


def test_objects_follow_a_resized_copy(coco: Path) -> None:
    words = [*coco_words(coco), "--objects", coco / "instances_val2017.json", "--rule", "boxes-10-20", "--limit", 1]
    put_photos(coco / "val2017", "000000000285.jpg", size=(320, 240))
    run(*words, "-o", coco / "small")
    ys, xs = np.nonzero(read_benchmark(coco / "small")[0].mask)
    assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (100, 220, 50, 170)
    put_photos(coco / "val2017", "000000000285.jpg", size=(240, 240))
    with pytest.raises(InputError, match="is 240x240, its annotations are of 640x480"):
        run(*words, "-o", coco / "cropped")


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """flickr30k-images, results_20130124.token, results.csv, dataset_flickr30k.json."""
    names = ("1000092795.jpg", "10002456.jpg", "1000268201.jpg")
    put_photos(tmp_path / "flickr30k-images", *names, size=(500, 375))
    lines = [(name, i, f"Sentence {i} of {name} .") for name in names for i in range(2)]
    token = "".join(f"{name}#{i}\t{text}\n" for name, i, text in lines)
    (tmp_path / "results_20130124.token").write_text(token)
    table = "image_name| comment_number| comment\n" + "".join(f"{name}| {i}| {text}\n" for name, i, text in lines)
    (tmp_path / "results.csv").write_text(table)
    images = [
        {"sentids": [i], "imgid": i, "sentences": [{"raw": "x"}], "split": split, "filename": name}
        for i, (name, split) in enumerate(zip(names, ("train", "test", "test"), strict=True))
    ]
    put_json(tmp_path / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    return tmp_path


def flickr_words(flickr: Path, captions: str) -> list[object]:
    return ["--source", flickr / "flickr30k-images", "--layout", "flickr30k", "--captions", flickr / captions]


def test_mask_flickr(flickr: Path) -> None:
    for captions, out in (("results_20130124.token", "token"), ("results.csv", "csv")):
        words = [*flickr_words(flickr, captions), "--splits", flickr / "dataset_flickr30k.json"]
        run(*words, "--rule", "strokes-20-30", "--size", 48, "-o", flickr / out)
    benchmark = read_benchmark(flickr / "token")
    assert benchmark.captions == ("Sentence 0 of 10002456.jpg .", "Sentence 0 of 1000268201.jpg .")
    assert benchmark.sha256 == read_benchmark(flickr / "csv").sha256
    run(*flickr_words(flickr, "results.csv"), "--size", 48, "-o", flickr / "all")
    assert len(read_benchmark(flickr / "all")) == 3


def visual_genome(folder: Path) -> list[object]:
    """Photos in VG_100K and VG_100K_2, and region_descriptions.json."""
    put_photos(folder / "VG", "VG_100K/1.jpg", "VG_100K_2/2.jpg", size=(800, 600))
    places = (
        (421, 57, 82, 139, "the clock is green"),
        (100, 0, 400, 300, "shade along the street "),
        (0, 0, 800, 600, ""),
    )
    content = [
        {
            "regions": [
                dict(zip(("x", "y", "width", "height", "phrase"), p, strict=True)) | {"image_id": i} for p in places
            ]
        }
        | {"id": i}
        for i in (1, 2)
    ]
    captions = put_json(folder / "region_descriptions.json", content)
    return ["--source", folder / "VG", "--layout", "visual-genome", "--captions", captions]


def test_mask_vg(tmp_path: Path) -> None:
    words = visual_genome(tmp_path)
    run(*words, "--rule", "boxes-30-40", "--size", 60, "-o", tmp_path / "boxes")
    boxes = read_benchmark(tmp_path / "boxes")
    assert boxes.captions == ("shade along the street",) * 2
    assert boxes[0].mask[:30, :40].all() and boxes[0].mask.sum() == 30 * 40
    run(*words, "--rule", "boxes-1-5", "-o", tmp_path / "small")
    small = read_benchmark(tmp_path / "small")
    assert small.captions == ("the clock is green",) * 2 and small[0].mask.sum() == 82 * 139
    run(*words, "--rule", "rectangles-40-60", "--size", 60, "-o", tmp_path / "rectangles")
    assert set(read_benchmark(tmp_path / "rectangles").captions) <= {"the clock is green", "shade along the street"}
    lines = (tmp_path / "small" / "captions.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["captions"] == ["the clock is green", "shade along the street"]


def test_bad_input_is_one_line_and_code_2(coco: Path, flickr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, instances = coco / "captions_val2017.json", coco / "instances_val2017.json"
    other = put_json(coco / "captions_train2017.json", json.loads(captions.read_text()))
    other.write_text(other.read_text().replace('"image_id": 285', '"image_id": 286'))
    foreign = put_json(coco / "instances_train2017.json", {"images": [], "annotations": []})
    photos, splits = coco / "val2017", flickr / "dataset_flickr30k.json"
    as_coco, as_flickr = ("--source", photos, "--layout", "coco"), flickr_words(flickr, "results.csv")
    cases = [
        ((*as_coco, "--captions", instances), "instances_val2017.json is not a captions file .*'caption' is missing"),
        ((*as_coco, "--captions", flickr / "results.csv"), "results.csv is not a captions file of the coco layout"),
        ((*as_coco, "--captions", other), "captions for photo 286, which it does not list"),
        ((*as_coco, "--captions", captions, "--objects", captions), "not an instances file .*'bbox' is missing"),
        ((*as_coco, "--captions", captions, "--objects", foreign), "does not list 000000000285.jpg"),
        ((*as_coco, "--captions", captions, "--objects", coco / "no.json"), "no objects at .*no.json"),
        ((*as_coco, "--captions", captions, "--splits", splits), "has 10002456.jpg in test, which has no captions"),
        (("--source", coco, *as_coco[2:], "--captions", captions), "000000000285.jpg: no such file"),
        ((*as_flickr, "--splits", splits, "--split", "dev"), "has no split 'dev'; it has test, train"),
        ((*as_flickr, "--splits", captions), "not a file of splits .*'filename' is missing"),
        ((*as_flickr, "--objects", instances), "for --layout coco only, not for flickr30k"),
        ((*as_flickr[:4], "--captions", captions), "captions_val2017.json"),
    ]
    before = sorted(coco.rglob("*"))
    for words, says in cases:
        with pytest.raises(SystemExit) as done:
            cli.main(["data", "benchmark", *map(str, words), "-o", str(coco / "new" / "out")])
        error = capsys.readouterr().err
        assert done.value.code == 2 and error.count("\n") == 1, error
        with pytest.raises(InputError, match=says):
            run(*words, "-o", coco / "new" / "out")
        assert sorted(coco.rglob("*")) == before
    (photos / "000000000285.jpg").write_bytes(b"torn")
    with pytest.raises(InputError, match="000000000285.jpg: .*get it again"):
        run(*as_coco, "--captions", captions, "-o", coco / "out")
