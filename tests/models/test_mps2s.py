"""MP-S2S: what each logit may depend on, padding, perspectives, guidance's memory, presets, training."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.groups import rows_of, rows_of_each
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.models.mps2s_config import PERSPECTIVES, PRESETS
from nuwa_lip.models.orders import target_tokens
from nuwa_lip.models.perspectives import Coarse
from tests.small_models import VOCAB, make_model, seeded

GRID, SIDE, CELL = 8, 32, 4


FORMS: dict[str, dict[str, Any]] = {
    "learned positions": {},
    "rotary and pointer": {"rotary": True, "pointer": True},
    "neighbours": {"rotary": True, "neighbours": 2},
}


@pytest.fixture(scope="module", params=FORMS.values(), ids=FORMS)
def model(request: pytest.FixtureRequest) -> MPS2S:
    made = make_model(**request.param)
    if made.decoder.neighbours is not None:
        nn.init.normal_(made.decoder.neighbours.after.weight, std=0.001)  # it starts at zero
    return made


@dataclasses.dataclass
class Inputs:
    """Arguments of a model's forward, all of B samples."""

    text_ids: Tensor | None
    image: Tensor
    mask: Tensor
    tokens: Tensor
    token_mask: Tensor

    def all(self) -> tuple[Any, ...]:
        return self.text_ids, self.image, self.mask, self.tokens, self.token_mask

    def one(self, i: int) -> Inputs:
        return Inputs(*(value[i : i + 1] for value in self.all()))

    def but(self, **changes: Tensor | None) -> Inputs:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def make_inputs(*holes: tuple[int, int, int, int], seed: int = 0) -> Inputs:
    """One sample for each hole: top, left, height and width in tokens."""
    generator = seeded(seed)
    token_mask = torch.zeros(len(holes), 1, GRID, GRID, dtype=torch.bool)
    for mask, (top, left, height, width) in zip(token_mask, holes, strict=True):
        mask[:, top : top + height, left : left + width] = True
    return Inputs(
        torch.randint(3, 512, (len(holes), 6), generator=generator),
        torch.rand(len(holes), 3, SIDE, SIDE, generator=generator) * 2 - 1,
        token_mask.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3),
        torch.randint(VOCAB, (len(holes), GRID, GRID), generator=generator),
        token_mask,
    )


HOLE = make_inputs((2, 3, 3, 4))  # K = 12


@torch.no_grad()
def logits(model: MPS2S, inputs: Inputs, order: Tensor | None = None) -> Tensor:
    return model(*inputs.all(), order)[0]


def shuffled(inputs: Inputs, seed: int = 3) -> Tensor:
    positions = inputs.token_mask.flatten().nonzero()[:, 0]
    generator = seeded(seed)
    return positions[torch.randperm(len(positions), generator=generator)][None]


def changed_token(inputs: Inputs, position: int) -> Inputs:
    tokens = inputs.tokens.clone()
    tokens.view(-1)[position] = (tokens.view(-1)[position] + 7) % VOCAB
    return inputs.but(tokens=tokens)


def known_changes() -> dict[str, Inputs]:
    """The hole's photo with something else that is known, by perspective."""
    image = HOLE.image.clone()
    image[..., 0, 0] += 1
    assert HOLE.text_ids is not None
    text = HOLE.but(text_ids=(HOLE.text_ids + 1) % 512)
    return {"text": text, "pixels": HOLE.but(image=image), "tokens": changed_token(HOLE, 0)}


@pytest.mark.parametrize("raster", [True, False])
def test_a_logit_depends_on_earlier_targets_only(model: MPS2S, raster: bool) -> None:
    order = HOLE.token_mask.flatten().nonzero().T if raster else shuffled(HOLE)
    given_order = None if raster else order
    before = logits(model, HOLE, given_order)
    for k in (0, 4, 11):
        after = logits(model, changed_token(HOLE, int(order[0, k])), given_order)
        assert torch.equal(before[:, : k + 1], after[:, : k + 1])
        if k < 11:
            assert ((before - after)[:, k + 1 :].abs().amax(-1) > 1e-3).all()


def test_a_logit_does_not_depend_on_the_order_of_later_ones(model: MPS2S) -> None:
    order = shuffled(HOLE)
    later = torch.cat([order[:, :6], order[:, 6:].flip(1)], 1)
    before, after = logits(model, HOLE, order), logits(model, HOLE, later)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6], after[:, 6], atol=1e-3)


