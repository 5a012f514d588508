"""Sampling of the missing tokens: orders of decoding, parallel steps, candidates.

K defective tokens are decided in S groups, one group a step. A step runs a row for each of its tokens, which says a
token of the group before (`models.groups`), and its rows stay in the cache; with one token a step that is the paper's
way. How many tokens a group has, and whether the order alone says which, is the schedule (`groups.SCHEDULES`).

A candidate's tokens are the same to the bit however many candidates there are, and wherever it stands among
them: everything random comes from its own seed, and because the last bit of a matrix product depends on its
number of rows, the decoder always runs the same number of candidates, filled up with copies
(`candidates_at_once`).

Legend: B photos, n candidates of a photo, C candidates at once, h w token grid, K defective tokens, S steps,
g tokens of a group, V codebook, G memories (2 with guidance).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.fast.cuda_graphs import Graph
from nuwa_lip.models.decoder import DecoderCache, Memory
from nuwa_lip.models.groups import Rows, check_schedule, group_sizes, rows_of, rows_of_steps
from nuwa_lip.models.mps2s import MPS2S
from nuwa_lip.models.orders import check_order, decoding_order
from nuwa_lip.sampling.draw import Draw

CHUNK = 4
"""Most candidates at once: four rows cost a small model a quarter more than one, a large one nothing."""
FULL_GROUP = 4
"""With so many tokens a step on the CPU the rows of one candidate fill its matrix units: then one at once."""

SLOTS = 32
"""Of a cache are read at a time: for every other length oneDNN makes, and keeps, a program of its own, 1 MB a token."""

Callback = Callable[[int, int], None]
Generators = torch.Generator | Sequence[torch.Generator] | None


@torch.no_grad()
def sample(
    mps2s: MPS2S,
    memory: Memory,
    *,
    num_candidates: int = 1,
    unconditional: Memory | None = None,
    guidance_scale: float = 1.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    order: str = "raster",
    num_inference_steps: int | None = None,
    schedule: str = "cosine",
    generator: Generators = None,
    use_cache: bool = True,
    graph: bool = False,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill in the defective tokens of B photos, n candidates for each.

    Args:
        mps2s: in eval mode.
        memory: what `mps2s.encode` gives.
        num_candidates: n.
        unconditional: the memory with the caption ""; needed for guidance only.
        guidance_scale: logits are u + scale · (c - u), c with and u without the caption.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the likeliest tokens only that have this probability together.
        order: one of `ORDERS`; with "confidence" it tells only where a token stands among equals, and which random
            number it is drawn by.
        num_inference_steps: S; more than K mean K; None: one token a step.
        schedule: one of `groups.SCHEDULES`; only "confidence" matters with one token a step.
        generator: read for its seed only: with seed s candidate i of a photo has the seed s + i; a list has
            one for each candidate of a photo, or of all photos; None: a random seed.
        use_cache: False runs the whole decoder in every step, which gives the same and is slow.
        graph: on a GPU, with one token a step, capture a step as a CUDA graph, and replay that for every token.
        callback: called as f(step, steps) after each step, from 1; steps: of all photos and candidates.

    Returns:
        Tokens, int64 [B · n, h, w], and the mean log-probability of each one's new tokens, float32 [B · n]:
        by the model with guidance, if there is any, at temperature 1 and without top-k and top-p; 0 if there
        are none. Candidates of a photo stand next to each other.

    Raises:
        InputError: an argument is out of range.
    """
    draw = Draw(guidance_scale=guidance_scale, temperature=temperature, top_k=top_k, top_p=top_p)
    photos = len(memory.tokens)
    _check(num_candidates, order, num_inference_steps, schedule)
    unconditional = _unconditional(unconditional, draw, photos)
    seeds = candidate_seeds(generator, num_candidates, photos)

    memories = [[memory[i], unconditional[i]] if unconditional else [memory[i]] for i in range(photos)]
    groups = [group_sizes(int(one[0].token_mask.sum()), num_inference_steps, schedule) for one in memories]
    surest = schedule == "confidence"
    chunks = [candidates_at_once(sizes, memory.states.device, surest) for sizes in groups]
    rounds = [math.ceil(num_candidates / chunk) for chunk in chunks]
    progress = _Progress(callback, sum(len(sizes) * n for sizes, n in zip(groups, rounds, strict=True)))
    graph = graph and memory.states.is_cuda
    tokens, scores = [], []
    for one, sizes, chunk, own in zip(memories, groups, chunks, seeds, strict=True):
        batch, cache = _together(one), None
        for first in range(0, num_candidates, chunk):
            few = own[first : first + chunk]
            filled_up = few + few[-1:] * (chunk - len(few))
            plan = _Plan.make(order, one[0].token_mask, filled_up, len(few), sizes, surest)
            if use_cache:
                decoder = _Cached(mps2s, batch, plan, alike=graph and plan.one_by_one, earlier=cache)
                drawn, logp = _decode(decoder, draw, progress)
                cache = replace(decoder.cache, layers=[])  # theirs are not the next ones'
                del decoder
            else:
                drawn, logp = _decode(_Uncached(mps2s, batch, plan), draw, progress)
            known = one[0].tokens.flatten(1).expand(chunk, -1)
            filled = known.scatter(1, plan.positions, drawn)
            tokens.append(filled[: len(few)].unflatten(1, one[0].tokens.shape[1:]))
            scores.append(logp[: len(few)])
    return torch.cat(tokens), torch.cat(scores)


