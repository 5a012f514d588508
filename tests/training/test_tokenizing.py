"""Making a token cache: the same to the bit by one process or several, killed or not; refused if something differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.data.shards import expand_shards
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN
from nuwa_lip.training import tokenizing
from nuwa_lip.training.tokenizing import TokenRecipe, encode_pair, write_cache
from nuwa_lip.training.tokens import TokenCache
from tests.folders import contents
from tests.small_runs import DFVQGAN_CONFIG, MPS2S_CONFIG, PHOTOS

RECIPE: dict[str, Any] = dict(
    variants=2,
    masks=MaskRecipe(rectangles=0.5, border=0.3, everything=0.1, nothing=0.1),
    augmentation=Augmentation(),
    seed=0,
    batch_size=5,
)


def model_of(seed: int) -> DFVQGAN:
    torch.manual_seed(seed)
    return DFVQGAN(DFVQGAN_CONFIG).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> DFVQGAN:
    return model_of(0)


def write(folder: Path, model: DFVQGAN, shards: Path, *, changes: dict[str, Any] | None = None, **how: Any) -> Any:
    return write_cache(folder, model, expand_shards(shards), TokenRecipe(**{**RECIPE, **(changes or {})}), **how)


@pytest.fixture(scope="module")
def undisturbed(model: DFVQGAN, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a cache holds that one process has made at once."""
    folder = tmp_path_factory.mktemp("undisturbed") / "tokens"
    parts, photos = write(folder, model, shards)
    assert parts == len(expand_shards(shards)) > 2 and photos == PHOTOS
    assert [path.name for path in folder.parent.iterdir()] == ["tokens"]
    return contents(folder)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1)])