@pytest.mark.parametrize("sizes", [[12], [1, 1, 3, 7], [4, 4, 4]])
def test_in_groups_a_logit_depends_on_earlier_groups_only(model: MPS2S, sizes: list[int]) -> None:
    def grouped(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return model(*inputs.all(), rows=rows_of(sizes))[0][0]

    at = HOLE.token_mask.flatten().nonzero()[:, 0]
    before = grouped(HOLE)
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    for k in range(len(at)):
        tokens = HOLE.tokens.flatten(1).clone()
        tokens[0, at[k]] = (tokens[0, at[k]] + 1) % VOCAB
        changed = (grouped(HOLE.but(tokens=tokens.view_as(HOLE.tokens))) - before).abs().amax(-1) > 1e-4
        assert torch.equal(changed, groups > groups[k])


@torch.no_grad()
def test_groups_of_one_are_the_paper(model: MPS2S) -> None:
    torch.testing.assert_close(model(*HOLE.all(), rows=rows_of([1] * 12))[0], model(*HOLE.all())[0])


@torch.no_grad()
def test_groups_of_a_sample_do_not_depend_on_the_others(model: MPS2S) -> None:
    both = make_inputs((2, 3, 3, 4), (1, 1, 2, 3), seed=1)  # K = 12 and 6
    sizes = [[1, 3, 8], [2, 4]]
    found, real = model(*both.all(), rows=rows_of_each(sizes))
    for i, one in enumerate(sizes):
        alone = model(*both.one(i).all(), rows=rows_of(one))[0]
        torch.testing.assert_close(found[i, real[i]], alone[0], atol=1e-4, rtol=1e-4)


def test_a_sample_without_a_hole_takes_no_part_in_groups() -> None:
    model = make_model().requires_grad_().train()
    both = make_inputs((2, 3, 3, 4), (0, 0, 0, 0), seed=1)
    logits, real = model(*both.all(), rows=rows_of_each([[4, 8], []]))
    order = both.token_mask[:1].flatten(1).nonzero()[:, 1].expand(2, -1)
    loss = mps2s_loss(logits, target_tokens(both.tokens, order), real)
    loss.backward()
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert not real[1].any() and real[0].all()


def test_there_must_be_a_row_for_each_token(model: MPS2S) -> None:
    with pytest.raises(InputError, match=r"\[8\].*\[12\] or \[1, 12\]"):
        model(*HOLE.all(), rows=rows_of([4, 4]))
    with pytest.raises(InputError, match=r"\[2, 12\].*\[12\] or \[1, 12\]"):
        model(*HOLE.all(), rows=rows_of_each([[12], [12]]))


def test_every_logit_depends_on_what_is_known(model: MPS2S) -> None:
    before = logits(model, HOLE)
    for name, inputs in known_changes().items():
        assert ((before - logits(model, inputs)).abs().amax(-1) > 1e-4).all(), name


@pytest.mark.parametrize("filling", [torch.nan, torch.inf, -torch.inf, 0.5])
def test_what_stands_in_the_hole_has_no_influence(model: MPS2S, filling: float) -> None:
    image = HOLE.image.masked_fill(HOLE.mask, filling)
    assert torch.equal(logits(model, HOLE), logits(model, HOLE.but(image=image)))
    defective = HOLE.token_mask[:, 0]
    before, after = (
        model.encode(*HOLE.but(tokens=HOLE.tokens.masked_fill(defective, value)).all()).states
        for value in (0, 10**9)  # not even valid
    )
    assert torch.equal(before, after)


@torch.no_grad()
def test_a_missing_token_is_like_no_known_one() -> None:
    model = make_model(perspectives=("tokens",))
    more = HOLE.token_mask.clone()
    more[..., 0, 0] = True
    missing = model.encode(*HOLE.but(token_mask=more).all()).states
    for token in range(VOCAB):
        tokens = HOLE.tokens.clone()
        tokens[0, 0, 0] = token
        assert not torch.allclose(model.encode(*HOLE.but(tokens=tokens).all()).states, missing, atol=1e-2)


def test_padding_of_the_caption_changes_nothing(model: MPS2S) -> None:
    assert HOLE.text_ids is not None
    padded = nn.functional.pad(HOLE.text_ids, (0, 5), value=model.config.pad_id)
    torch.testing.assert_close(logits(model, HOLE.but(text_ids=padded)), logits(model, HOLE), atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_samples_with_different_holes_do_not_disturb_each_other(model: MPS2S) -> None:
    inputs = make_inputs((0, 0, 2, 2), (2, 3, 3, 4), (0, 0, 0, 0), (0, 0, 8, 8))
    every, real = model(*inputs.all())
    assert real.sum(1).tolist() == [4, 12, 0, 64]
    for i in range(4):
        count = int(real[i].sum())
        assert real[i, :count].all()
        alone = logits(model, inputs.one(i))
        assert alone.shape == (1, count, VOCAB)
        torch.testing.assert_close(every[i, :count], alone[0], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_an_order_may_be_longer_than_a_sample_needs(model: MPS2S) -> None:
    order = torch.cat([shuffled(HOLE), torch.full((1, 3), 999)], 1)
    every, real = model(*HOLE.all(), order)
    assert real.tolist() == [[True] * 12 + [False] * 3]
    torch.testing.assert_close(every[:, :12], logits(model, HOLE, shuffled(HOLE)), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("missing", PERSPECTIVES)
def test_a_perspective_that_is_off_has_no_influence(missing: str) -> None:
    model = make_model(perspectives=tuple(name for name in PERSPECTIVES if name != missing))
    before = logits(model, HOLE)
    for name, inputs in known_changes().items():
        assert torch.equal(before, logits(model, inputs)) == (name == missing), name
    if missing == "text":
        assert torch.equal(before, logits(model, HOLE.but(text_ids=None)))
    assert getattr(model, missing) is None  # not built: no parameters that would never learn


@torch.no_grad()
def test_other_captions_give_the_memory_of_these(model: MPS2S) -> None:
    inputs = make_inputs((1, 1, 3, 3), (0, 0, 2, 5))
    none = torch.tensor([[1, 2], [1, 2]])
    retold, expected = (
        model.with_captions(model.encode(*inputs.all()), none),
        model.encode(*inputs.but(text_ids=none).all()),
    )
    torch.testing.assert_close(retold.states, expected.states)
    assert torch.equal(retold.mask, expected.mask)
    assert retold.text_length == expected.text_length == 2
    one = retold[1]
    assert torch.equal(one.states, retold.states[1:])
    assert torch.equal(one.tokens, inputs.tokens[1:])


def test_without_text_other_captions_change_nothing() -> None:
    model = make_model(perspectives=("pixels", "tokens"))
    memory = model.encode(*HOLE.all())
    assert model.with_captions(memory, torch.tensor([[1, 2]])) is memory


def test_a_batch_without_holes_trains_without_a_trace() -> None:
    model = make_model().requires_grad_().train()
    inputs = make_inputs((0, 0, 0, 0), (0, 0, 0, 0))
    every, real = model(*inputs.all())
    assert every.shape == (2, 0, VOCAB)
    loss = mps2s_loss(every, target_tokens(inputs.tokens, torch.zeros(2, 0, dtype=torch.int64)), real)
    loss.backward()
    assert float(loss.detach()) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=4), st.integers(0, 99))
def test_the_loss_of_a_batch_is_the_mean_of_its_samples(counts: list[int], seed: int) -> None:
    generator = seeded(seed)
    longest = max(counts)
    values = torch.randn(len(counts), longest, 7, generator=generator)
    targets = torch.randint(7, (len(counts), longest), generator=generator)
    real = torch.arange(longest) < torch.tensor(counts)[:, None]
    parts = [
        mps2s_loss(values[i : i + 1, :k], targets[i : i + 1, :k], real[i : i + 1, :k]) for i, k in enumerate(counts)
    ]
    torch.testing.assert_close(mps2s_loss(values, targets, real), torch.stack(parts).mean())


def test_the_loss_is_the_mean_negative_log_probability() -> None:
    values = torch.tensor([[[0.25, 0.75], [0.5, 0.5], [0.0, 0.0]]]).log().nan_to_num()
    loss = mps2s_loss(values, torch.tensor([[1, 0, 0]]), torch.tensor([[True, True, False]]))
    assert float(loss) == pytest.approx(-(torch.tensor([0.75, 0.5]).log().mean().item()))


def test_a_toy_rule_is_learned() -> None:
    """The hole repeats one token: the caption names it at first, later the tokens before it do."""
    torch.manual_seed(0)
    model = MPS2S(MPS2SConfig.preset("tiny"))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        inputs = make_inputs(*[(3, 3, 2, 2)] * 16, seed=0)
        word = torch.randint(8, (16, 1, 1))
        inputs.tokens = torch.where(inputs.token_mask[:, 0], word, inputs.tokens)
        inputs.text_ids = torch.cat([torch.ones(16, 1, dtype=torch.int64), word[:, 0] + 10], 1)
        every, real = model(*inputs.all())
        targets = word[:, 0].expand(-1, 4)
        loss = mps2s_loss(every, targets, real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 3.5  # about ln 64
    assert sum(losses[-5:]) / 5 < 0.4


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in MPS2S(MPS2SConfig.preset(name)).parameters())


def test_the_paper_preset_has_the_official_size() -> None:
    assert parameters("paper") == pytest.approx(1.49e9, rel=0.01)


def test_presets_exist_and_survive_json() -> None:
    base, mini = MPS2SConfig.preset("base"), MPS2SConfig.preset("mini")
    assert (base.width, base.heads) == (768, 12)
    assert (base.text_layers, base.pixel_layers, base.token_layers, base.decoder_layers) == (6, 6, 6, 12)
    assert (mini.grid, mini.image_size) == ((16, 16), 128)
    assert parameters("mini") < 12e6  # in bf16 it must leave room for the DF-VQGAN in 32 MB
    for config in PRESETS.values():
        assert MPS2SConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perspectives": ("sound",)}, "sound"),
        ({"perspectives": ()}, "one or more of text, pixels, tokens"),
        ({"heads": 3}, "width 32 is not a multiple of heads 3"),
        ({"patch_size": 5}, "image_size 32"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(MPS2SConfig.preset("tiny"), **changes)


def test_embeddings_begin_alike_where_codes_are() -> None:
    model = MPS2S(MPS2SConfig.preset("tiny"))
    codes = torch.randn(64, 8, generator=seeded(0))
    codes[1] = codes[0] + 0.01
    spread = model.embedding.weight.std()
    model.start_from_codes(codes)
    weight = model.embedding.weight.detach()
    assert F.cosine_similarity(weight[0], weight[1], dim=0) > 0.5 > F.cosine_similarity(weight[0], weight[2], dim=0)
    assert not torch.equal(weight[0], weight[1])
    torch.testing.assert_close(weight.std(), spread)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'huge'.*paper, base, mini"):
        MPS2SConfig.preset("huge")


BAD_INPUTS: dict[str, dict[str, Any]] = {
    "text_ids is None": {"text_ids": None},
    "text_ids has shape": {"text_ids": torch.ones(1, 99, dtype=torch.int64)},
    "text_ids.* 512.* 511": {"text_ids": torch.tensor([[1, 512]])},
    "text_ids is torch.float32": {"text_ids": torch.ones(1, 2)},
    "image has shape": {"image": torch.zeros(1, 3, 16, 16)},
    "mask is torch.float32": {"mask": torch.zeros(1, 1, 32, 32)},
    "tokens holds .* 64": {"tokens": torch.full((1, 8, 8), 64)},
    "tokens has shape": {"tokens": torch.zeros(1, 4, 4, dtype=torch.int64)},
    "token_mask has shape": {"token_mask": torch.zeros(1, 8, 8, dtype=torch.bool)},
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_inputs_are_named(model: MPS2S, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model(*HOLE.but(**BAD_INPUTS[message]).all())


@pytest.mark.parametrize("fault", ["short", "twice", "elsewhere", "shape"])
def test_an_order_must_name_each_defective_position_once(model: MPS2S, fault: str) -> None:
    order = shuffled(HOLE)
    if fault == "short":
        order = order[:, :-1]
    elif fault == "shape":
        order = order[0]
    else:
        order[0, 3] = order[0, 2] if fault == "twice" else 0
    with pytest.raises(InputError, match="order"):
        model(*HOLE.all(), order)


@torch.no_grad()
def test_a_first_painting_counts_in_the_hole_alone() -> None:
    model, inputs = make_model(), make_inputs((2, 3, 3, 4), (0, 0, 8, 8))
    image = torch.rand(2, 3, SIDE, SIDE, generator=seeded(1)) * 2 - 1
    tokens = torch.randint(VOCAB, (2, GRID, GRID), generator=seeded(2))
    no, yes = torch.tensor([False, False]), torch.tensor([True, True])

    def states(coarse: Coarse | None) -> Tensor:
        return model.encode(*inputs.all(), coarse=coarse).states

    without, painted = states(None), states(Coarse(image, tokens, yes))
    assert torch.equal(states(Coarse(torch.full_like(image, torch.nan), tokens, no)), without)
    assert ((painted - without).abs().amax((1, 2)) > 1e-3).all()
    noise = torch.where(inputs.mask, image, torch.nan)
    other = torch.where(inputs.token_mask[:, 0], tokens, 0)
    assert torch.equal(states(Coarse(noise, other, yes)), painted)
    one = states(Coarse(image, tokens, torch.tensor([True, False])))
    torch.testing.assert_close(one, torch.stack([painted[0], without[1]]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_in_training_a_hidden_photo_with_a_first_painting_is_encoded_by_itself() -> None:
    model, inputs = make_model().train(), make_inputs((0, 0, 8, 8), (0, 0, 8, 8), (0, 0, 8, 8))
    image = torch.rand(3, 3, SIDE, SIDE, generator=seeded(1)) * 2 - 1
    coarse = Coarse(image, torch.zeros(3, GRID, GRID, dtype=torch.long), torch.tensor([False, True, False]))
    found = []
    for model.hidden_once in (False, True):
        found.append(model.encode(*inputs.all(), coarse=coarse).states)
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
