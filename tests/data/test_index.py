"""Samples of local shards in any order: what an index tells, and that it is of the shard as it is."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.data import index
from nuwa_lip.data.index import IndexedShards, index_of
from nuwa_lip.data.shards import read_encoded
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.errors import InputError

SHARDS, EACH = 10, 7


def write_tar(path: Path, names: list[str], kind: int = tarfile.GNU_FORMAT) -> Path:
    """A shard whose pictures are their names."""
    with tarfile.open(path, "w", format=kind) as tar:
        for name in names:
            for ending, content in (("jpg", name.encode()), ("txt", f"a photo of {name}".encode())):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    return [str(write_tar(tmp_path / f"{s}.tar", [f"{s}-{i}" for i in range(EACH)])) for s in range(SHARDS)]


def keys(shards: IndexedShards, seed: int, places: range) -> list[str]:
    return [shards.read(seed, place).key for place in places]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_sample_read_alone_is_that_of_the_whole_shard(kind: int, tmp_path: Path) -> None:
    long = (
        ["x" * 90 + str(i) for i in range(3)]
        if kind == tarfile.USTAR_FORMAT
        else ["ä" * 120 + str(i) for i in range(3)]
    )
    path = write_tar(tmp_path / "a.tar", ["a", *long, "b"], kind)
    alone = IndexedShards([str(path)])
    found = sorted(alone.read(0, place) for place in range(5))
    assert found == sorted(read_encoded([str(path)], Skipped())) and len({one.key for one in found}) == 5


def test_an_epoch_gives_every_sample_once(shards: list[str]) -> None:
    found = keys(IndexedShards(shards, window=3), 1, range(3 * SHARDS * EACH))
    epochs = [found[i : i + SHARDS * EACH] for i in range(0, len(found), SHARDS * EACH)]
    assert all(Counter(epoch) == Counter(f"{s}-{i}" for s in range(SHARDS) for i in range(EACH)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    for start, stop in ((0, 1), (1, 3), (3, 6), (6, 9)):
        window = {key.split("-")[0] for key in epochs[0][start * EACH : stop * EACH]}
        assert len(window) == stop - start, "a few shards at a time"


@pytest.mark.parametrize("start", [5, 75, 139, 1000])
def test_any_place_can_be_the_first(start: int, shards: list[str]) -> None:
    through = keys(IndexedShards(shards, window=3), 2, range(start + 30))
    assert keys(IndexedShards(shards, window=3), 2, range(start, start + 30)) == through[start:]


def test_only_what_is_needed_is_read(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    placed = index.read_placed

    def spy(names: Any, skipped: Skipped) -> Any:
        scanned.extend(names)
        return placed(names, skipped)

    monkeypatch.setattr(index, "read_placed", spy)
    keys(IndexedShards(shards), 0, range(3))
    assert len(scanned) == 1, "a training begins with the first shard"
    keys(IndexedShards(shards), 0, range(EACH, 3 * EACH))
    assert len(scanned) == 3, "a resumed run has an index of the first one"


def test_few_indexes_are_held(shards: list[str]) -> None:
    source = IndexedShards(shards, window=2)
    keys(source, 0, range(2 * SHARDS * EACH))
    assert len(source.held) == 4


def test_an_index_is_of_the_shard_as_it_is(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", ["a", "b"])
    assert len(index_of(path).places) == 2
    kept = tmp_path / ".index/a.tar.json"
    told = json.loads(kept.read_text())
    assert told["places"] == index_of(path).places.flatten().tolist()
    write_tar(path, ["a", "b", "c"])
    assert len(index_of(path).places) == 3
    about = {"size": path.stat().st_size, "changed": path.stat().st_mtime_ns, "skipped": vars(Skipped())}
    for bad in ({}, about, about | {"places": [0, 10**12]}, about | {"places": [5, 3]}, about | {"places": "x"}):
        kept.write_text(json.dumps(bad))
        assert len(index_of(path).places) == 3
    kept.write_text("{")
    assert len(index_of(path).places) == 3


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that is a file")
def test_a_folder_that_takes_no_index_is_read_all_the_same(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", ["a", "b"])
    (tmp_path / ".index").write_text("no folder")
    assert len(index_of(path).places) == 2


def test_damage_is_told_once_all_shards_are_known(shards: list[str]) -> None:
    whole = Path(shards[3]).read_bytes()
    Path(shards[3]).write_bytes(whole[: len(whole) // 3])
    with pytest.warns(UserWarning, match="skipped .*3.tar .*it ends early.*; there are "):
        keys(IndexedShards(shards), 0, range(SHARDS * EACH))
    with pytest.warns(UserWarning, match="3.tar"):  # from the indexes
        keys(IndexedShards(shards), 0, range(SHARDS * EACH))


def test_no_sample_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [])
    with pytest.raises(InputError, match="no photo could be read from .*a.tar"):
        IndexedShards([str(path)]).read(0, 0)
