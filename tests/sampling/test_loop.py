"""Sampling: the cache against its slow twin, bits against batch sizes, distributions, bad arguments."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from nuwa_lip.commands import bench, inpaint
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.groups import SCHEDULES, group_sizes
from nuwa_lip.models.memory import Memory
from nuwa_lip.models.orders import ORDERS
from nuwa_lip.sampling import Sampling
from nuwa_lip.sampling import loop as sampling
from nuwa_lip.sampling.draw import draw
from nuwa_lip.sampling.loop import candidates_at_once, decoding_order, halfway, read_scores, sample
from tests.small_models import HOLE, K, make_memories, make_model, seeded

STEPS = (None, 1, 3, K)


@pytest.fixture(scope="module", params=[False, True], ids=["learned positions", "rotary and pointer"])
def model(request: pytest.FixtureRequest) -> MPS2S:
    return make_model(rotary=request.param, pointer=request.param)


@pytest.fixture(scope="module")
def memories(model: MPS2S) -> tuple[Memory, Memory]:
    return make_memories(model, HOLE)


@pytest.fixture
def logits_seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every step's logits, as they come from the model."""
    seen: list[Tensor] = []
    guide = sampling.guide
    monkeypatch.setattr(sampling, "guide", lambda logits, how: seen.append(logits) or guide(logits, how))
    return seen


EVERY_WAY = [(order, "cosine") for order in ORDERS] + [("raster", "constant"), ("random", "confidence")]


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("order", "schedule"), EVERY_WAY)
def test_cached_equals_uncached(
    model: MPS2S,
    memories: tuple[Memory, Memory],
    logits_seen: list[Tensor],
    order: str,
    schedule: str,
    steps: int | None,
    scale: float,
) -> None:
    results = []
    for use_cache in (True, False):
        logits_seen.clear()
        tokens, logp = sample(
            model,
            memories[0],
            num_candidates=3,
            unconditional=memories[1],
            guidance_scale=scale,
            order=order,
            num_inference_steps=steps,
            schedule=schedule,
            generator=seeded(5),
            use_cache=use_cache,
        )
        results.append((tokens, logp, torch.cat(logits_seen, 1)))
    (tokens, logp, logits), (other_tokens, other_logp, other_logits) = results
    assert torch.equal(tokens, other_tokens)
    torch.testing.assert_close(logits, other_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logp, other_logp, atol=1e-5, rtol=0)
    assert logits.std() > 0.5  # tokens are not drawn from noise around zero


@pytest.mark.parametrize("neighbours", [0, 2])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_revised_with_a_cache_equals_without(steps: int | None, schedule: str, neighbours: int) -> None:
    model = make_model(neighbours=neighbours)
    if model.decoder.neighbours is not None:
        torch.nn.init.normal_(model.decoder.neighbours.after.weight, std=0.1)  # zero at first
    memory, nothing = make_memories(model, HOLE)
    how: dict[str, Any] = {"order": "random", "num_inference_steps": steps, "schedule": schedule, "revisions": 2}
    results = [
        sample(
            model,
            memory,
            num_candidates=3,
            unconditional=nothing,
            guidance_scale=2.5,
            generator=seeded(5),
            use_cache=use_cache,
            **how,
        )
        for use_cache in (True, False)
    ]
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=0)


