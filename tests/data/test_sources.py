"""Published layouts, as small made-up extracts in their real formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.data.skipped import Skipped
from nuwa_lip.data.sources import SourceKind, list_source, load_entries, open_source, shuffled
from nuwa_lip.errors import InputError


def put_photos(folder: Path, *names: str, size: tuple[int, int] = (40, 30)) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (20 * i, 90, 120)).save(path)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def listed(kind, images: Path, captions: Path | None = None) -> dict[str, list[str]]:
    entries = list_source(kind, images, captions)
    return {entry.path.relative_to(images).as_posix(): entry.captions for entry in entries}


def test_folder_with_text_files(tmp_path: Path) -> None:
    put_photos(tmp_path, "b.jpg", "a.png", "more/a.JPG")
    write(tmp_path / "a.txt", "a café\n\nby the sea \n")
    assert listed("folder", tmp_path) == {"a.png": ["a café", "by the sea"], "b.jpg": [], "more/a.JPG": []}
    assert [entry.key for entry in list_source("folder", tmp_path)] == ["a", "b", "more/a"]
    write(tmp_path / "a.txt", "a red\u2028house\x85by\x0bthe sea\r\nanother\n")  # cut at line breaks only
    assert listed("folder", tmp_path)["a.png"] == ["a red\u2028house\x85by\x0bthe sea", "another"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("c.csv", 'file,caption\na.jpg,"one, two"\nb.jpg,three\na.jpg,four\n'),
        ("c.csv", '\ufeffimage, caption\na.jpg, "one, two"\nb.jpg, three\na.jpg, four\n'),
        ("c.tsv", "id\tText\tfile_name\n1\tone, two\ta.jpg\n2\tthree\tb.jpg\n3\tfour\ta.jpg\n"),
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "captions": ["one, two", "four"]}\n\n{"file_name": "b.jpg", "text": "three"}\n',
        ),
    ],
)
def test_folder_with_one_captions_file(tmp_path: Path, name: str, text: str) -> None:
    put_photos(tmp_path / "p", "a.jpg", "b.jpg")
    got = listed("folder", tmp_path / "p", write(tmp_path / name, text))
    assert got == {"a.jpg": ["one, two", "four"], "b.jpg": ["three"]}


def test_coco(tmp_path: Path) -> None:
    content = {
        "info": {"year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution"}],
        "images": [
            {
                "license": 4,
                "file_name": "000000397133.jpg",
                "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
                "height": 427,
                "width": 640,
                "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg",
                "id": 397133,
            },
            {"license": 9, "file_name": "000000037777.jpg", "height": 230, "width": 352, "id": 37777},
        ],
        "annotations": [
            {"image_id": 397133, "id": 370509, "caption": "A man is in a kitchen making pizzas."},
            {"image_id": 37777, "id": 49, "caption": "The dining table near the kitchen. "},
            {"image_id": 397133, "id": 370510, "caption": "Man in apron standing."},
        ],
    }
    put_photos(tmp_path, "000000397133.jpg", "000000037777.jpg")
    file = write(tmp_path / "captions_val2017.json", json.dumps(content))
    pizza, table = list_source("coco", tmp_path, file)
    assert pizza.captions == ["A man is in a kitchen making pizzas.", "Man in apron standing."]
    assert pizza.meta["license"].endswith("/by/2.0/") and "6255196340" in pizza.meta["url"]
    assert table.captions == ["The dining table near the kitchen."] and table.meta == {"source": "coco"}


@pytest.mark.parametrize(
    "name, text",
    [
        (
            "results.csv",
            "image_name| comment_number| comment\n1000092795.jpg| 0| Two young guys | hair .\n"
            "2199089903.jpg| 4   A dog runs across the grass .\n1000092795.jpg| 1| Two men .\n",
        ),
        (
            "results_20130124.token",
            "1000092795.jpg#0\tTwo young guys | hair .\n2199089903.jpg#4\tA dog runs across the grass .\n"
            "1000092795.jpg#1\tTwo men .\n",
        ),
        (
            "captions.txt",
            "image,caption\n1000092795.jpg,Two young guys | hair .\n"
            "2199089903.jpg,A dog runs across the grass .\n1000092795.jpg,Two men .\n",
        ),
    ],
)
def test_flickr30k(tmp_path: Path, name: str, text: str) -> None:
    if name == "captions.txt":
        text = text.replace(" |", "")  # a bar would mean the other layout
    got = listed("flickr30k", tmp_path, write(tmp_path / name, text))
    first = "Two young guys hair ." if name == "captions.txt" else "Two young guys | hair ."
    dog = "A dog runs across the grass ."
    assert got == {"1000092795.jpg": [first, "Two men ."], "2199089903.jpg": [dog]}


def test_visual_genome(tmp_path: Path) -> None:
    put_photos(tmp_path, "VG_100K/1.jpg", "VG_100K_2/2.jpg")
    region = {"region_id": 1382, "width": 82, "height": 139, "image_id": 1, "x": 421, "y": 57}
    content = [
        {"regions": [region | {"phrase": f"the clock is green{end}"} for end in (" ", "")], "id": 1},
        {"regions": [region | {"phrase": "shade is along the street"}], "id": 2},
    ]
    got = listed("visual-genome", tmp_path, write(tmp_path / "region_descriptions.json", json.dumps(content)))
    assert got == {"VG_100K/1.jpg": ["the clock is green"], "VG_100K_2/2.jpg": ["shade is along the street"]}


def test_conceptual_captions(tmp_path: Path) -> None:
    text = (
        'a "very typical" bus station\thttp://lh6.example.com/x/bus%20stop.jpg?imgmax=800\n'
        "sierra looked stunning\tsub/sierra.jpg\nhttps://example.com/dog.jpg\ta dog of the twelve million\n"
    )
    got = listed("conceptual-captions", tmp_path, write(tmp_path / "Train_GCC-training.tsv", text))
    assert got == {
        "bus stop.jpg": ['a "very typical" bus station'],
        "sub/sierra.jpg": ["sierra looked stunning"],
        "dog.jpg": ["a dog of the twelve million"],
    }


def test_photos_are_reduced_never_enlarged_and_missing_ones_named(tmp_path: Path) -> None:
    put_photos(tmp_path, "wide.jpg", size=(400, 200))
    put_photos(tmp_path, "small.png", size=(20, 30))
    write(tmp_path / "torn.jpg", "not a photo")
    file = write(tmp_path / "c.csv", "file,caption\nwide.jpg,w\nsmall.png,s\ngone.jpg,g\ntorn.jpg,t\n")
    skipped = Skipped()
    got = list(load_entries(list_source("folder", tmp_path, file), skipped, size=64))
    assert [(s.key, s.image.size) for s in got] == [("wide", (128, 64)), ("small", (20, 30))]
    assert [s.captions for s in got] == [["w"], ["s"]]
    assert "gone.jpg (no such file)" in str(skipped) and "torn.jpg" in str(skipped) and len(skipped) == 2


def test_order_is_a_permutation_by_seed(tmp_path: Path) -> None:
    entries = list_source("folder", put_photos(tmp_path, *(f"{i}.png" for i in range(9))))
    assert shuffled(entries, 0) == shuffled(entries, 0) != shuffled(entries, 1)
    assert sorted(e.key for e in shuffled(entries, 0)) == [e.key for e in entries]


def test_open_source_reads_a_folder_at_full_size(tmp_path: Path) -> None:
    put_photos(tmp_path, "a.png", "b.png", size=(300, 500))
    write(tmp_path / "b.png.txt", "unrelated")
    got = list(open_source([tmp_path]))
    assert [s.image.size for s in got] == [(300, 500)] * 2
    np.testing.assert_array_equal(np.asarray(got[1].image)[0, 0], (20, 90, 120))


@pytest.mark.parametrize(
    "kind, name, text, says",
    [
        ("coco", "c.json", "{", "not a captions file of the coco layout"),
        ("coco", "c.json", "[]", "not a captions file of the coco layout"),
        ("coco", "c.json", '{"images": [], "annotations": []}', "lists no photo"),
        ("visual-genome", "c.json", '[{"id": 1}]', "visual-genome layout"),
        ("flickr30k", "c.token", "a.jpg#0\tone\nnonsense\n", "line 2 is 'nonsense'"),
        ("conceptual-captions", "c.tsv", "only a caption\n", "line 1 has no tab"),
        ("folder", "c.csv", "name,words\na.jpg,one\n", "has the columns name, words"),
        ("folder", "c.jsonl", "[1]\n", "not a captions file of the folder layout"),
        ("coco", None, "", "--captions FILE"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, kind, name: str | None, text: str, says: str) -> None:
    put_photos(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=says) as caught:
        list_source(kind, tmp_path, write(tmp_path / name, text) if name else None)
    assert "\n" not in str(caught.value)


def test_missing_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        list_source("folder", tmp_path / "nowhere")
    with pytest.raises(InputError, match="no captions at .*none.json"):
        list_source("coco", tmp_path, tmp_path / "none.json")
    with pytest.raises(InputError, match="lists no photo"):
        list_source("folder", tmp_path)


@pytest.mark.parametrize("name", ["../private.png", "/etc/passwd", "link.png"])
@pytest.mark.parametrize("kind", ["folder", "coco", "flickr30k", "visual-genome", "conceptual-captions"])
def test_annotations_name_no_photo_outside_of_the_folder(kind: SourceKind, name: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    (images / "link.png").symlink_to(tmp_path / "private.png")
    texts = {
        "folder": f"file,caption\n{name},mine\n",
        "coco": json.dumps(
            {"images": [{"id": 1, "file_name": name}], "annotations": [{"image_id": 1, "caption": "mine"}]}
        ),
        "flickr30k": f"{name}#0\tmine\n",
        "visual-genome": json.dumps([{"id": name.removesuffix(".png"), "regions": []}]),
        "conceptual-captions": f"mine\t{name}\n",
    }
    file = tmp_path / "captions.csv"
    file.write_text(texts[kind])
    with pytest.raises(InputError, match="is not within .*images: put the file there"):
        list_source(kind, images, file)