def candidates_at_once(sizes: list[int], device: torch.device, surest: bool = False) -> int:
    """C, which must not depend on how many candidates are asked for.

    Args:
        sizes: of the groups.
        device: where the decoder runs.
        surest: every step asks for all that are missing, as "confidence" does.
    """
    parallel = surest or sum(sizes) >= FULL_GROUP * max(1, len(sizes))
    return 1 if parallel and device.type == "cpu" else CHUNK


@dataclass(frozen=True)
class _Plan:
    """What is settled for C candidates before the first step."""

    positions: Tensor
    """int64 [C, K], in the order of decoding."""
    uniform: Tensor
    """float64 [C, K], one for each token; it stays with the token if the order changes."""
    distinct: int
    """Only so many candidates were asked for; the others are copies of the last of these."""
    sizes: list[int]
    """Of the groups, one for each step."""
    surest: bool
    """Every step draws all that are missing, and keeps those of which the model is surest."""

    @classmethod
    def make(
        cls, order: str, token_mask: Tensor, seeds: list[int], distinct: int, sizes: list[int], surest: bool
    ) -> _Plan:
        positions, uniform = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            positions.append(decoding_order(order, token_mask, generator))
            uniform.append(torch.rand(len(positions[0]), generator=generator, dtype=torch.float64))
        drawn_by = torch.stack(uniform).to(token_mask.device)
        return cls(torch.stack(positions), drawn_by, distinct, sizes, surest)

    @property
    def one_by_one(self) -> bool:
        """Whether every step decides one token, the next one."""
        return not self.surest and len(self.sizes) == sum(self.sizes)

    def asked(self, step: int) -> slice:
        """Which tokens a step draws."""
        start = sum(self.sizes[:step])
        return slice(start, sum(self.sizes) if self.surest else start + self.sizes[step])

    def rows(self) -> list[Rows]:
        """Those that each step runs; the last ones are of the tokens that it draws."""
        # all now: a copy to a GPU between steps would wait for those before it
        return rows_of_steps(self.sizes, self.surest, self.positions.device)


class _Progress:
    """Counts steps for the caller."""

    def __init__(self, callback: Callback | None, total: int) -> None:
        self.callback, self.total, self.step = callback, total, 0

    def __call__(self) -> None:
        self.step += 1
        if self.callback is not None:
            self.callback(self.step, self.total)


def _decode(decoder: _Cached | _Uncached, draw: Draw, progress: _Progress) -> tuple[Tensor, Tensor]:
    """Decide group after group → tokens int64 [C, K] and their mean log-probabilities, float32 [C].

    With "confidence" every step draws all that are missing, keeps the group of which the model is surest, and brings
    the plan's positions into the order in which they were kept. A token that waits is drawn again by the same number:
    with a fresh one (MaskGIT) an unlikely code would have to come up again in every step, and rarely stay.
    """
    plan = decoder.plan
    chosen = torch.zeros_like(plan.positions)
    logp = torch.zeros_like(plan.uniform)

    def decide(rows: Rows, step: int) -> None:
        """One group. Nothing in here waits for a GPU."""
        logits = draw.guide(decoder(chosen, rows, step))  # [C, R, V], a row for each that is asked for
        asked = rows.slots[-logits.shape[1] :]
        drawn = draw(logits, plan.uniform[:, asked])
        chosen.index_copy_(1, asked, drawn)
        logp.index_copy_(1, asked, logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0])
        if plan.surest:
            first = logp[:, asked].argsort(dim=-1, descending=True, stable=True)
            for row in (plan.positions, plan.uniform, chosen, logp):
                row.index_copy_(1, asked, row[:, asked].gather(-1, first))

    steps = plan.rows()
    graph = Graph(lambda *rows: decide(Rows(*rows), 0), *steps[0]) if decoder.alike and steps else None
    for step, rows in enumerate(steps):
        if graph is None:
            decide(rows, step)
        else:
            graph(*rows)
        progress()
    return chosen, (logp.sum(1) / max(1, logp.shape[1])).float()


