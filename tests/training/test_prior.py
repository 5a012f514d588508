"""The prior learns which codes go with which words; a frozen BERT reads the captions; shares of hidden samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.hub import load_model
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.prior import PriorStage
from nuwa_lip.training.ready_made_text import Remembered, with_bert
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.tokens import TokenBatch, TokenCache
from tests.small_runs import MPS2S_CONFIG, make_cpu_accelerator, mps2s_recipe, open_cache, run
from tests.tiny_bert import write_bert

pytest.importorskip("transformers")
CONFIG = dataclasses.replace(MPS2S_CONFIG, caption_prior=2, caption_shift=True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("text") / "bert")


def make(cache: Path, recipe: MPS2SRecipe, kind: type[MPS2SStage] = MPS2SStage) -> MPS2SStage:
    if recipe.text_encoder is not None:
        recipe = dataclasses.replace(recipe, model=with_bert(recipe.model, Path(recipe.text_encoder)))
    return kind(recipe, open_cache(cache, recipe), make_cpu_accelerator())


def of_two_colours(cache: TokenCache) -> TokenCache:
    """Half of the photos are red, all of whose tokens are 1; the others are blue, of tokens 2."""
    cache = cache.load("cpu")
    (part,) = cache.parts
    count = len(part.captions)
    colours = torch.arange(count).remainder(2).repeat_interleave(cache.variants)
    captions = [["red circles"], ["blue ground"]] * (count // 2)
    whole = (1 + colours)[:, None, None].expand_as(part.array("whole"))
    return dataclasses.replace(cache, parts=(dataclasses.replace(part, captions=captions, whole=whole),))


def test_the_prior_learns_what_goes_with_a_caption(cache: Path, bert: Path) -> None:
    recipe = mps2s_recipe(CONFIG, text_encoder=str(bert), trained="prior", caption_dropout=0.0)
    recipe = dataclasses.replace(recipe, model=with_bert(recipe.model, bert))
    stage = PriorStage(recipe, of_two_colours(open_cache(cache, recipe)), make_cpu_accelerator())
    batch = stage.cache.batch(0, 8, seed=0)
    ids, tokens = stage.word_pieces(batch.captions), batch.whole
    before = float(stage.prior_loss(ids, tokens).detach())
    assert before == pytest.approx(np.log(2), abs=0.01), "a new prior says nothing: either colour is as likely"
    text = {name: p.clone() for name, p in stage.raw.text.named_parameters()}  # type: ignore[union-attr]
    for step, one in zip(range(40), stage.batches(0), strict=False):
        stage.step(step, one)
    assert float(stage.prior_loss(ids, tokens).detach()) < before / 4
    assert all(torch.equal(p, text[name]) for name, p in stage.raw.text.named_parameters())  # type: ignore[union-attr]


def test_a_prior_needs_its_part(cache: Path) -> None:
    with pytest.raises(InputError, match="caption_prior is 0"):
        make(cache, mps2s_recipe(trained="prior"), PriorStage)


@pytest.mark.parametrize(
    ("trained", "moves"),
    [("decoder", ("decoder", "text_projection")), ("caption", ("decoder.prior", "text_projection"))],
)
def test_only_a_part_learns(trained: str, moves: tuple[str, ...], cache: Path, bert: Path) -> None:
    stage = make(cache, mps2s_recipe(CONFIG, steps=2, text_encoder=str(bert), trained=trained, weight_decay=0.1))
    before = {name: value.clone() for name, value in stage.raw.state_dict().items()}
    for step, batch in zip(range(2), stage.batches(0), strict=False):
        stage.step(step, batch)
    moved = {name for name, value in stage.raw.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(moves) for name in moved)
    assert all(any(name.startswith(part) for name in moved) for part in moves)


def test_an_exported_model_reads_with_its_bert(cache: Path, bert: Path, tmp_path: Path) -> None:
    recipe = mps2s_recipe(CONFIG, steps=1, text_encoder=str(bert))
    stage = make(cache, recipe)
    run(stage, recipe, tmp_path / "run")
    parts = load_model(tmp_path / "run/model")
    assert parts.mps2s is not None and parts.tokenizer is not None
    assert parts.mps2s.config.text_encoder == stage.recipe.model.text_encoder
    ids = parts.tokenizer(["red circles", ""])
    assert torch.equal(ids, stage.tokenizer(["red circles", ""]))
    found, wanted = (model.encode_text(ids, 2)[0] for model in (parts.mps2s, stage.average.model.eval()))
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_captions_are_read_once() -> None:
    asked = []

    def encode(ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        asked.append(ids.tolist())
        return ids[..., None].float().masked_fill(padding[..., None], 9)

    remembered = Remembered(encode)
    ids = torch.tensor([[1, 2, 3], [1, 4, 0]])
    first = remembered(ids, ids == 0)
    again = remembered(ids.flip(0), ids.flip(0) == 0)
    assert asked == [ids.tolist()]
    assert torch.equal(again, first.flip(0)) and torch.equal(first[..., 0], ids.float())


def test_shares_of_a_batch_are_hidden(cache: Path) -> None:
    recipe = mps2s_recipe(CONFIG, everything=0.25, caption_only=0.5, first_tokens=5, orders={"random": 1.0})
    stage = make(cache, recipe)
    batch: TokenBatch = stage.cache.batch(0, 4, seed=0)
    _, _, masks, tokens, defective, order, counts = stage.prepare(batch, np.random.default_rng(0))
    assert masks[:3].all() and defective[:3].all()
    assert torch.equal(masks[3], batch.masks[3]) and torch.equal(tokens[3], batch.tokens[3])
    assert torch.equal(tokens[:3], batch.whole[:3])
    assert counts.max() <= 5 and counts[0] == 5
    hole = stage.prepare(batch._replace(masks=batch.masks), np.random.default_rng(0))[4][3]
    assert hole.flatten()[order[3, : counts[3]]].all()


def test_a_share_of_the_others_shows_a_first_painting(cache: Path) -> None:
    recipe = mps2s_recipe(CONFIG, everything=0.25, caption_only=0.5, refine=1.0)
    stage = make(cache, recipe)
    batch: TokenBatch = stage.cache.batch(0, 4, seed=0)
    _, images, masks, *_, copies, tokens, painted = stage.prepare(batch, np.random.default_rng(0))
    assert painted.tolist() == [True, False, False, True]
    # the photo without its details, and the tokens of that
    assert 0.01 < (copies - images)[painted].abs().mean() < 0.5
    seen = torch.where(masks, copies, images)[painted]
    assert torch.equal(tokens[painted], stage.dfvqgan.encode(seen).tokens)
    half = stage.prepare(batch, np.random.default_rng(0))[:7]
    without = make(cache, dataclasses.replace(recipe, refine=0.0)).prepare(batch, np.random.default_rng(0))
    assert all(torch.equal(one, other) for one, other in zip(half, without, strict=True))
