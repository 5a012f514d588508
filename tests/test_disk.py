"""Files are written whole or not at all; what is wrong with one that others have written is one line that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from nuwa_lip import convert, hub
from nuwa_lip.baselines.glide import folder as glide_folder
from nuwa_lip.baselines.methods import kept
from nuwa_lip.bench import compare
from nuwa_lip.commands.captions import read_captions
from nuwa_lip.data.benchmark import read_benchmark
from nuwa_lip.data.sources import add_objects, list_source, take_split
from nuwa_lip.disk import (
    check_writable,
    from_json,
    lines_of,
    parse_json,
    read_object,
    temporary_folder,
    write_json,
    write_text,
    written_folder,
    written_whole,
)
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.human import Key
from nuwa_lip.models import MPS2SConfig
from nuwa_lip.tables.budget import budget_of
from nuwa_lip.training import recipes
from nuwa_lip.training.tokens import TokenCache
from tests.folders import contents

DEEP = "[" * 100_000
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "captions.json": ("captions", read_captions),
    "captions.jsonl": ("captions", read_captions),
    "coco.json": ("coco", lambda file: list_source("coco", file.parent, file)),
    "vg.json": ("visual-genome", lambda file: list_source("visual-genome", file.parent, file)),
    "table.jsonl": ("folder", lambda file: list_source("folder", file.parent, file)),
    "dataset.json": ("splits", lambda file: take_split([], file, "test")),
    "instances.json": ("instances", lambda file: add_objects([], file)),
    "benchmark.json": ("damaged", lambda file: read_benchmark(file.parent)),
    "config.json": ("JSON", lambda file: hub.load_model(file.parent)),
    "glide/config.json": ("JSON", lambda file: glide_folder.load_glide(file.parent)),
    "vq/config.json": ("VQModel", lambda file: convert.load(file.parent)),
    "recipe.json": ("JSON", lambda file: recipes.from_file("mps2s", file)),
    "tokens.json": ("damaged", lambda file: TokenCache.open(file.parent, MPS2SConfig.preset("tiny"))),
    "bench.json": ("report", lambda file: compare.read(file, {})),
    "page.key.json": ("JSON", Key.read),
    "run.json": ("JSON", lambda file: kept(lambda item: item.image, file.parent, {})),
    "run/recipe.json": ("damaged", lambda file: budget_of(file.parent)),
}


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


def test_lines_are_cut_at_line_breaks_only() -> None:
    assert lines_of("a\u2028b\x85c\x0bd\x0c\x1c\t\n\n \n e") == ["a\u2028b\x85c\x0bd\x0c\x1c\t", " e"]
    assert lines_of("") == []


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    shares: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"size is {self.size}; it must be 1 or more")
        1 / (self.size - 13)


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    way: Literal["here", "there"] = "here"
    weight: float | None = None
    rates: Mapping[str, float] | None = None
    more: dict[str, Any] | None = None
    on: bool = False


def test_a_dataclass_comes_from_json() -> None:
    values = {"inner": {"size": 2, "shares": [1, math.inf], "names": ["a"]}, "weight": 3, "more": {"x": [1]}}
    inner = Inner(size=2, shares=(1, math.inf), names=("a",))
    assert from_json(Outer, values, "it") == Outer(inner=inner, weight=3, more={"x": [1]})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (None, "it is missing; it must be an object with fields"),
        ([1], "it is [1]; it must be an object with fields"),
        ({"inner": 4}, "it: inner is 4; it must be an object with fields"),
        ({}, "it cannot be used: Outer.__init__() missing 1 required keyword-only argument: 'inner'"),
        ({"new": 1}, "it has the unknown field 'new': update nuwa-lip, or remove it"),
        ({"inner": {"size": 1, "new": 1}}, "it: inner has the unknown field 'new': update nuwa-lip, or remove it"),
        ({"inner": {"size": "1"}}, "it: inner: size is '1'; it must be int"),
        ({"inner": {"size": 1.0}}, "it: inner: size is 1.0; it must be int"),
        ({"inner": {"size": True}}, "it: inner: size is True; it must be int"),
        ({"inner": {"size": 0}}, "it: inner cannot be used: size is 0; it must be 1 or more"),
        ({"inner": {"size": 13}}, "it: inner cannot be used: division by zero"),
        ({"inner": {"size": 1, "shares": [1]}}, "it: inner: shares is [1]; it must be tuple[float, float]"),
        ({"inner": {"size": 1, "names": [1]}}, "it: inner: names is [1]; it must be tuple[str, ...]"),
        ({"way": "x"}, "it: way is 'x'; it must be Literal['here', 'there']"),
        ({"weight": "x"}, "it: weight is 'x'; it must be float | None"),
        ({"weight": False}, "it: weight is False; it must be float | None"),
        ({"rates": {"a": "b"}}, "it: rates is {'a': 'b'}; it must be collections.abc.Mapping[str, float] | None"),
        ({"on": 1}, "it: on is 1; it must be bool"),
        ({"more": "x" * 999}, "it: more is '" + "x" * 79 + "; it must be dict[str, Any] | None"),
    ],
)
def test_what_no_dataclass_can_be_made_of_is_named(values: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(Outer, values, "it")
    assert str(caught.value) == says


@pytest.mark.parametrize("text", [DEEP, "{", b"\xff"])
def test_what_cannot_be_parsed_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DEEP, "x.json is not valid JSON: it is nested too deeply"),
        ("{", "x.json is not valid JSON: Expecting"),
        ("[]", "x.json holds list, not an object"),
        (None, "cannot read .*x.json: No such file"),
    ],
)
def test_a_file_without_an_object_is_named(text: str | None, says: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_object(tmp_path / "x.json")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_a_file_that_is_nested_too_deeply(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    for beside in ("captions.jsonl", "metrics.jsonl"):
        (file.parent / beside).touch()
    file.write_text(DEEP)
    says, read = READERS[name]
    with pytest.raises(InputError, match=says) as caught:
        read(file)
    message = str(caught.value)
    assert str(file.parent) in message and "nested too deeply" in message and "\n" not in message
    assert len(message) < 300 + len(str(file))
