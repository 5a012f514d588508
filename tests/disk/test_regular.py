"""Pipes and devices are not waited for, and the names in a stranger's file lead nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nuwa_lip.baselines.methods import kept
from nuwa_lip.commands.captions import read_captions
from nuwa_lip.data.benchmark import load_photo
from nuwa_lip.data.official import read_mask_pickle
from nuwa_lip.data.sources import Entry, load_entries
from nuwa_lip.disk import inside, read_object, regular
from nuwa_lip.disk.tensors import read_tensors
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2SConfig
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training import recipes
from nuwa_lip.training.tokens import TokenCache

READERS: dict[str, Callable[[Path], object]] = {
    "object": read_object,
    "captions": read_captions,
    "photo": load_photo,
    "mask": read_mask_pickle,
    "entry": lambda path: list(load_entries([Entry(path=path, key="x")], None)),
    "tensors": read_tensors,
    "tokenizer": CaptionTokenizer.from_file,
    "recipe": lambda path: recipes.from_file("mps2s", path),
    "tokens": lambda path: TokenCache.open(path.parent, MPS2SConfig.preset("tiny")),
    "run": lambda path: kept(lambda item: item.image, path.parent, {}),
}
NAMES = {"tokens": "tokens.json", "run": "run.json"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / NAMES.get(name, "x.json")
    os.mkfifo(path)
    with pytest.raises(InputError) as caught:
        READERS[name](path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is a device, not a file"):
        regular(Path(name))


def test_files_folders_and_nothing_are_left_to_whoever_opens_them(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path, tmp_path / "none", tmp_path / "circle", Path("a\0b")):
        assert regular(path) == path


def test_names_stay_within_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "private.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "private.png")
    (folder / "circle").symlink_to("circle")
    for name in ("a.png", "sub/../a.png", "sub/b.png", str(folder / "c.png")):
        assert inside(folder, folder / name) == folder / name
    for name in ("../private.png", "sub/../../private.png", "/etc/passwd", "link.png", "circle", "a\0b"):
        with pytest.raises(InputError, match="is not within .*photos: put the file there"):
            inside(folder, folder / name)
