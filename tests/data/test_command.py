"""`nuwa-lip data shards` and `shapes`: whole shards or nothing, and a line that says what was done."""

import json
from pathlib import Path

import pytest
from PIL import Image

from nuwa_lip import cli
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.shards import read_samples
from nuwa_lip.errors import InputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (60, 40), (50 * i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"red of strength {i}\nphoto {i}\n" if i else "")
    return folder


def run(*argv: object) -> None:
    cli.run(["data", *(str(word) for word in argv)])


def test_shards_from_a_folder_train_as_they_are(photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "torn.jpg").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="skipped 1 .*torn.jpg"):
        run("shards", photos, "-o", tmp_path / "out", "--size", 32)
    says = capsys.readouterr().out
    assert "4 photos, 6 captions (1 photos without), 1 shard, 1 skipped" in says and says.count("\n") == 1
    loaded = PhotoSet.load(tmp_path / "out", 16)
    assert sorted(loaded.keys) == ["0", "1", "2", "3"] and loaded.aspects.tolist() == [1.5] * 4
    assert {s.image.size for s in read_samples(tmp_path / "out")} == {(48, 32)}


def test_shards_from_coco_by_flags(photos: Path, tmp_path: Path) -> None:
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
        "annotations": [{"image_id": i, "caption": f"number {i}"} for i in range(4)],
    }
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps(content))
    words = ("--source", "coco", "--images", photos, "--captions", captions, "--limit", 3, "--size", 0)
    run("shards", *words, "-o", tmp_path / "out")
    got = list(read_samples(tmp_path / "out"))
    assert len(got) == 3 and all(s.captions == [f"number {s.key}"] and s.image.size == (60, 40) for s in got)
    run("shards", *words, "-o", tmp_path / "again")
    first, second = (tmp_path / name / "photos-000000.tar" for name in ("out", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_shapes_writes_png_and_replaces_only_when_asked(tmp_path: Path, capsys) -> None:
    words = ("shapes", "-o", tmp_path, "--count", 7, "--size", 32, "--split", "test")
    run(*words)
    assert "7 photos, 7 captions, 1 shard" in capsys.readouterr().out
    got = list(read_samples(tmp_path / "shapes-test-000000.tar"))
    assert len(got) == 7 and all(s.image.size == (32, 32) and s.meta["split"] == "test" for s in got)
    with pytest.raises(InputError, match="--overwrite"):
        run(*words)
    run(*words, "--overwrite")


@pytest.mark.parametrize(
    "words, says",
    [
        (("shard",), "there is no command 'data shard'; did you mean 'data shards'?"),
        (("shards", "-o", "OUT"), "which photos"),
        (("shards", "PHOTOS", "--images", "PHOTOS", "-o", "OUT"), "given twice"),
        (("shards", "nowhere", "-o", "OUT"), "nowhere is not a folder"),
        (("shards", "PHOTOS", "-o", "OUT", "--size", "-1"), "--size -1"),
        (("shards", "PHOTOS", "-o", "OUT", "--quality", "100"), "--quality 100"),
        (("shards", "PHOTOS", "-o", "OUT", "--limit", "0"), "--limit 0"),
        (("shards", "PHOTOS", "-o", "OUT", "--seed", "-1"), "--seed -1"),
        (("shapes", "-o", "OUT", "--count", "0"), "0 photos"),
        (("shapes", "-o", "OUT", "--seed", "-1"), "--seed -1"),
    ],
)
def test_bad_input_writes_nothing(photos: Path, tmp_path: Path, words: tuple, says: str) -> None:
    places = {"PHOTOS": photos, "OUT": tmp_path / "out"}
    with pytest.raises(InputError, match=says) as caught:
        run(*(places.get(word, word) for word in words))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_unreadable_photos_alone_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"torn")
    with pytest.raises(InputError, match="not one of 1 photos could be read: a.jpg"):
        run("shards", tmp_path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_help_lists_the_commands_and_each_shows_an_example(capsys) -> None:
    run("--help")
    overview = capsys.readouterr().out
    for name in ("shards", "shapes", "benchmark"):
        assert f"data {name} " in overview
        with pytest.raises(SystemExit) as done:
            run(name, "--help")
        assert done.value.code == 0 and f"Example: nuwa-lip data {name} " in capsys.readouterr().out
