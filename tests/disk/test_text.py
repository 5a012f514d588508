"""Text and JSON of others: what is wrong with a file is one line that names it, whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nuwa_lip import convert, hub
from nuwa_lip.baselines.glide import folder as glide_folder
from nuwa_lip.baselines.methods import kept
from nuwa_lip.bench import compare
from nuwa_lip.commands.captions import read_captions
from nuwa_lip.data.benchmark import read_benchmark
from nuwa_lip.data.sources import add_objects, list_source, take_split
from nuwa_lip.disk import lines_of, parse_json, read_object
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.human import Key
from nuwa_lip.models import MPS2SConfig
from nuwa_lip.tables.budget import budget_of
from nuwa_lip.training import recipes
from nuwa_lip.training.tokens import TokenCache

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


def test_lines_are_cut_at_line_breaks_only() -> None:
    assert lines_of("a\u2028b\x85c\x0bd\x0c\x1c\t\n\n \n e") == ["a\u2028b\x85c\x0bd\x0c\x1c\t", " e"]
    assert lines_of("") == []


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
