"""Files are written whole or not at all."""

from __future__ import annotations

import os
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


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "a") as part:
        write_text(part / "x", "mine")
        with (
            pytest.raises(InputError, match="another process is writing .*a: wait for its end"),
            temporary_folder(tmp_path / "a"),
        ):
            raise AssertionError("it is being written")
        with written_folder(tmp_path / "a.b") as other:  # another name, although it begins alike
            write_text(other / "x", "its")
        assert (part / "x").read_text() == "mine"
    assert contents(tmp_path) == {"a.b/x": b"its"}


def test_what_a_killed_process_has_left_goes(tmp_path: Path) -> None:
    left = tmp_path / ".a.0123abcd.part"
    write_text(left / "x", "half")
    write_text(tmp_path / ".b.0123abcd.part" / "x", "of another folder")
    with written_folder(tmp_path / "a") as part:
        write_text(part / "x", "whole")
    assert contents(tmp_path) == {"a/x": b"whole", ".b.0123abcd.part/x": b"of another folder"}


def test_old_temporary_files_of_killed_processes_go(tmp_path: Path) -> None:
    for name in (".old.png.0123abcd.part", ".new.png.0123abcd.part", "mine.part"):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0) if "new" not in name else None)
    write_text(tmp_path / "a.txt", "whole")
    assert contents(tmp_path) == {".new.png.0123abcd.part": b"half", "a.txt": b"whole", "mine.part": b"half"}


@pytest.mark.parametrize("links", [True, False])
def test_what_has_appeared_meanwhile_stays(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with written_whole(tmp_path / "b", replace=False) as part:
        part.write_text("mine")
    with (
        pytest.raises(InputError, match="b exists already: another process"),
        written_whole(tmp_path / "b", replace=False) as part,
    ):
        part.write_text("second")
    with (
        pytest.raises(InputError, match="a exists already: another process"),
        written_folder(tmp_path / "a", replace=False) as part,
    ):
        write_text(tmp_path / "a" / "x", "its")
    assert contents(tmp_path) == {"b": b"mine", "a/x": b"its"}


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*name\.x'"), written_whole(tmp_path / "name.x"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left on device") as caught, written_folder(tmp_path / "name.x"):
        raise OSError(28, "No space left on device")
    assert caught.value.__notes__ == [f"{tmp_path / 'name.x'} could not be written"]