def test_processes_share_the_work(
    order: tuple[int, ...], model: DFVQGAN, shards: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    for rank in order:
        assert not (tmp_path / "tokens").exists()
        parts, photos = write(tmp_path / "tokens", model, shards, rank=rank, world_size=len(order))
    assert parts == len(expand_shards(shards)) and photos == PHOTOS
    assert contents(tmp_path / "tokens") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_a_process_that_is_late_finds_a_cache(model: DFVQGAN, shards: Path, tmp_path: Path) -> None:
    folder, plan = tmp_path / "tokens", {"format_version": 3}
    write(folder, model, shards)
    before = contents(folder)
    found = tokenizing._finish(folder, tmp_path / "tokens.unfinished-0", plan, expand_shards(shards))
    assert found == (0, 0) and contents(folder) == before, "the folder of the parts has gone"


class Killed(Exception):
    pass


def killing(after: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Encode so many batches, then end as a process does that is killed: nothing is tidied up by it."""
    left = iter(range(after))

    def encode(*args: Any) -> tuple[Tensor, Tensor]:
        if next(left, None) is None:
            raise Killed
        return encode_pair(*args)

    return encode


def test_a_killed_run_goes_on_where_it_stopped(
    model: DFVQGAN,
    shards: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = []
    for after in (3, 1, 2):
        monkeypatch.setattr(tokenizing, "encode_pair", killing(after))
        with pytest.raises(Killed):
            write(tmp_path / "tokens", model, shards)
        (unfinished,) = tmp_path.iterdir()
        encoded.append(sum(path.is_dir() and path.name.isdigit() for path in unfinished.iterdir()))
        assert unfinished.name.startswith("tokens.unfinished-")
        (unfinished / ".000003.part").mkdir(exist_ok=True)  # what SIGKILL leaves
    assert encoded == sorted(encoded) and encoded[0] < encoded[-1], "parts that are whole stay"
    monkeypatch.setattr(tokenizing, "encode_pair", encode_pair)
    write(tmp_path / "tokens", model, shards)
    assert contents(tmp_path / "tokens") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_a_finished_cache_is_left_as_it_is(
    model: DFVQGAN, shards: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "tokens", model, shards)
    monkeypatch.setattr(tokenizing, "encode_pair", killing(0))
    parts, photos = write(tmp_path / "tokens", model, shards, replace=False)
    assert photos == PHOTOS and contents(tmp_path / "tokens") == undisturbed


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "recipe": ({"changes": {"variants": 3}}, "was made with variants 2, not 3: --overwrite replaces it"),
    "masks": ({"changes": {"masks": MaskRecipe(border=1)}}, r"was made with masks.rectangles 0.5, not "),
    "model": ({}, r"was made with another image tokenizer \(--model\): --overwrite replaces it"),
    "fewer": ({}, r"was made with other shards \(--data\): photos-00000\d.tar differs: --overwrite replaces it"),
    "content": ({}, r"was made with another photos-000001.tar \(--data\): --overwrite makes it anew"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("other", OTHERS)
def test_a_cache_of_something_else_is_refused(
    other: str, finished: bool, model: DFVQGAN, shards: Path, tmp_path: Path
) -> None:
    data, folder = Path(shutil.copytree(shards, tmp_path / "data")), tmp_path / "made/tokens"
    folder.parent.mkdir()
    write(folder, model, data, rank=0, world_size=1 if finished else 1000)
    if not finished:
        write(folder, model, data, rank=1, world_size=1000)
    before = contents(folder.parent)
    if other == "fewer":
        max(data.iterdir()).unlink()
    if other == "content":
        shutil.copy(data / "photos-000000.tar", data / "photos-000001.tar")
    how, says = OTHERS[other]
    with pytest.raises(InputError, match=says) as error:
        write(folder, model_of(1) if other == "model" else model, data, **how, replace=False)
    assert "\n" not in str(error.value) and contents(folder.parent).keys() >= before.keys()
    write(folder, model_of(1) if other == "model" else model, data, **how)
    assert [path.name for path in folder.parent.iterdir()] == ["tokens"]
    assert TokenCache.open(folder, MPS2S_CONFIG).variants == how.get("changes", {}).get("variants", 2)


def test_other_seeds_give_other_crops(model: DFVQGAN, shards: Path, undisturbed: Any, tmp_path: Path) -> None:
    write(tmp_path / "tokens", model, shards, changes={"seed": 1})
    other = contents(tmp_path / "tokens")
    assert all(other[f"000000/{name}.npy"] != undisturbed[f"000000/{name}.npy"] for name in ("images", "masks"))


def test_parts_have_their_own_holes(model: DFVQGAN, shards: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.tar", "b.tar"):
        shutil.copy(shards / "photos-000000.tar", data / name)
    write(tmp_path / "tokens", model, data)
    parts = TokenCache.open(tmp_path / "tokens", MPS2S_CONFIG).parts
    assert all(not torch.equal(parts[0].array(name), parts[1].array(name)) for name in ("masks", "images"))


def test_a_shard_that_cannot_be_reached_is_tried_again(
    model: DFVQGAN, shards: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    data, folder = Path(shutil.copytree(shards, tmp_path / "data")), tmp_path / "made/tokens"
    names = expand_shards(data)
    recipe = TokenRecipe(**RECIPE)
    away = Path(names[0]).rename(tmp_path / "away.tar")
    write_cache(folder, model, names, recipe, rank=0, world_size=2)
    away.rename(names[0])
    write_cache(folder, model, names, recipe, rank=0, world_size=2)
    write_cache(folder, model, names, recipe, rank=1, world_size=2)
    assert contents(folder) == undisturbed


def test_a_full_disk_keeps_what_is_whole(
    model: DFVQGAN, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "tokens", model, shards, changes={"variants": 1})
    before, count = contents(tmp_path), iter(range(99))

    def full(*args: Any) -> tuple[Tensor, Tensor]:
        if next(count) == 3:
            raise OSError(28, "No space left on device")
        return encode_pair(*args)

    monkeypatch.setattr(tokenizing, "encode_pair", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "tokens", model, shards)
    now = contents(tmp_path)
    assert {name: now[name] for name in before} == before, "the cache that was there"
    more = {name.split("/")[1] for name in now.keys() - before.keys()}
    assert {"plan.json", "000000", "dfvqgan"} <= more and not any(name.endswith(".part") for name in more)
