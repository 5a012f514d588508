"""`nuwa-lip inpaint` for shards and object stores: what is fetched is repainted as the same photos in a folder are."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest

from nuwa_lip.commands.fetched_inputs import fetched, place_of
from nuwa_lip.commands.inpaint_folder import attempts_here
from nuwa_lip.errors import InputError
from tests.folders import contents, make_photos

Run = Callable[..., Any]
CAPTIONS = {"000": "a bear", "001": "a blue lake"}


@pytest.fixture
def inpaint(nuwa_lip: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run it in the folder of the test, where photos/ has 000.png and 001.png, and mask.png is for all."""
    monkeypatch.chdir(tmp_path)
    make_photos(2)
    Path("captions.json").write_text(json.dumps(CAPTIONS))
    return lambda *words: nuwa_lip("inpaint", *words, "--model", tiny_model, "--seed", 0)


@pytest.fixture
def expected(inpaint: Run) -> dict[str, bytes]:
    done = inpaint("photos", "--mask", "mask.png", "--prompt", "captions.json", "-o", "expected")
    assert done.code == 0, done.err
    return contents(Path("expected"))


@pytest.fixture
def store() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def tar(name: str, files: dict[str, bytes]) -> str:
    with tarfile.open(name, "w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return name


def shard(number: int) -> dict[str, bytes]:
    key = f"{number:03}"
    text = json.dumps({"captions": [CAPTIONS[key], "another"]}).encode() if number else CAPTIONS[key].encode()
    return {
        f"{key}.png": Path(f"photos/{key}.png").read_bytes(),
        f"{key}.mask.png": Path("mask.png").read_bytes(),
        f"{key}.{'json' if number else 'txt'}": text,
    }


def results(folder: str) -> dict[str, bytes]:
    return {name: data for name, data in contents(Path(folder)).items() if "/" not in name}


def test_shards_bring_photos_masks_and_captions(inpaint: Run, expected: dict[str, bytes]) -> None:
    for number in (0, 1):
        tar(f"photos-{number}.tar", shard(number))
    words = ("photos-{0..1}.tar", "--captions", "photos-{0..1}.tar", "-o", "out")
    done = inpaint(*words)
    assert done.code == 0 and results("out") == expected, done.err
    assert set(contents(Path("out/inputs"))) >= {"000.png", "000_mask.png", "001.png", "001_mask.png"}
    Path("photos-0.tar").unlink()
    Path("out/001.png").unlink()
    again = inpaint(*words)  # goes on with what it fetched
    assert again.code == 0 and "1 of 2 photos have a result already" in again.out and results("out") == expected
    done = inpaint("photos-1.tar", "--prompt", "x", "-o", "out")
    assert done.code == 2 and "fetched from elsewhere than photos-1.tar" in done.err


@pytest.mark.parametrize("beside", [True, False])
def test_a_folder_of_an_object_store_is_read(
    beside: bool, inpaint: Run, expected: dict[str, bytes], store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where the work is done is another test's matter, which starts Ray
    monkeypatch.setattr("nuwa_lip.commands.inpaint.attempts_on_cluster", attempts_here)
    for photo in Path("photos").iterdir():
        store.pipe(f"/bucket/photos/{photo.name}", photo.read_bytes())
        mask = f"photos/{photo.stem}_mask.png" if beside else f"masks/{photo.name}"
        store.pipe(f"/bucket/{mask}", Path("mask.png").read_bytes())
    store.pipe("/bucket/photos/notes.txt", b"no picture")
    more = () if beside else ("--mask", "memory://bucket/masks")
    done = inpaint("memory://bucket/photos", *more, "--prompt", "captions.json", "-o", "out", "--cluster")
    assert done.code == 0 and done.err == "" and results("out") == expected


def test_a_hole_may_be_drawn(inpaint: Run, store: Any) -> None:
    store.pipe("/bucket/000.png", Path("photos/000.png").read_bytes())
    store.pipe("/bucket/000_mask.png", b"no picture")
    done = inpaint("memory://bucket", "--box", 5, 5, 20, 20, "--prompt", "x", "-o", "out")
    assert "000.png" in results("out"), done.err


def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(inpaint: Run, store: Any, tmp_path: Path) -> None:
    tar("twice.tar", {"a/b.png": b"1", "a-b.png": b"2"})
    Path("zipped.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    before = contents(tmp_path)
    for place, says in {
        "none.tar": "no shard at none.tar",
        "twice.tar": "a second a-b.png",
        "zipped.tar": "compressed (gzip): unpack it",
        "memory://nowhere/photos": "memory://nowhere/photos cannot be listed",
        "https://localhost/photos": "is no folder that can be listed",
        "nonsense://photos": "is no folder that can be listed",
    }.items():
        done = inpaint(place, "--prompt", "x", "-o", "out")
        assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1, (place, done.err)
        assert contents(tmp_path) == before and not Path("out").exists()
    done = inpaint("twice.tar", "--prompt", "x", "-o", "-")
    assert done.code == 2 and "needs a folder for the results" in done.err


def test_names_in_a_shard_stay_in_the_folder(tmp_path: Path) -> None:
    place = tar(str(tmp_path / "names.tar"), {"../../etc/a.png": b"1", "/b.mask.PNG": b"2", "c d/é.jpg": b"3"})
    folder = fetched(place, tmp_path / "out" / "inputs")
    assert {name for name in contents(folder) if not name.startswith(".")} == {"etc-a.png", "b_mask.PNG", "c d-é.jpg"}


def test_a_damaged_shard_is_told(tmp_path: Path) -> None:
    place = tar(str(tmp_path / "torn.tar"), {"a.png": bytes(2000), "b.png": bytes(2000)})
    Path(place).write_bytes(Path(place).read_bytes()[:3500])
    with pytest.warns(UserWarning, match="damaged"):
        folder = fetched(place, tmp_path / "inputs")
    assert "a.png" in contents(folder) and "b.png" not in contents(folder)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("photos", None),
        ("a.png", None),
        ("-", None),
        ("shards/x-{000..009}.tar", "shards/x-{000..009}.tar"),
        ("s3://bucket/photos/", "s3://bucket/photos"),
        ("https://host/x.tar", "https://host/x.tar"),
        ("c:/photos", None),
    ],
)
def test_places(path: str, place: str | None) -> None:
    assert place_of(Path(path)) == place


def test_a_folder_of_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    with pytest.raises(InputError, match="choose another -o"):
        fetched("s3://bucket/photos", tmp_path / "inputs")
