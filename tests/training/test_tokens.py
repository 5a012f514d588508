"""The token cache: what it gives is what the DF-VQGAN says, batches are functions of (seed, step)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.data.shards import expand_shards, write_shards
from nuwa_lip.errors import InputError
from nuwa_lip.hub import load_model, save_model
from nuwa_lip.models import DFVQGAN
from nuwa_lip.training import tokenizing
from nuwa_lip.training.token_parts import ARRAYS, hash_of
from nuwa_lip.training.tokenizing import TokenRecipe, encode_pair, write_cache
from nuwa_lip.training.tokens import TokenCache, pack_masks, token_mask, unpack_masks
from tests.small_runs import DFVQGAN_CONFIG, MPS2S_CONFIG, PHOTOS

MASKS = MaskRecipe(rectangles=0.5, border=0.3, everything=0.1, nothing=0.1)
VARIANTS = 3


@pytest.fixture(scope="module")
def model() -> DFVQGAN:
    torch.manual_seed(0)
    return DFVQGAN(DFVQGAN_CONFIG).eval().requires_grad_(False)


def write(folder: Path, model: DFVQGAN, shards: Path, **changes: Any) -> Path:
    options = dict(variants=VARIANTS, masks=MASKS, augmentation=Augmentation(), seed=0, batch_size=10)
    write_cache(folder, model, expand_shards(shards), TokenRecipe(**{**options, **changes}))
    return folder


@pytest.fixture(scope="module")
def written(
    model: DFVQGAN, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[Tensor, Tensor]]]:
    """A cache, and the photos and masks that the model was shown for it."""
    shown = []

    def spy(model: DFVQGAN, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        shown.append((image.clone(), mask.clone()))
        return encode_pair(model, image, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "encode_pair", spy)
        folder = write(tmp_path_factory.mktemp("cache") / "tokens", model, shards)
    return folder, shown


@pytest.fixture(scope="module")
def opened(written: tuple[Path, Any]) -> TokenCache:
    return TokenCache.open(written[0], MPS2S_CONFIG)


def test_rows_are_what_the_model_was_shown_and_said(written: Any, opened: TokenCache, model: DFVQGAN) -> None:
    folder, shown = written
    rows = [len(part) for part in opened.parts]
    assert len(rows) > 1 and sum(rows) == len(opened) == PHOTOS * VARIANTS, "a part for each shard"
    assert [len(image) for image, _ in shown] == [min(10, n - i) for n in rows for i in range(0, n, 10)]
    images, masks = (torch.cat(parts) for parts in zip(*shown, strict=True))
    assert torch.equal(opened.array("images").float().mul_(2 / 255).sub_(1), images)
    assert torch.equal(unpack_masks(opened.array("masks"), 32), masks)
    said = []
    for image, mask in shown:  # slowly, and in the same batches
        known, whole = model.encode(image, mask), model.encode(image)
        token = torch.stack(
            [torch.where(known.token_mask[i, 0], whole.tokens[i], known.tokens[i]) for i in range(len(image))]
        )
        said.append(token)
    assert torch.equal(opened.array("tokens").long(), torch.cat(said))
    assert torch.equal(opened.array("whole").long(), torch.cat([model.encode(image).tokens for image, _ in shown]))
    both = token_mask(masks, 4)
    assert 0.3 < both.float().mean() < 0.9, "both kinds of tokens are there"


def test_every_hole_is_of_the_recipe(opened: TokenCache) -> None:
    share = unpack_masks(opened.array("masks"), 32).float().mean((1, 2, 3))
    between = share[(share > 0) & (share < 1)]
    assert len(between) > 20 and 0.37 < between.min() and between.max() < 0.63


def test_variants_are_other_crops_and_holes(opened: TokenCache) -> None:
    for first in range(0, len(opened), VARIANTS):
        images, masks = (opened.array(name)[first : first + VARIANTS] for name in ("images", "masks"))
        assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
        assert len({mask.numpy().tobytes() for mask in masks}) > 1


def row_of(cache: TokenCache, image: Tensor) -> int:
    same = cache.array("images").float().mul_(2 / 255).sub_(1) == image
    (row,) = same.flatten(1).all(1).nonzero().flatten().tolist()
    return row


def test_an_epoch_gives_every_row_once_with_its_caption(opened: TokenCache, photos: PhotoSet) -> None:
    rows = []
    for step in range(9):  # 36 rows
        batch = opened.batch(step, 4, seed=3)
        assert batch.images.shape == (4, 3, 32, 32) and batch.images.dtype == torch.float32
        assert batch.tokens.shape == (4, 8, 8) and batch.tokens.dtype == torch.int64
        assert batch.masks.shape == (4, 1, 32, 32) and batch.masks.dtype == torch.bool
        for i, image in enumerate(batch.images):
            row = row_of(opened, image)
            assert torch.equal(batch.tokens[i], opened.array("tokens")[row].long())
            assert torch.equal(batch.masks[i : i + 1], unpack_masks(opened.array("masks")[row : row + 1], 32))
            assert batch.captions[i] in photos.captions[row // VARIANTS]
            rows.append(row)
    assert sorted(rows) == list(range(36)) and rows != sorted(rows)


def test_batches_are_functions_of_seed_and_step(opened: TokenCache) -> None:
    through = [batch for batch, _ in zip(opened.batches(6, seed=1), range(8), strict=False)]
    for start in (3, 7):
        later = next(opened.batches(6, seed=1, start_step=start))
        assert later.captions == through[start].captions and torch.equal(later.tokens, through[start].tokens)
    halves = [opened.batch(4, 6, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.equal(torch.cat([half.images for half in halves]), through[4].images)
    assert halves[0].captions + halves[1].captions == through[4].captions
    assert not torch.equal(opened.batch(4, 6, seed=2).images, through[4].images)
    with pytest.raises(InputError, match="batch size 5 is not a positive multiple of the 2 processes"):
        opened.batch(0, 5, seed=0, world_size=2)


def with_captions(cache: TokenCache, captions: list[list[str]]) -> TokenCache:
    """The cache in memory, with other captions."""
    held = cache.load("cpu")
    return dataclasses.replace(held, parts=(dataclasses.replace(held.parts[0], captions=captions),))


def test_captions_are_drawn_from_all_of_a_photos(opened: TokenCache) -> None:
    cache = with_captions(opened, [["a", "b", "c"]] * 11 + [[]])
    drawn = [text for step in range(27) for text in cache.batch(step, 4, seed=0).captions]
    counts = {text: drawn.count(text) for text in drawn}
    assert set(counts) == {"a", "b", "c", ""} and counts[""] == 9 and min(counts.values()) > 6


def test_captions_come_back_photo_by_photo(opened: TokenCache, photos: PhotoSet) -> None:
    assert list(opened.captions()) == photos.captions
    few = list(opened.captions(most=6))
    assert len(few) <= 6 + len(opened.parts) and all(texts in photos.captions for texts in few)


def test_caches_are_joined(opened: TokenCache) -> None:
    both = TokenCache.join([opened, opened])
    assert len(both) == 2 * len(opened) and list(both.captions()) == list(opened.captions()) * 2
    assert all(torch.equal(both.array(name)[len(opened) :], opened.array(name)) for name in ARRAYS)
    with pytest.raises(InputError, match="same --variants"):
        TokenCache.join([opened, dataclasses.replace(opened, variants=1)])
    with pytest.raises(InputError, match="another image tokenizer than .*: make them with the same --model"):
        TokenCache.join([opened, dataclasses.replace(opened, tokenizer="other")])


def test_caches_are_mixed_by_weight(opened: TokenCache) -> None:
    dark = with_captions(opened, [["other"]] * PHOTOS)
    both = TokenCache.join([opened, dark], weights=(1, 3))
    through = [both.batch(step, 8, seed=1) for step in range(100)]
    assert 540 < sum(batch.captions.count("other") for batch in through) < 660
    for parts in (2, 4):
        cut = [both.batch(40, 8, seed=1, rank=rank, world_size=parts) for rank in range(parts)]
        assert torch.equal(torch.cat([part.tokens for part in cut]), through[40].tokens)
        assert [text for part in cut for text in part.captions] == through[40].captions
    held = both.load("cpu").batch(40, 8, seed=1)
    assert torch.equal(held.images, through[40].images) and held.captions == through[40].captions
    with pytest.raises(InputError, match="--weights has 1 numbers for 2 of --data"):
        TokenCache.join([opened, opened], weights=(1,))


def test_a_photo_that_is_hidden_has_the_tokens_of_the_whole(model: DFVQGAN) -> None:
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    found = encode_pair(model, image, torch.ones(1, 1, 32, 32, dtype=torch.bool))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], model.encode(image).tokens)


def test_a_cache_held_in_memory_is_the_same(opened: TokenCache) -> None:
    held = opened.load("cpu")
    for one, other in zip(held.batch(5, 8, seed=0), opened.batch(5, 8, seed=0), strict=True):
        assert one == other if isinstance(one, list) else torch.equal(one, other)
    assert len(held.parts) == 1 and held.checked


def test_it_carries_its_model(written: Any, model: DFVQGAN) -> None:
    loaded = load_model(written[0] / "dfvqgan", need_mps2s=False).dfvqgan
    assert loaded.config == model.config and torch.equal(loaded.last_layer, model.last_layer)


def test_captions_that_name_a_side_forbid_the_mirror(model: DFVQGAN, tmp_path: Path) -> None:
    still = Augmentation(scale=(1.0, 1.0), colour=0.0, stretch=False)
    two = zip(shape_samples(2, size=40), (["a dog", "on the left"], ["a dog"]), strict=True)
    few = tmp_path / "shards"
    write_shards([dataclasses.replace(one, captions=texts) for one, texts in two], few, image_format="png")
    cache = TokenCache.open(write(tmp_path / "c", model, few, variants=16, augmentation=still), MPS2S_CONFIG)
    for photo, kinds in ((0, 1), (1, 2)):
        rows = cache.array("images")[16 * photo : 16 * photo + 16]
        assert len({row.numpy().tobytes() for row in rows}) == kinds


def test_a_cache_of_other_sizes_is_refused(written: Any) -> None:
    for changes in ({"codebook_size": 65}, {"grid": (4, 4)}, {"image_size": 64}):
        wanted = dataclasses.replace(MPS2S_CONFIG, **changes)
        with pytest.raises(InputError) as error:
            TokenCache.open(written[0], wanted)
        text = str(error.value)
        assert "has pictures of 32 pixels, 8 x 8 tokens and 64 codes; the recipe's model has" in text
        assert f"{wanted.image_size}, {wanted.grid[0]} x {wanted.grid[1]} and {wanted.codebook_size}" in text


def about(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change tokens.json."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "tokens.json").read_text())
        change(content)
        (folder / "tokens.json").write_text(json.dumps(content))

    return damage


def shorten(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def of_version_2(folder: Path, cache: TokenCache) -> Path:
    """Write a cache as version 2 did: one part, and all captions in tokens.json."""
    folder.mkdir()
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", cache.array(name).numpy())
    about = json.loads((cache.folder / "tokens.json").read_text()) | {"format_version": 2}
    told = {name: value for name, value in about.items() if name not in ("parts", "tokenizer", "shards")}
    (folder / "tokens.json").write_text(json.dumps(told | {"captions": list(cache.captions())}))
    shutil.copytree(cache.folder / "dfvqgan", folder / "dfvqgan")
    return folder


def test_a_cache_of_version_2_gives_the_same_batches(opened: TokenCache, tmp_path: Path) -> None:
    old = TokenCache.open(of_version_2(tmp_path / "old", opened), MPS2S_CONFIG)
    assert len(old.parts) == 1 and old.tokenizer == opened.tokenizer
    for one, other in zip(old.batch(5, 8, seed=0), opened.batch(5, 8, seed=0), strict=True):
        assert one == other if isinstance(one, list) else torch.equal(one, other)
    about(lambda content: content["captions"].pop())(old.folder)
    with pytest.raises(InputError, match="its files do not hold 11 x 3 rows"):
        TokenCache.open(old.folder, MPS2S_CONFIG)


def test_another_tokenizer_than_made_it_is_refused(opened: TokenCache, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(opened.folder, tmp_path / "tokens"))
    torch.manual_seed(1)
    other = DFVQGAN(DFVQGAN_CONFIG)
    assert hash_of(other) != opened.tokenizer
    save_model(folder / "dfvqgan", dfvqgan=other)
    with pytest.raises(InputError, match="made by another image tokenizer than lies in .*: make it anew"):
        TokenCache.open(folder, MPS2S_CONFIG)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, "is not a token cache (it has no tokens.json): make one with nuwa-lip tokenize"),
        (lambda folder: (folder / "tokens.json").unlink(), "is not a token cache"),
        (lambda folder: folder.rename(f"{folder}.unfinished-0"), "is not finished: run the same nuwa-lip tokenize"),
        (lambda folder: (folder / "tokens.json").write_text("{"), "is a damaged token cache: tokens.json"),
        (lambda folder: (folder / "tokens.json").write_text("[]"), "is a damaged token cache: tokens.json"),
        (about(lambda content: content.pop("variants")), "damaged token cache: tokens.json has no variants"),
        (about(lambda content: content.pop("parts")), "damaged token cache: tokens.json has no parts"),
        (about(lambda content: content["parts"][0].pop("photos")), "damaged token cache: tokens.json"),
        (about(lambda content: content.pop("format_version")), "is a damaged token cache"),
        (about(lambda content: content.update(format_version=4)), "is a token cache of version 4: update nuwa-lip"),
        (about(lambda content: content.update(format_version=1)), "is a token cache of version 1: make it anew"),
        (
            about(lambda content: content["parts"][0].update(photos=11)),
            "is a damaged token cache: its files do not hold 11 x 3 rows",
        ),
        (lambda folder: (folder / "000000/images.npy").unlink(), "token cache: 000000/images.npy: it is missing"),
        (shorten("000000/images.npy", -100), "is a damaged token cache: 000000/images.npy: it is cut off"),
        (shorten("000001/masks.npy", 0), "is a damaged token cache: 000001/masks.npy"),
        (shorten("000000/tokens.npy", 20), "is a damaged token cache: 000000/tokens.npy"),
        (lambda folder: np.save(folder / "000000/tokens.npy", np.array([{}])), "000000/tokens.npy: it holds object"),
        (lambda folder: (folder / "000000/ends.npy").unlink(), "000000/ends.npy: it is missing"),
        (lambda folder: shutil.rmtree(folder / "dfvqgan"), "dfvqgan"),
    ],
)
def test_a_damaged_cache_is_one_line(damage: Callable[[Path], Any], says: str, written: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    shutil.copytree(written[0], folder)
    damage(folder)
    with pytest.raises(InputError) as error:
        TokenCache.open(folder, MPS2S_CONFIG)
    assert says in str(error.value) and "\n" not in str(error.value)


@given(batch=st.integers(1, 3), size=st.integers(1, 21), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_masks_survive_as_bits(batch: int, size: int, seed: int) -> None:
    masks = torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(seed)) < 0.5
    bits = pack_masks(masks)
    assert bits.shape == (batch, -(-size * size // 8)) and bits.dtype == np.uint8
    assert torch.equal(unpack_masks(torch.from_numpy(bits), size), masks)


@given(cells=st.integers(1, 5), levels=st.integers(0, 3), share=st.floats(0, 0.3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_token_is_defective_if_any_pixel_under_it_is(cells: int, levels: int, share: float, seed: int) -> None:
    factor = 2**levels
    side = cells * factor
    masks = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(seed)) < share
    found = token_mask(masks, factor)
    assert found.shape == (2, 1, cells, cells)
    for b, y, x in np.ndindex(2, cells, cells):
        cell = masks[b, 0, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert found[b, 0, y, x] == cell.any()


def resaved(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    return lambda folder: np.save(path := folder / f"000000/{name}.npy", change(np.load(path)))


def said(**about: object) -> Callable[[Path], object]:
    path = "tokens.json"
    return lambda folder: (folder / path).write_text(json.dumps(json.loads((folder / path).read_text()) | about))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (resaved("tokens", lambda a: a + 64), "tokens.npy has tokens beyond its codes"),
        (resaved("whole", lambda a: a - 64), "whole.npy has tokens beyond its codes"),
        (resaved("tokens", lambda a: a.astype(np.float32)), "tokens.npy: it holds float32"),
        (resaved("tokens", lambda a: a.astype(np.int64)), r"tokens.npy has torch.int64 .* not torch.int32"),
        (resaved("images", lambda a: a[..., :-1]), r"images.npy has torch.uint8 \[3, 32, 31\] a row"),
        (resaved("masks", lambda a: a[:, :-1]), "masks.npy has"),
        (said(parts=[1]), "parts is .1.; it must be list"),
        (said(variants=0), "variants is 0"),
        (said(variants=10**9), "variants is 1000000000; it must be"),
    ],
)
def test_a_cache_of_other_contents_than_it_tells_is_refused(
    spoil: Callable[[Path], object], says: str, written: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(written[0], tmp_path / "cache"))
    spoil(folder)
    for use in (lambda cache: [cache.batch(step, 12, seed=0) for step in range(3)], lambda cache: cache.load("cpu")):
        with pytest.raises(InputError, match=f"is a damaged token cache.*{says}"):
            use(TokenCache.open(folder, MPS2S_CONFIG))
