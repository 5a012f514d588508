"""Sampling of the missing tokens: orders of decoding, parallel steps, candidates.

K defective tokens are decided in S groups, one group a step. A step runs a row for each of its tokens, whose input is a
token of the group before (`models.groups`), and its rows stay in the cache; with one token a step that is the paper's
way. How many tokens a group has, and whether the order alone decides which, is the schedule (`groups.SCHEDULES`).

What was decided first had little to go by. So a painting may be revised: about half of its tokens, others each time,
are given as they are, and the rest is drawn anew in what is left of the steps, in random order.

A step, from `sample` to the logits: `_decode` calls `decide` once a step, which calls `Decoder.decode_rows`; that
embeds the rows, runs the blocks (`CausalAttention`, `CrossAttention`) and ends in `Decoder.head` (`models.decoder`).

A candidate's tokens are the same to the bit however many candidates there are, and wherever it stands among them:
docs/design.md says how.

Legend: B photos, n candidates of a photo, C candidates at once, h w token grid, K defective tokens, S steps, R rows of
a step, V codebook, G memories (2 with guidance).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.fast import speed_up
from nuwa_lip.fast.cuda_graphs import Graph
from nuwa_lip.models.cache import DecoderCache
from nuwa_lip.models.decoder import Decoder
from nuwa_lip.models.groups import RowInputs, Rows, group_sizes, rows_of, rows_of_steps
from nuwa_lip.models.memory import Memory
from nuwa_lip.models.mps2s import MPS2S
from nuwa_lip.models.orders import decoding_order
from nuwa_lip.sampling.draw import draw, guide
from nuwa_lip.sampling.settings import Sampling
from nuwa_lip.sampling.so_far import SoFar

CHUNK = 4
"""Most candidates at once: four rows cost a small model a quarter more than one, a large one nothing."""
FULL_GROUP = 4
"""From this many tokens a step on, the rows of one candidate fill a CPU's matrix units: then one at once."""

SLOTS = 32
"""Cache slots are read in multiples of 32: oneDNN compiles and keeps a kernel for every new length (1 MB each)."""

Callback = Callable[[int, int], None]
Watch = Callable[[int, int, SoFar], None]
Generators = torch.Generator | Sequence[torch.Generator] | None


