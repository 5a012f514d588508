"""A whole image, encoders and DF-VQGAN included: ours in every form against other people's pipelines.

The official time is that of a token of the official pattern in float32, times the number of defective tokens: one is
measured before each form of ours and one after it, so that both sides see the same minutes of a machine. The pipelines
of diffusers are timed with one step and with three, and extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from nuwa_lip.bench import decoding, inpaint, official, peers, quality
from nuwa_lip.bench.decoding import build, empty_cache, step
from nuwa_lip.bench.measure import Row, Timing, times, timing, timings
from nuwa_lip.bench.sizes import DTYPES, MODEL, Bench, Form, photo, random_dfvqgan, random_memory, random_mps2s
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.sampling import sample

OFFICIAL_BARS = {None: 240.0, "packed": 240.0, "int8": 400.0, "int4": 500.0}
"""Least ratio to our time in bf16, by the form of the weights."""
PARALLEL_BAR = 1500.0
LOOP_BAR = 10.0
FOUR_BAR = 2.2
AMUSED_STEPS, DIFFUSION_STEPS = 12, 20


def measure_images(bench: Bench) -> list[Row]:
    """Measure ours in every form with its divergence, then the bundled model and the pipelines of diffusers."""
    return forms(bench) + pipelines(bench)


def forms(bench: Bench) -> list[Row]:
    """Measure every form beside a model that decodes in the official pattern, together 12 GB in bf16."""
    precision, config, device = bench.precisions[-1], bench.sizes.mps2s, bench.device
    tokenizer = random_dfvqgan(bench.sizes.dfvqgan, precision, device)
    official_token = partial(official.token, random_mps2s(config, "fp32", device), photo(config, device=device))
    rows: list[Row] = []
    once(official_token)  # the first call is slower
    seconds = [once(official_token)]
    for form in decoding.forms(bench):
        if form.precision != precision:
            continue
        model = bench.attempt(f"whole image in {form.name}", partial(build, bench, config, form))
        if model is None:
            continue
        found = _one_form(bench, tokenizer, model, form)
        del model
        seconds.append(once(official_token))
        rows += quality.beside(bench, _compared(bench, found, form, timing(seconds[-2:])), form)
    return [timing(seconds).row("a token of the official pattern, fp32"), *rows]


def once(work: Callable[[], object]) -> float:
    """Time a call, in seconds."""
    return timings({"work": work}, 1, warm_up=False)["work"].seconds


@torch.inference_mode()
def _one_form(bench: Bench, tokenizer: DFVQGAN, model: MPS2S, form: Form) -> dict[str, Timing]:
    """Measure one token a step and parallel steps; the loop alone; four candidates."""
    memory, graph = random_memory(model), bench.gpu and form.compiled
    parallel: dict[str, Any] = {"num_inference_steps": bench.sizes.parallel_steps}
    # warm up: parallel steps run one candidate, steps of one token are padded to several; on a GPU, where a call takes
    # a second, every case is called once instead
    image(tokenizer, model, **parallel)()
    step(model, empty_cache(model, 1, bench.sizes.defective), 1, 2)()
    cases: dict[str, Callable[[], object]] = {
        "one": image(tokenizer, model, graph=graph),
        "parallel": image(tokenizer, model, **parallel),
        "loop": lambda: sample(model, memory, graph=graph),
        "parallel loop": lambda: sample(model, memory, **parallel),
    }
    if form.name in ("bf16", "fp32"):
        cases["four"] = image(tokenizer, model, num_candidates=4)
    return timings(cases, max(1, bench.rounds // 2), warm_up=bench.gpu)


def _compared(bench: Bench, found: dict[str, Timing], form: Form, token: Timing) -> list[Row]:
    """State one form's times beside a token of the official pattern."""
    name, steps, tokens = form.name, bench.sizes.parallel_steps, bench.sizes.defective
    whole, loops = token._replace(seconds=token.seconds * tokens), (found["loop"], found["parallel loop"])
    bar = bench.bar(OFFICIAL_BARS[form.weights]) if form.precision == "bf16" else None
    parallel = bench.bar(PARALLEL_BAR)
    rows = [
        found["one"].row(f"whole image, {tokens} tokens, one a step, {name}"),
        found["parallel"].row(f"whole image, {tokens} tokens, {steps} parallel steps, {name}"),
        times(f"official pattern / ours, one token a step, {name}", whole, found["one"], bar),
        times(f"official pattern / ours, {steps} parallel steps, {name}", whole, found["parallel"], parallel),
        times(f"loop alone, {tokens} / {steps} steps, {name}", *loops, bench.bar(LOOP_BAR)),
    ]
    if "four" in found:
        bar = bench.bar(FOUR_BAR)
        rows.append(times(f"four candidates / one, {name}", found["four"], found["one"], bar, at_least=False))
    return rows


def image(tokenizer: DFVQGAN, model: MPS2S, **how: Any) -> Callable[[], list[torch.Tensor]]:
    """Prepare encoding, filling and decoding one photo, as `pipeline` does it; `how` is for `sample`."""
    ids, pixels, mask, _, _ = photo(model.config, device=model.embedding.weight.device)

    def run() -> list[torch.Tensor]:
        encoding = tokenizer.encode(pixels, mask)
        assert encoding.token_mask is not None
        memory = model.encode(ids, pixels, mask, encoding.tokens, encoding.token_mask)
        tokens, _ = sample(model, memory, **how)
        return [tokenizer.decode(one[None], encoding.skips) for one in tokens]

    return run


def pipelines(bench: Bench) -> list[Row]:
    """Measure the bundled model on a photo of 256 x 256, warm, and diffusers' pipelines at that size."""
    own = inpaint.own_work(MODEL, 1 if bench.sizes.small else 3, bench.device)
    what, bar = f"{MODEL}, a photo of 256 x 256, warm", bench.bar(inpaint.OWN_BAR)
    rows = [Row(what, own.seconds, "s", bar=bar, noise=own.noise)]
    for name, make, steps in (
        ("aMUSEd-256", peers.amused, AMUSED_STEPS),
        ("Stable-Diffusion-1.5-sized", peers.stable_diffusion, DIFFUSION_STEPS),
    ):
        for precision in bench.precisions:
            peer = peers.optional(bench, "diffusers", partial(_pipeline, bench, make, precision, steps))
            if peer is not None:
                rows.append(peer.row(f"{name} inpainting, {steps} steps, extrapolated, {precision}"))
                rows.append(times(f"{name} / {MODEL}, {precision}", peer, own))
    return rows


def _pipeline(bench: Bench, make: peers.Pipeline, precision: str, steps: int) -> Timing:
    """Extrapolate the time of a call from calls of one and of three steps."""
    call = make(DTYPES[precision], bench.sizes.small, bench.device)
    found = timings({"one": lambda: call(1), "three": lambda: call(3)}, 2)
    step = (found["three"].seconds - found["one"].seconds) / 2
    return found["one"]._replace(seconds=found["one"].seconds + (steps - 1) * step)