class _Cached:
    """Steps with a key-value cache, for the C candidates of each of G memories.

    Args:
        mps2s: the model.
        memory: of G photos.
        plan: of the candidates.
        alike: every step does the same but for its rows, so that one graph serves all: each reads the whole cache,
            whose later slots are masked. With one token a step only.
        earlier: the cache of other candidates of the same memories.
    """

    def __init__(
        self,
        mps2s: MPS2S,
        memory: Memory,
        plan: _Plan,
        *,
        alike: bool = False,
        earlier: DecoderCache | None = None,
    ) -> None:
        self.mps2s, self.memories, self.plan, self.alike = mps2s, len(memory.states), plan, alike
        # a GPU attends to all candidates at once: nothing is gained there by leaving copies out
        distinct = plan.distinct if plan.positions.device.type == "cpu" else None
        candidates, tokens = plan.positions.shape
        # never one slot, and never all: for these `torch.compile` makes kernels of their own
        self.cache = mps2s.prefill(memory, candidates, tokens + 2, distinct=distinct, earlier=earlier)

    def __call__(self, chosen: Tensor, rows: Rows, step: int) -> Tensor:
        """Logits of the tokens that a step asks for.

        Args:
            chosen: int64 [C, K], the tokens, of which those of earlier steps are decided.
            rows: of this step.
            step: from 0; each must run once, in order.

        Returns:
            float32 [G · C, R, V].
        """
        previous, previous_at = (x.repeat(self.memories, 1) for x in rows.say(chosen, self.plan.positions))
        at = self.plan.positions[:, rows.slots].repeat(self.memories, 1)
        if self.alike:
            one = previous[:, 0], previous_at[:, 0], at[:, 0]
            return self.mps2s.decode_one_token(self.cache, *one, rows.slots)[:, None]
        asked, tokens = self.plan.asked(step), self.plan.positions.shape[1]
        # beyond these nothing is visible; and one more, for `torch.compile` takes sizes that are equal for the same
        length = min(math.ceil(asked.stop / SLOTS) * SLOTS, tokens) + 1
        states = self.mps2s.decode_rows(self.cache, previous, previous_at, at, rows.slots, rows.visible(length))
        return self.mps2s.head(states[:, asked.start - asked.stop :])


class _Uncached:
    """The slow twin of `_Cached`: teacher-forced prediction of everything from the beginning, in every step."""

    alike = False

    def __init__(self, mps2s: MPS2S, memory: Memory, plan: _Plan) -> None:
        self.mps2s, self.memory, self.plan = mps2s, memory, plan

    def __call__(self, chosen: Tensor, rows: Rows, step: int) -> Tensor:  # noqa: ARG002 - it runs all rows
        """As `_Cached.__call__`."""
        asked, memories = self.plan.asked(step), len(self.memory.states)
        size = asked.stop - asked.start
        targets, order = (x[:, : asked.stop].repeat(memories, 1) for x in (chosen, self.plan.positions))
        everything = rows_of([*self.plan.sizes[:step], size])
        return self.mps2s.predict(self.memory, targets, order, everything)[:, -size:]


def _together(memories: list[Memory]) -> Memory:
    """Memories of one photo each, whose captions differ in length, as a batch."""
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


def _unconditional(memory: Memory | None, draw: Draw, photos: int) -> Memory | None:
    """The unconditional memory, if guidance needs it."""
    if not draw.guided:
        return None
    if memory is None:
        raise InputError(
            f'guidance_scale is {draw.guidance_scale}: unlike 1 it needs `unconditional`, the memory of ""'
        )
    if len(memory.tokens) != photos:
        raise InputError(f"unconditional is the memory of {len(memory.tokens)} photos; needed: {photos}")
    return memory


def candidate_seeds(generator: Generators, count: int, photos: int = 1) -> list[list[int]]:
    """The seeds of each photo's `count` candidates, by the rule of `sample`."""
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


def _check(num_candidates: int, order: str, steps: int | None, schedule: str) -> None:
    if num_candidates < 1:
        raise InputError(f"num_candidates is {num_candidates}; it must be 1 or more")
    check_steps(steps)
    check_order(order)
    check_schedule(schedule)


def check_steps(steps: int | None) -> None:
    """Raises: InputError: nothing can be decided in so many steps."""
    if steps is not None and steps < 1:
        raise InputError(f"num_inference_steps is {steps}; it must be 1 or more, or None for one token a step")
