"""`nuwa-lip tokenize`: a cache that stage 2 opens, and one line for bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.commands import tokenize
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, MPS2SConfig
from nuwa_lip.training import tokenizing
from nuwa_lip.training.tokens import TokenCache, unpack_masks
from tests.folders import contents
from tests.small_runs import DFVQGAN_CONFIG, PHOTOS, make_shards

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """--model and --data, with what belongs to them."""
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    save_model(folder / "model", dfvqgan=DFVQGAN(DFVQGAN_CONFIG))
    return ["--model", folder / "model", "--data", make_shards(folder / "shards")]


def test_a_cache_that_stage_2_opens(nuwa_lip: Run, given: list[Any], tmp_path: Path) -> None:
    words = ["tokenize", *given, "-o", tmp_path / "tokens", "--variants", 3]
    done = nuwa_lip(*words)
    assert done.code == 0 and done.out == f"{tmp_path / 'tokens'}: {PHOTOS} photos, 3 variants of each\n"
    cache = TokenCache.open(tmp_path / "tokens", MPS2SConfig.preset("tiny"))
    assert len(cache) == 3 * PHOTOS and cache.variants == 3 and cache.factor == 4
    before = contents(tmp_path)
    done = nuwa_lip(*words)
    assert done.code == 0 and f"{PHOTOS} photos" in done.out and contents(tmp_path) == before, "it is there already"
    done = nuwa_lip(*words, "--seed", 5)
    assert done.code == 2 and "tokens was made with seed 0, not 5: --overwrite replaces it" in done.err
    assert contents(tmp_path) == before
    assert nuwa_lip(*words, "--overwrite").code == 0
    assert contents(tmp_path) == before, "the same words give the same cache"
    assert nuwa_lip(*words, "--overwrite", "--seed", 5).code == 0
    assert contents(tmp_path)["tokens/000000/masks.npy"] != before["tokens/000000/masks.npy"]


def test_processes_of_torchrun_share_the_shards(
    nuwa_lip: Run, given: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nuwa_lip("tokenize", *given, "-o", tmp_path / "one/tokens").code == 0
    words, said = ["tokenize", *given, "-o", tmp_path / "two/tokens"], []
    for rank in ("1", "0"):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        said.append(nuwa_lip(*words))
    assert [done.code for done in said] == [0, 0]
    assert (
        said[0].out == "" and "process 1 of 2 is done; " in said[0].err and " shards are left to others" in said[0].err
    )
    assert f"{PHOTOS} photos, 2 variants" in said[1].out
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_holes_are_drawn_as_asked(nuwa_lip: Run, given: list[Any], tmp_path: Path) -> None:
    words = ["--masks.strokes", 0, "--masks.border", 0, "--masks.everything", 0, "--masks.ratio", 0.1, 0.2]
    assert nuwa_lip("tokenize", *given, "-o", tmp_path / "tokens", "--batch-size", 5, *words).code == 0
    cache = TokenCache.open(tmp_path / "tokens", MPS2SConfig.preset("tiny"))
    share = unpack_masks(cache.array("masks"), 32).float().mean((1, 2, 3))
    assert 0.08 < share.min() and share.max() < 0.23
    assert tokenize.MASKS.ratio == MaskRecipe().ratio == (0.4, 0.6), "stage 2's own"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--variants", "0"], "--variants is 0; it must be 1 or more"),
        (["--batch-size", "0"], "--batch-size is 0; it must be 1 or more"),
        (["--workers", "0"], "--workers is 0; it must be 1 or more"),
        (["--seed", "-1"], "--seed is -1; it must be 0 or more"),
        (["--masks.ratio", "0.9", "0.1"], "mask ratio 0.9..0.1"),
        (["--model", "nothing"], "there is no model 'nothing'"),
        (["--data", "nowhere.tar"], "no shard at nowhere.tar"),
        (["--augmentation.no-colour", "1"], "--augmentation.no-colour"),
    ],
)
def test_bad_input(more: list[str], says: str, nuwa_lip: Run, given: list[Any], tmp_path: Path) -> None:
    done = nuwa_lip("tokenize", *given, "-o", tmp_path / "tokens", *more)
    assert done.code == 2 and says in done.err and "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
    assert len(done.err.splitlines()) == 1 or more[0].startswith(("--masks", "--augmentation"))  # wrong usage


def test_a_folder_below_a_file(nuwa_lip: Run, given: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    done = nuwa_lip("tokenize", *given, "-o", tmp_path / "file/tokens")
    assert done.code == 2 and f"cannot write to {tmp_path / 'file/tokens'}" in done.err
    assert "Not a directory" in done.err


def test_a_folder_of_something_else_is_left_alone(nuwa_lip: Run, given: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.txt").write_text("mine")
    done = nuwa_lip("tokenize", *given, "-o", tmp_path / "mine", "--overwrite")
    assert done.code == 2 and "mine exists: it is not a token cache; name a new one" in done.err
    assert contents(tmp_path) == {"mine/photo.txt": b"mine"}


def test_a_full_disk(nuwa_lip: Run, given: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizing, "encode_pair", full)
    done = nuwa_lip("tokenize", *given, "-o", tmp_path / "tokens")
    assert done.code == 1 and done.out == "" and not (tmp_path / "tokens").exists()
    assert done.err.splitlines()[-1] == "nuwa-lip: OSError: [Errno 28] No space left on device"
    assert "tokens.unfinished-" in done.err and "could not be written" in done.err


def test_damaged_photos_are_named(nuwa_lip: Run, given: list[Any], tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(min(given[-1].iterdir()).read_bytes()[:700])
    done = nuwa_lip("tokenize", *given, broken, "-o", tmp_path / "tokens", "--variants", 1)
    assert done.code == 0 and f"{PHOTOS} photos, 1 variants" in done.out
    assert "nuwa-lip: warning: skipped 1 that could not be read: broken.tar" in done.err