def test_a_revision_keeps_half_and_takes_a_third_of_the_steps(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    def painted(revisions: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        told: list[tuple[int, int]] = []
        tokens, logp = sample(
            model,
            memories[0],
            num_inference_steps=6,
            revisions=revisions,
            generator=seeded(2),
            callback=lambda *at: told.append(at),
        )
        return tokens.flatten()[memories[0].token_mask.flatten()], logp, told

    once, again, twice = (painted(n) for n in range(3))
    sizes = group_sizes(K, 6)
    kept = sum(sizes[: halfway(sizes)])
    assert K / 2 <= kept < K
    for before, after in ((once, again), (again, twice)):
        assert kept <= int((before[0] == after[0]).sum()) < K
        assert not torch.equal(before[1], after[1])
    assert [len(told) for *_, told in (once, again, twice)] == [6, 8, 10]
    assert again[2] == [(step, 8) for step in range(1, 9)]


def test_with_one_step_nothing_is_revised(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    once, again = (sample(model, memories[0], num_inference_steps=1, revisions=n, generator=seeded(2)) for n in (0, 2))
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])


@pytest.mark.parametrize(("sizes", "step"), [([], 0), ([9], 0), ([1, 1, 1], 2), ([1, 1, 2, 4], 3), ([1, 1, 2], 2)])
def test_halfway_at_least_half_is_decided_but_never_all(sizes: list[int], step: int) -> None:
    assert halfway(sizes) == step


@pytest.mark.parametrize("schedule", ["cosine", "confidence"])
def test_a_cache_is_read_in_few_lengths(
    model: MPS2S, memories: tuple[Memory, Memory], schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every further length the library for matrix products keeps a program."""
    monkeypatch.setattr(sampling, "SLOTS", 5)
    lengths, decode_rows = [], model.decoder.decode_rows

    def look(cache: Any, inputs: Any, slots: Tensor, visible: Tensor, *more: Any) -> Tensor:
        lengths.append(visible.shape[-1])
        return decode_rows(cache, inputs, slots, visible, *more)

    monkeypatch.setattr(model.decoder, "decode_rows", look)
    tokens = int(memories[0].token_mask[:1].sum())
    sample(model, memories[0][0], schedule=schedule, generator=seeded(1))
    assert len(lengths) == tokens > 7 and max(lengths) == tokens + 1
    assert set(lengths) <= {*range(6, tokens + 1, 5), tokens + 1}


WIDE: dict[str, Any] = {"width": 128, "text_width": 64, "codebook_size": 512}  # other kernels than tiny's


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def wide(request: pytest.FixtureRequest) -> tuple[MPS2S, Memory, Memory]:
    model = make_model(**WIDE).to(request.param)
    return model, *make_memories(model, HOLE)


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("steps", [None, 2, 5])
@pytest.mark.parametrize(("order", "schedule"), EVERY_WAY)
def test_a_candidate_is_the_same_whatever_their_number(
    wide: tuple[MPS2S, Memory, Memory], order: str, schedule: str, steps: int | None, scale: float
) -> None:
    model, memory, unconditional = wide

    def run(count: int, seed: int) -> tuple[Tensor, Tensor]:
        return sample(
            model,
            memory,
            num_candidates=count,
            unconditional=unconditional,
            guidance_scale=scale,
            order=order,
            num_inference_steps=steps,
            schedule=schedule,
            generator=seeded(seed),
        )

    tokens, logp = run(8, 7)
    distinct = len({tuple(one.flatten().tolist()) for one in tokens})
    assert distinct == 8 or schedule == "confidence" and distinct > 4  # the surest of what is drawn is often the same
    for count, seed in ((1, 7), (3, 7), (1, 9), (2, 12)):
        few, few_logp = run(count, seed)
        first = seed - 7
        assert torch.equal(few, tokens[first : first + count])
        assert torch.equal(few_logp, logp[first : first + count])


@pytest.mark.parametrize("steps", STEPS)
def test_logp_is_the_models_own_and_known_tokens_stay(
    model: MPS2S, memories: tuple[Memory, Memory], steps: int | None
) -> None:
    memory = memories[0]
    tokens, logp = sample(model, memory, num_inference_steps=steps, generator=seeded(1), temperature=0.7, top_k=20)
    hole = memory.token_mask[:, 0]
    assert tokens.shape == (1, 8, 8)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens[~hole], memory.tokens[~hole])
    assert not torch.equal(tokens[hole], memory.tokens[hole])
    if steps is None:
        # teacher-forced with what was drawn, at temperature 1 and without filters
        order = decoding_order("raster", memory.token_mask)[None]
        drawn = tokens.flatten(1).gather(1, order)
        logits = model.decoder.predict(memory, drawn, order)
        expected = logits.log_softmax(-1).gather(-1, drawn[..., None]).mean()
        assert float(logp) == pytest.approx(float(expected), abs=1e-5)


def test_with_guidance_logp_is_the_guided_models(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    order = decoding_order("raster", memories[0].token_mask)[None]
    tokens, logp = sample(model, memories[0], unconditional=memories[1], guidance_scale=3.0, generator=seeded(1))
    drawn = tokens.flatten(1).gather(1, order)
    c, u = (model.decoder.predict(memory, drawn, order) for memory in memories)
    expected = (u + 3 * (c - u)).log_softmax(-1).gather(-1, drawn[..., None]).mean()
    assert float(logp) == pytest.approx(float(expected), abs=1e-4)


def test_guidance_zero_is_the_unconditional_model(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    guided = sample(model, memories[0], unconditional=memories[1], guidance_scale=0.0, generator=seeded(2))
    plain = sample(model, memories[1], generator=seeded(2))
    assert torch.equal(guided[0], plain[0])
    torch.testing.assert_close(guided[1], plain[1], atol=1e-5, rtol=0)


def test_without_guidance_the_unconditional_memory_costs_nothing(
    model: MPS2S, memories: tuple[Memory, Memory], logits_seen: list[Tensor]
) -> None:
    sample(model, memories[0], unconditional=memories[1], num_inference_steps=1)
    assert len(logits_seen[0]) == candidates_at_once([K], torch.device("cpu"))


def test_temperature_zero_takes_the_likeliest(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    memory = memories[0]
    tokens, _ = sample(model, memory, num_candidates=2, temperature=0)
    assert torch.equal(tokens[0], tokens[1])
    order = decoding_order("raster", memory.token_mask)[None]
    drawn = tokens[:1].flatten(1).gather(1, order)
    assert torch.equal(model.decoder.predict(memory, drawn, order).argmax(-1), drawn)


def test_photos_of_a_batch_are_as_if_alone(model: MPS2S) -> None:
    memory, unconditional = make_memories(model, HOLE, (0, 0, 0, 0), (0, 0, 8, 8))
    options: dict[str, Any] = {"num_candidates": 2, "guidance_scale": 2.0, "num_inference_steps": 4}
    tokens, logp = sample(
        model, memory, unconditional=unconditional, generator=[seeded(i) for i in range(6)], **options
    )
    assert tokens.shape == (6, 8, 8)
    for i in range(3):
        generators = [seeded(2 * i), seeded(2 * i + 1)]
        alone = sample(model, memory[i], unconditional=unconditional[i], generator=generators, **options)
        assert torch.equal(alone[0], tokens[2 * i : 2 * i + 2])
        assert torch.equal(alone[1], logp[2 * i : 2 * i + 2])
    assert torch.equal(tokens[2:4], memory.tokens[1].expand(2, -1, -1))  # K = 0
    assert logp[2:4].tolist() == [0, 0]


def test_one_generator_counts_its_seed_up(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    counted = sample(model, memories[0], num_candidates=3, generator=seeded(4))
    listed = sample(model, memories[0], num_candidates=3, generator=[seeded(4), seeded(5), seeded(6)])
    assert torch.equal(counted[0], listed[0])
    largest = sample(model, memories[0], num_candidates=2, generator=seeded(2**64 - 1))
    assert torch.equal(largest[0][1], sample(model, memories[0], generator=seeded(0))[0][0])


def test_without_a_generator_results_differ_and_follow_the_global_seed(
    model: MPS2S, memories: tuple[Memory, Memory]
) -> None:
    torch.manual_seed(0)
    first, second = (sample(model, memories[0])[0] for _ in range(2))
    torch.manual_seed(0)
    assert not torch.equal(first, second)
    assert torch.equal(first, sample(model, memories[0])[0])


@pytest.mark.parametrize(("steps", "count", "total"), [(3, 1, 3), (None, 5, 2 * K), (99, 1, K)])
def test_the_callback_counts_all_steps(
    model: MPS2S, memories: tuple[Memory, Memory], steps: int | None, count: int, total: int
) -> None:
    calls: list[tuple[int, int]] = []
    sample(
        model,
        memories[0],
        num_candidates=count,
        num_inference_steps=steps,
        callback=lambda step, of: calls.append((step, of)),
    )
    assert calls == [(i + 1, total) for i in range(total)]


@pytest.mark.parametrize("steps", [2, 5, K])
def test_by_confidence_the_surest_tokens_are_kept(
    model: MPS2S, memories: tuple[Memory, Memory], logits_seen: list[Tensor], steps: int
) -> None:
    """Played again from the logits of every step, at temperature 0."""
    tokens, logp = sample(
        model, memories[0], temperature=0, num_inference_steps=steps, schedule="confidence", generator=seeded(0)
    )
    missing = decoding_order("raster", memories[0].token_mask).tolist()
    total = 0.0
    for logits, size in zip(logits_seen, group_sizes(K, steps), strict=True):
        best, choice = logits[0].double().log_softmax(-1).max(-1)
        assert len(best) == len(missing)
        surest = best.argsort(descending=True, stable=True).tolist()
        for i in surest[:size]:
            assert tokens[0].flatten()[missing[i]] == choice[i]
        total += float(best[surest[:size]].sum())
        missing = [missing[i] for i in surest[size:]]
    assert float(logp) == pytest.approx(total / K, abs=1e-5)
    assert not torch.equal(tokens, sample(model, memories[0], temperature=0, num_inference_steps=steps)[0])


@pytest.mark.parametrize("order", ORDERS)
def test_by_confidence_a_token_that_waits_is_drawn_by_the_same_number(
    model: MPS2S, memories: tuple[Memory, Memory], logits_seen: list[Tensor], order: str
) -> None:
    """Played again from the logits of every step and the numbers of the seed, at temperature 1."""
    steps, mask = 5, memories[0].token_mask
    tokens, _ = sample(
        model, memories[0], num_inference_steps=steps, order=order, schedule="confidence", generator=seeded(3)
    )
    generator = seeded(3)
    missing = decoding_order(order, mask, generator).tolist()
    numbers = dict(zip(missing, torch.rand(K, generator=generator, dtype=torch.float64).tolist(), strict=True))
    for logits, size in zip(logits_seen, group_sizes(K, steps), strict=True):
        logp = logits[0].double().log_softmax(-1)  # [missing, V]
        uniform = torch.tensor([numbers[position] for position in missing], dtype=torch.float64)
        drawn = draw(logp, uniform, Sampling())
        surest = logp.gather(-1, drawn[:, None])[:, 0].argsort(descending=True, stable=True).tolist()
        for i in surest[:size]:
            assert tokens[0].flatten()[missing[i]] == drawn[i]
        missing = [missing[i] for i in surest[size:]]
    assert not missing


@pytest.mark.parametrize(("name", "known"), [("schedule", SCHEDULES), ("order", ORDERS)])
def test_commands_offer_what_there_is(name: str, known: tuple[str, ...]) -> None:
    for place in (inpaint.Options, bench.steps):
        choice, none = get_args(get_type_hints(place)[name])
        assert get_args(choice) == known and none is type(None)


@pytest.mark.parametrize(("count", "steps"), [(3, 2), (6, None)])
def test_what_is_read_of_a_photo_is_made_once_for_all_candidates(
    model: MPS2S, count: int, steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, _ = make_memories(model, HOLE)
    made, keys_values = [], DecoderBlock.keys_values
    monkeypatch.setattr(DecoderBlock, "keys_values", lambda *given: made.append(1) or keys_values(*given))
    tokens, _ = sample(model, memory, num_candidates=count, num_inference_steps=steps, generator=seeded(5))
    assert len(made) == model.config.decoder_layers
    for i in range(count):
        alone, _ = sample(model, memory, num_inference_steps=steps, generator=seeded(5 + i))
        assert torch.equal(tokens[i], alone[0])


def test_candidates_at_once_know_nothing_of_their_number() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert candidates_at_once([1] * 9, cpu) == candidates_at_once([64], gpu) == sampling.CHUNK
    assert candidates_at_once([2, 9], cpu) == 1
    assert candidates_at_once([], cpu) == sampling.CHUNK
    assert candidates_at_once([1] * 9, cpu, by_confidence=True) == 1  # every step asks for all


def test_candidates_follow_the_models_distribution(model: MPS2S) -> None:
    memory, _ = make_memories(model, (4, 4, 1, 1))
    tokens, _ = sample(model, memory, num_candidates=400, generator=seeded(0))
    order = torch.tensor([[36]])
    logits = model.decoder.predict(memory, torch.zeros_like(order), order)
    probabilities = logits[0, 0].softmax(-1)
    shares = Counter(tokens[:, 4, 4].tolist())
    for token in probabilities.topk(3).indices.tolist():
        p = float(probabilities[token])
        assert shares[token] / 400 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 400))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature.* -0.1"),
        ({"temperature": math.nan}, "temperature.* nan"),
        ({"temperature": math.inf}, "temperature.* inf"),
        ({"top_k": -1}, "top_k.* -1"),
        ({"top_p": 0.0}, "top_p.* 0.0"),
        ({"top_p": 1.1}, "top_p.* 1.1"),
        ({"top_p": math.nan}, "top_p.* nan"),
        ({"guidance_scale": math.inf}, "guidance_scale.* inf"),
        ({"guidance_scale": 2.0}, "guidance_scale.*2.0.*unconditional"),
        ({"num_inference_steps": 0}, "num_inference_steps.* 0"),
        ({"num_candidates": 0}, "num_candidates.* 0"),
        ({"order": "spiral"}, "'spiral'.*raster, random, border"),
        ({"schedule": "linear"}, "'linear'.*cosine, constant, confidence"),
        ({"generator": [seeded(0)] * 3, "num_candidates": 2}, "3 generators.* 2 "),
    ],
)
def test_bad_arguments_are_named(
    model: MPS2S, memories: tuple[Memory, Memory], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sample(model, memories[0], **options)
    assert "\n" not in str(caught.value)


def test_settings_as_one_object_or_by_name_are_the_same(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    options: dict[str, Any] = {"temperature": 0.8, "top_k": 9, "order": "border", "num_inference_steps": 4}
    whole = sample(model, memories[0], sampling=Sampling(**options), generator=seeded(3))
    assert torch.equal(whole[0], sample(model, memories[0], generator=seeded(3), **options)[0])
    other = sample(model, memories[0], sampling=Sampling(**options), order="raster", generator=seeded(3))
    raster = sample(model, memories[0], sampling=Sampling(**{**options, "order": "raster"}), generator=seeded(3))
    assert torch.equal(other[0], raster[0]) and not torch.equal(other[0], whole[0])
    with pytest.raises(TypeError, match="warmth"):
        sample(model, memories[0], warmth=0.8)


def test_an_unconditional_memory_of_other_photos_is_refused(model: MPS2S, memories: tuple[Memory, Memory]) -> None:
    other, _ = make_memories(model, HOLE, HOLE)
    with pytest.raises(InputError, match="2 photos.* 1"):
        sample(model, memories[0], unconditional=other, guidance_scale=2.0)


def test_it_runs_within_autocast(model: MPS2S) -> None:
    """Training draws samples from float32 weights that way."""
    with torch.autocast("cpu", torch.bfloat16):
        memory, unconditional = make_memories(model, HOLE)
        results = [
            sample(
                model,
                memory,
                unconditional=unconditional,
                guidance_scale=2.0,
                num_inference_steps=4,
                generator=seeded(0),
                use_cache=use_cache,
            )
            for use_cache in (True, False)
        ]
    assert all(torch.isfinite(logp).all() for _, logp in results)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_draws_the_same(model: MPS2S) -> None:
    memory, _ = make_memories(model, HOLE)
    moved = memory.to("cuda")
    gpu = make_model().cuda()
    for order in ORDERS:
        for steps in STEPS:
            options: dict[str, Any] = {"order": order, "num_inference_steps": steps, "num_candidates": 2}
            here = sample(model, memory, generator=seeded(0), **options)
            there = sample(gpu, moved, generator=seeded(0), **options)
            assert torch.equal(here[0], there[0].cpu())
            torch.testing.assert_close(here[1], there[1].cpu(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_refused(number: float) -> None:
    assert read_scores(torch.tensor([-1.5, 0.0])) == [-1.5, 0.0]
    with pytest.raises(InputError, match="numbers that are not finite: its weights are damaged"):
        read_scores(torch.tensor([-1.5, number]))