@torch.no_grad()
def sample(
    mps2s: MPS2S,
    memory: Memory,
    *,
    num_candidates: int = 1,
    unconditional: Memory | None = None,
    sampling: Sampling | None = None,
    generator: Generators = None,
    use_cache: bool = True,
    graph: bool = False,
    callback: Callback | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """Fill in the defective tokens of B photos, n candidates for each.

    Args:
        mps2s: in eval mode.
        memory: what `mps2s.encode` gives.
        num_candidates: n.
        unconditional: the memory with the caption ""; needed for guidance only.
        sampling: how tokens are drawn, in which order and in how many steps; None: `Sampling()`.
        generator: read for its seed only: with seed s candidate i of a photo has the seed s + i; a list has
            one for each candidate of a photo, or of all photos; None: a random seed.
        use_cache: False runs the whole decoder in every step, which gives the same and is slow.
        graph: on a GPU, with one token a step, capture a step as a CUDA graph, and replay that for every token.
        callback: called as f(step, steps) after each step, from 1; steps: of all photos and candidates.
        watch: the same, with what is decided so far.
        settings: fields of `Sampling` by name, which replace those of `sampling`: guidance_scale, temperature, top_k,
            top_p, order, num_inference_steps, schedule, revisions.

    Returns:
        Tokens, int64 [B · n, h, w], and the mean log-probability of each one's new tokens, float32 [B · n]:
        by the model with guidance, if there is any, at temperature 1 and without top-k and top-p, each when it was
        drawn; 0 if there are none. Candidates of a photo stand next to each other.

    Raises:
        InputError: an argument is out of range.
    """
    sampling = dataclasses.replace(sampling or Sampling(), **settings)
    photos = len(memory.tokens)
    if num_candidates < 1:
        raise InputError(f"num_candidates is {num_candidates}; it must be 1 or more")
    unconditional = _unconditional(unconditional, sampling, photos)
    seeds = candidate_seeds(generator, num_candidates, photos)

    memories = [[memory[i], unconditional[i]] if unconditional else [memory[i]] for i in range(photos)]
    steps = sampling.num_inference_steps
    groups = [group_sizes(int(one[0].token_mask.sum()), steps, sampling.schedule) for one in memories]
    chunks = [candidates_at_once(sizes, memory.states.device, sampling.by_confidence) for sizes in groups]
    rounds = [math.ceil(num_candidates / chunk) for chunk in chunks]
    revisions = [sampling.revisions if halfway(sizes) else 0 for sizes in groups]
    steps_of = [len(sizes) + n * (len(sizes) - halfway(sizes)) for sizes, n in zip(groups, revisions, strict=True)]
    progress = _Progress(callback, watch, sum(n * steps for n, steps in zip(rounds, steps_of, strict=True)))
    graph = graph and memory.states.is_cuda
    decoder = speed_up(mps2s).decoder
    tokens, scores = [], []
    for one, sizes, again, chunk, own in zip(memories, groups, revisions, chunks, seeds, strict=True):
        batch, cache = _together(one), None
        for first in range(0, num_candidates, chunk):
            few = own[first : first + chunk]
            plan = _Plan.make(one[0].token_mask, few, chunk, sizes, sampling)
            for revision in range(1 + again):
                plan = plan.revised() if revision else plan
                if use_cache:
                    cache = plan.prefill(decoder, batch, reuse=cache)
                how = sampling.revising if revision else sampling
                drawn, logp = _decode(decoder, batch, plan, how, progress, cache=cache, graph=graph)
                if cache is not None:
                    cache = dataclasses.replace(cache, layers=[])  # the next candidates need fresh layer caches
            known = one[0].tokens.flatten(1).expand(chunk, -1)
            filled = known.scatter(1, plan.positions, drawn)
            tokens.append(filled[: len(few)].unflatten(1, one[0].tokens.shape[1:]))
            scores.append(logp[: len(few)])
    return torch.cat(tokens), torch.cat(scores)


def candidates_at_once(sizes: list[int], device: torch.device, by_confidence: bool = False) -> int:
    """Return C, which must not depend on how many candidates are wanted.

    Args:
        sizes: tokens of each group.
        device: where the decoder runs.
        by_confidence: every step predicts all that are missing.
    """
    parallel = by_confidence or sum(sizes) >= FULL_GROUP * max(1, len(sizes))
    return 1 if parallel and device.type == "cpu" else CHUNK


def halfway(sizes: list[int]) -> int:
    """Return the step before which at least half of the tokens are decided, or the last one; 0: there is but one.

    Args:
        sizes: tokens of each group.
    """
    enough = (step for step, count in enumerate(itertools.accumulate(sizes[:-1], initial=0)) if 2 * count >= sum(sizes))
    return next(enough, max(0, len(sizes) - 1))


@dataclass(frozen=True)
class _Plan:
    """All that is settled for C candidates before the first step."""

    generators: list[torch.Generator]
    """Of the C candidates, for what is drawn next."""
    positions: Tensor
    """int64 [C, K], in the order of decoding."""
    uniform: Tensor
    """float64 [C, K], one for each token; it stays with the token if the order changes."""
    real: int
    """How many candidates are wanted; the others repeat the last of these (`BatchPadding`)."""
    sizes: list[int]
    """Tokens of each group, one group for each step."""
    by_confidence: bool
    begin: int
    """The first step: what the ones before it would decide is given."""
    chosen: Tensor
    """int64 [C, K], the tokens; what is not given is written as it is decided."""
    logp: Tensor
    """float64 [C, K], the log-probabilities with which they were drawn."""

    @classmethod
    def make(cls, token_mask: Tensor, seeds: list[int], chunk: int, sizes: list[int], sampling: Sampling) -> _Plan:
        """Settle the order and the random numbers of candidates.

        Args:
            token_mask: bool [1, 1, h, w], True = defective.
            seeds: of the candidates that are wanted.
            chunk: C, to which they are padded.
            sizes: tokens of each group.
            sampling: its order and schedule.
        """
        padded = seeds + seeds[-1:] * (chunk - len(seeds))
        generators = [torch.Generator().manual_seed(seed) for seed in padded]
        positions = torch.stack([decoding_order(sampling.order, token_mask, one) for one in generators])
        uniform = _uniform(generators, positions)
        empty = torch.zeros_like(positions), torch.zeros_like(uniform)
        return cls(generators, positions, uniform, len(seeds), sizes, sampling.by_confidence, 0, *empty)

    def revised(self) -> _Plan:
        """Return a plan that decides about half of the tokens again, chosen by chance, and is given the others."""
        order = _uniform(self.generators, self.positions).argsort(1)
        positions, chosen, logp = (row.gather(1, order) for row in (self.positions, self.chosen, self.logp))
        return dataclasses.replace(
            self,
            positions=positions,
            uniform=_uniform(self.generators, positions),
            begin=halfway(self.sizes),
            chosen=chosen,
            logp=logp,
        )

    @property
    def one_by_one(self) -> bool:
        """Return whether every step decides one token, the next one."""
        return not self.by_confidence and len(self.sizes) == sum(self.sizes)

    def targets(self, step: int) -> slice:
        """Return which tokens a step predicts."""
        start = sum(self.sizes[:step])
        return slice(start, sum(self.sizes) if self.by_confidence else start + self.sizes[step])

    def prefill(self, decoder: Decoder, memory: Memory, reuse: DecoderCache | None = None) -> DecoderCache:
        """Make a cache for the candidates.

        Args:
            decoder: the model's.
            memory: of G photos.
            reuse: the cache of other candidates of these, or None.
        """
        candidates, tokens = self.positions.shape
        # a GPU attends to all candidates at once: nothing is gained there by leaving padding out
        real = self.real if self.positions.device.type == "cpu" else None
        # never one slot, and never all: for these `torch.compile` makes kernels of their own
        return decoder.prefill(memory, candidates, tokens + 2, real=real, reuse=reuse)


def _uniform(generators: list[torch.Generator], positions: Tensor) -> Tensor:
    """Draw a number from 0 to below 1 for each of the `positions` [C, K], each candidate's by its own generator."""
    numbers = [torch.rand(positions.shape[1], generator=one, dtype=torch.float64) for one in generators]
    return torch.stack(numbers).to(positions.device)


class _Progress:
    """Counts steps for the caller."""

    def __init__(self, callback: Callback | None, watch: Watch | None, total: int) -> None:
        self.callback, self.watch, self.total, self.step = callback, watch, total, 0

    def __call__(self, so_far: SoFar) -> None:
        self.step += 1
        if self.callback is not None:
            self.callback(self.step, self.total)
        if self.watch is not None:
            self.watch(self.step, self.total, so_far)


def _decode(
    decoder: Decoder,
    memory: Memory,
    plan: _Plan,
    sampling: Sampling,
    progress: _Progress,
    *,
    cache: DecoderCache | None,
    graph: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode group after group → tokens int64 [C, K] and their mean log-probabilities, float32 [C].

    With "confidence" every step draws all that are missing, keeps the group of which the model is surest, and brings
    the plan's positions into the order in which they were kept. A token that waits is drawn again by the same number:
    with a fresh one (MaskGIT) an unlikely code would have to come up again in every step, and rarely stay.

    Args:
        decoder: the model's.
        memory: of G photos: one photo, with guidance without its caption too.
        plan: of the candidates.
        sampling: how tokens are drawn.
        progress: called after each step.
        cache: of `plan.prefill`; None: run everything from the beginning in every step, the slow twin.
        graph: capture a step of one token as a CUDA graph: all have the same shapes if each reads the whole cache,
            whose later slots are masked.
    """
    memories, tokens = len(memory.states), plan.positions.shape[1]
    fixed_shape = graph and plan.one_by_one and cache is not None
    chosen, logp = plan.chosen, plan.logp

    def inputs_of(rows: Rows) -> tuple[RowInputs, Tensor | None]:
        """Return what rows are given, by all memories."""
        decided, order = chosen.repeat(memories, 1), plan.positions.repeat(memories, 1)
        assert cache is not None
        return rows.inputs(decided, order), decoder.around(cache.known, decided, order, rows)

    def decide(rows: Rows, step: int) -> None:
        """Decide one group. Nothing in here waits for a GPU."""
        targets = plan.targets(step)
        size = targets.stop - targets.start
        if cache is None:
            everything = rows_of([*plan.sizes[:step], size])
            decided, order = (x[:, : targets.stop].repeat(memories, 1) for x in (chosen, plan.positions))
            logits = decoder.predict(memory, decided, order, everything)[:, -size:]
        else:
            # one slot more than can be visible, because `torch.compile` takes two sizes that are equal for the same
            length = tokens + 2 if fixed_shape else min(math.ceil(targets.stop / SLOTS) * SLOTS, tokens) + 1
            inputs, around = inputs_of(rows)
            logits = decoder.decode_rows(cache, inputs, rows.slots, rows.visible(length), size, around)
        logits = guide(logits, sampling)  # [C, R, V], a row for each target
        slots = rows.slots[-size:]
        drawn = draw(logits, plan.uniform[:, slots], sampling)
        chosen.index_copy_(1, slots, drawn)
        logp.index_copy_(1, slots, logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0])
        if plan.by_confidence:
            first = logp[:, slots].argsort(dim=-1, descending=True, stable=True)
            for row in (plan.positions, plan.uniform, chosen, logp):
                row.index_copy_(1, slots, row[:, slots].gather(-1, first))

    # all rows now: a copy to a GPU between steps would wait for those before it
    steps = rows_of_steps(plan.sizes, plan.by_confidence, plan.positions.device)
    if plan.begin and cache is not None:
        rows = rows_of(plan.sizes[: plan.begin]).to(plan.positions.device)
        inputs, around = inputs_of(rows)
        decoder.decode_rows(cache, inputs, rows.slots, rows.visible(len(rows.slots) + 1), 1, around)
    captured = Graph(lambda *rows: decide(Rows(*rows), 0), *steps[plan.begin]) if fixed_shape and steps else None
    for step, rows in enumerate(steps[plan.begin :], plan.begin):
        if captured is None:
            decide(rows, step)
        else:
            captured(*rows)
        decided = tokens if plan.begin else sum(plan.sizes[: step + 1])
        progress(SoFar(memory.tokens[0], plan.positions[0], chosen[0], decided))
    return chosen, (logp.sum(1) / max(1, logp.shape[1])).float()


def _together(memories: list[Memory]) -> Memory:
    """Put memories of one photo each, whose captions differ in length, into a batch."""
    longest = max(memory.text_length for memory in memories)
    states, masks = [], []
    for memory in memories:
        missing, length = longest - memory.text_length, memory.text_length
        text, rest = memory.states.tensor_split((length,), 1)
        states.append(torch.cat([F.pad(text, (0, 0, 0, missing)), rest], 1))
        text, rest = memory.mask.tensor_split((length,), 1)
        masks.append(torch.cat([F.pad(text, (0, missing), value=True), rest], 1))
    return Memory(
        states=torch.cat(states),
        mask=torch.cat(masks),
        tokens=torch.cat([memory.tokens for memory in memories]),
        token_mask=torch.cat([memory.token_mask for memory in memories]),
        text_length=longest,
    )


def _unconditional(memory: Memory | None, sampling: Sampling, photos: int) -> Memory | None:
    """Return the unconditional memory, if guidance needs it."""
    if not sampling.guided:
        return None
    if memory is None:
        raise InputError(
            f'guidance_scale is {sampling.guidance_scale}: unlike 1 it needs `unconditional`, the memory of ""'
        )
    if len(memory.tokens) != photos:
        raise InputError(f"unconditional is the memory of {len(memory.tokens)} photos; needed: {photos}")
    return memory


def read_scores(logp: Tensor) -> list[float]:
    """Bring the mean log-probabilities [n] of `sample` to the host, where looking at them makes no GPU wait.

    Raises:
        InputError: one of them is no finite number, as the logits were: what has been drawn means nothing.
    """
    scores = logp.tolist()
    if not all(map(math.isfinite, scores)):
        raise InputError(
            "the model computes with numbers that are not finite: its weights are damaged, or its dtype is too narrow"
        )
    return scores


def candidate_seeds(generator: Generators, count: int, photos: int = 1) -> list[list[int]]:
    """Return the seeds of each photo's `count` candidates, by the rule of `sample`.

    Args:
        generator: one, or one for each candidate of a photo, or of all photos; None: a random seed.
        count: candidates of a photo.
        photos: their number.

    Raises:
        InputError: it is something else, or there is another number of generators.
    """
    if generator is None or isinstance(generator, torch.Generator):
        first = int(torch.randint(2**31, ())) if generator is None else generator.initial_seed()
        return [[(first + i) % 2**64 for i in range(count)]] * photos
    if not isinstance(generator, (list, tuple)) or not all(isinstance(one, torch.Generator) for one in generator):
        raise InputError(f"generator is {generator!r}: give a torch.Generator, or a list with one for each candidate")
    seeds = [one.initial_seed() for one in generator]
    if len(seeds) == count:
        return [seeds] * photos
    if len(seeds) != count * photos:
        raise InputError(f"there are {len(seeds)} generators for {count * photos} candidates; give one for each")
    return [seeds[i * count : (i + 1) * count] for i in range(photos)]
