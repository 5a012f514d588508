"""Which other caption a photo is compared with, the loss against its definition, and that captions learn to count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.training.contrast import MOST_COMPARED, contrast_loss, other_captions
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.tokens import TokenCache
from tests.small_runs import make_cpu_accelerator, mps2s_recipe, open_cache


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return np.random.default_rng(seed).spawn(count)


CAPTIONS = st.lists(st.sampled_from(["", " ", "a red rose", "a white rose", "two dogs", "A  rose red"]), max_size=8)


@given(captions=CAPTIONS, seed=st.integers(0, 99))
def test_another_caption_of_the_batch_unless_there_is_none(captions: list[str], seed: int) -> None:
    found = other_captions(captions, captions, generators(len(captions), seed))
    assert found == other_captions(captions, captions[::-1], generators(len(captions), seed))
    words = {caption: set(caption.lower().split()) for caption in captions}
    for own, other in zip(captions, found, strict=True):
        pool = [caption for caption in captions if words[caption] and words[caption] != words[own]]
        assert other in pool if words[own] and pool else other == own


def test_captions_that_share_words_are_drawn_more_often() -> None:
    captions = ["a red rose", "a white rose", "two dogs run"]
    drawn = [other_captions(captions, captions, generators(3, seed))[0] for seed in range(300)]
    assert drawn.count("a white rose") > 280, "half of the words: .25 against .001"


def test_few_of_a_large_batch_are_compared() -> None:
    captions = [f"{number} roses" for number in range(1000)]
    drawn = {other_captions(captions[:1], captions, generators(1, seed))[0] for seed in range(400)}
    assert MOST_COMPARED / 2 < len(drawn) <= MOST_COMPARED


def test_the_loss_is_the_log_odds_of_the_own_caption() -> None:
    logits, others = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).unbind(0)
    targets, real = torch.arange(15).view(3, 5) % 7, torch.arange(5) < torch.tensor([[5], [2], [0]])
    wanted = []
    for b, count in enumerate((5, 2, 0)):
        own, other = (sum(float(x[b, k].log_softmax(0)[targets[b, k]]) for k in range(count)) for x in (logits, others))
        wanted.append(-np.log(1 / (1 + np.exp(other - own))) / max(count, 1))
    assert float(contrast_loss(logits, others, targets, real)) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_a_photo_without_another_caption_gives_no_gradient() -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    contrast_loss(logits, logits, torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool)).backward()
    assert logits.grad is not None and not logits.grad.any()


def coloured(cache: TokenCache) -> TokenCache:
    """The first half of the photos is red, all of whose tokens are 1; the others are blue, of tokens 2."""
    cache = cache.load("cpu")
    (part,) = cache.parts
    half = len(part.captions) // 2
    codes = torch.tensor([1, 2]).repeat_interleave(half * cache.variants)[:, None, None]
    changed = {"tokens": codes.expand_as(part.array("tokens")), "whole": codes.expand_as(part.array("whole"))}
    captions = [["red circles"]] * half + [["blue circles"]] * half
    return dataclasses.replace(cache, parts=(dataclasses.replace(part, captions=captions, **changed),))


def make(cache: Path, contrast: float, accumulate: int = 1) -> MPS2SStage:
    recipe = mps2s_recipe(contrast=contrast, everything=1.0, caption_dropout=0.0, accumulate=accumulate)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dropout=0.0))
    return MPS2SStage(recipe, open_cache(cache, recipe), make_cpu_accelerator())


def test_both_captions_are_read_with_one_encoding_of_the_photo(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make(cache, 3.0)
    batch = stage.cache.batch(0, 4, seed=0)
    part = stage.prepare(batch, np.random.default_rng(0))
    assert part[0].shape[:2] == (4, 2) and not torch.equal(part[0][:, 0], part[0][:, 1])
    encoded, encode = [], MPS2S.encode
    monkeypatch.setattr(MPS2S, "encode", lambda *args, **options: encoded.append(1) or encode(*args, **options))
    found = stage.losses(part)
    assert len(encoded) == 1
    logits, targets, real = [], part[3].flatten(1).gather(1, part[5]), torch.arange(64) < part[6][:, None]
    for ids in part[0].unbind(1):
        logits.append(stage.model(ids, *part[1:6])[0])
    torch.testing.assert_close(found["loss"], mps2s_loss(logits[0], targets, real))
    torch.testing.assert_close(found["contrast"], 3.0 * contrast_loss(*logits, targets, real))
    assert set(make(cache, 0.0).losses(make(cache, 0.0).prepare(batch, np.random.default_rng(0)))) == {"loss"}


def test_parts_have_the_gradients_of_the_whole_batch(cache: Path) -> None:
    found = []
    for accumulate in (1, 2):
        stage = make(cache, 2.0, accumulate)
        stage.optimizer.step = stage.optimizer.zero_grad = lambda: None
        stage.accelerator.clip_grad_norm_ = lambda *_: torch.zeros(())  # type: ignore[method-assign]
        stage.step(0, next(stage.batches(0)))
        found.append({name: p.grad for name, p in stage.raw.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_captions_learn_to_count_sooner(cache: Path) -> None:
    told = {}
    for contrast in (0.0, 5.0):
        stage = make(cache, contrast)
        stage.cache = coloured(stage.cache)
        for step in range(12):
            stage.step(step, stage.cache.batch(step, 8, seed=0))
        judge = make(cache, 1.0)
        part = judge.prepare(stage.cache.batch(0, 12, seed=1), np.random.default_rng(0))
        with torch.no_grad():
            told[contrast] = float(judge.losses(part, model=stage.raw)["contrast"])
    assert told[5.0] < 0.9 * told[0.0], told


def test_held_out_losses_are_the_same_with_a_contrast(cache: Path) -> None:
    losses = []
    for contrast in (0.0, 3.0):
        stage = make(cache, contrast)
        losses.append(stage.held_out_loss(0, stage.cache.batch(0, 4, seed=0)))
    assert losses[0] == losses[1]


def test_what_cannot_be_told_apart_is_refused(cache: Path) -> None:
    with pytest.raises(InputError, match=r"contrast.*-1"):
        mps2s_recipe(contrast=-1.0)
    recipe = mps2s_recipe(contrast=2.0)
    deaf = dataclasses.replace(recipe.model, perspectives=("pixels", "tokens"))
    for wrong in (dataclasses.replace(recipe, model=deaf), dataclasses.replace(recipe, trained="prior")):
        with pytest.raises(InputError, match=r"contrast.*2\.0"):
            MPS2SStage(wrong, open_cache(cache, wrong), make_cpu_accelerator())
