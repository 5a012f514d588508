"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from nuwa_lip.disk import check_writable, temporary_folder, write_json, write_text, written_folder, written_whole
from nuwa_lip.errors import InputError
from tests.folders import contents


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [True, False])
def test_a_file_is_written_whole_or_not_at_all(there: bool, error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    if there:
        path.write_text("old")
    before = contents(tmp_path)
    with pytest.raises(type(error)), written_whole(path) as part:
        part.write_text("half")
        assert part.parent == tmp_path and contents(tmp_path).items() >= before.items()
        raise error
    assert contents(tmp_path) == before
    with written_whole(path) as part, written_whole(path) as other:  # two writers do not meet
        part.write_text("first")
        other.write_text("second")
    assert contents(tmp_path) == {"a.txt": b"first"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_is_written_whole_or_not_at_all(there: bool, error: BaseException, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "a"
    if there:
        write_text(folder / "x", "old")
    before = contents(tmp_path)
    with pytest.raises(type(error)), written_folder(folder) as part:
        write_text(part / "y", "half")
        raise error
    assert contents(tmp_path) == before and (tmp_path / "deep").exists() == there
    with written_folder(folder) as part:
        write_text(part / "y", "new")
    assert contents(tmp_path) == {"deep/a/y": b"new"}


def test_a_temporary_folder_is_empty_and_goes_away(tmp_path: Path) -> None:
    write_text(tmp_path / ".a.part" / "x", "of a process that was killed")
    with temporary_folder(tmp_path / "a") as part:
        assert list(part.iterdir()) == []
        write_text(part / "y", "moved")
        write_text(part / "z", "left")
        (part / "y").rename(tmp_path / "y")
    assert contents(tmp_path) == {"y": b"moved"} and [path.name for path in tmp_path.iterdir()] == ["y"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot write to .*file/a: Not a directory"),
        written_folder(tmp_path / "file/a"),
    ):
        raise AssertionError("nothing is to be written")


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"a": [1]})
    with pytest.raises(TypeError):
        write_json(tmp_path / "new" / "a.json", {"a": object()})
    write_json(tmp_path / "b.json", {"a": [1]}, indent=None)
    assert contents(tmp_path) == {"new/a.json": b'{\n  "a": [\n    1\n  ]\n}\n', "b.json": b'{"a": [1]}\n'}


def test_a_report_may_be_written_into_folders_that_are_yet_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "some" / "where" / "x.json")
    check_writable(tmp_path / "file")
    for name, says in (("file/x.json", "cannot write .*not a directory"), ("", "is a folder; name a file")):
        with pytest.raises(InputError, match=says):
            check_writable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
