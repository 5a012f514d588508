"""One decoding step: how close to what memory allows, in every form of the weights, and against `generate`.

A step reads the weights of the decoder's linear layers, the output table, and the keys and values of the photo and
of the tokens so far. These bytes, each counted once, over the time it takes are compared to the machine's best rate
of reading, and to the rate at which the same linear layers read when they are called alone, one after the other.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nuwa_lip.bench import peers, quality
from nuwa_lip.bench.measure import Row, times, timings
from nuwa_lip.bench.sizes import DTYPES, WEIGHTS, Bench, Form, random_memory, random_mps2s, step_weights
from nuwa_lip.fast.cuda_graphs import Graph
from nuwa_lip.fast.kernels import compile_step
from nuwa_lip.fast.quantise import GROUPS, quantise
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.cache import DecoderCache
from nuwa_lip.models.decoder import DecoderBlock
from nuwa_lip.models.groups import RowInputs
from nuwa_lip.sampling import Sampling
from nuwa_lip.sampling.draw import draw, guide
from nuwa_lip.sampling.loop import CHUNK

FORMS = (
    Form("fp32"),
    *(Form("fp32", "packed", compiled) for compiled in (False, True)),
    Form("bf16"),
    *(Form("bf16", weights, compiled) for weights in WEIGHTS for compiled in (False, True)),
)
GPU_FORMS = Form("fp32"), Form("bf16"), Form("bf16", compiled=True)
"""On a GPU a compiled step is also a CUDA graph."""
WIDE = "bf16 compiled, layers of a 7 B model"
BITS = {"int8": 8.0, "int4": 4.0 + 2 * 16 / GROUPS[0]}
READ_BARS = {"bf16": 0.65, "bf16 packed": 0.65, "bf16 packed compiled": 0.65}
"""Least share of the rate of reading, for one candidate at half of the longest cache."""
GPU_READ_BARS = {"bf16 compiled": 0.35, WIDE: 0.7}
ALONE_BAR = 0.9
PEER_BARS = {"fp32": 1.2, "bf16": 1.5}
TOP_K = 128
LEAST = 0.2  # seconds of a repeat


def measure_steps(bench: Bench) -> list[Row]:
    """Measure a step in every form, each with a model of its own, because several would not fit into memory.

    On a GPU fewer but larger layers are measured too: kernels as small as ours cannot reach its rate of reading.
    """
    rows: list[Row] = []
    cases = [(form.name, bench.sizes.mps2s, form) for form in forms(bench)]
    if bench.gpu and "bf16" in bench.precisions:
        cases.append((WIDE, bench.sizes.wide_mps2s, Form("bf16", compiled=True)))
    for name, sizes, form in cases:
        # encoders take no part, and need memory
        config = dataclasses.replace(sizes, text_layers=1, pixel_layers=1, token_layers=1)
        model = bench.attempt(f"decoding in {name}", partial(build, bench, config, form))
        if model is None:
            continue
        found = _measure_form(bench, model, name, form)
        rows += found if name == WIDE else quality.beside(bench, found, form)
        if form.weights == "packed" or name == "bf16":
            rows += _against_generate(bench, model, name)
        del model
    return rows


def forms(bench: Bench) -> list[Form]:
    """List the forms worth measuring here."""
    return [form for form in (GPU_FORMS if bench.gpu else FORMS) if form.precision in bench.precisions]


def build(bench: Bench, config: MPS2SConfig, form: Form) -> MPS2S:
    """Make a model of noise.

    Args:
        bench: has the device.
        config: sizes of the model.
        form: of its weights; an `InputError` says that it does not run here.
    """
    model = random_mps2s(config, form.precision, bench.device)
    if form.weights is not None:
        quantise(model, form.weights)
    if form.compiled:
        torch._dynamo.reset()  # graphs of earlier forms would count against this one's limit
        compile_step(model, backend="eager" if bench.sizes.small else "inductor")
    return model


@torch.inference_mode()
def _measure_form(bench: Bench, model: MPS2S, name: str, form: Form) -> list[Row]:
    """Measure one form: its steps, as CUDA graphs or not, and its linear layers alone."""
    sizes, graph = bench.sizes, bench.gpu and form.compiled
    cases: dict[str, Callable[[], object]] = {}
    for c in sizes.candidates:
        # a graph reads all of its cache, which has this size in `sampling`
        cache = empty_cache(model, c, sizes.defective + 2 if graph else max(sizes.lengths) + 1)
        for length in sizes.lengths:
            cases[_step_name(name, c, length)] = step(model, cache, c, length, graph=graph)
    alone, usual = f"its linear layers alone, {name}", sizes.lengths[len(sizes.lengths) // 2]
    cases[alone] = _linear_layers(model, graph=graph)
    found = timings(cases, bench.rounds, least=LEAST)
    one = found[_step_name(name, 1, usual)]
    rate = step_bytes(model, form.weights, 1, usual) / one.seconds / 1e9
    alone_rate = step_bytes(model, form.weights, 0, 0, memory=False) / found[alone].seconds / 1e9
    rows = [timing.row(what, "ms") for what, timing in found.items()]
    what = f"share of the rate of reading, {name}, 1 candidate, {usual} tokens"
    bar = bench.bar(READ_BARS.get(name), gpu=GPU_READ_BARS.get(name))
    rows.append(Row(what, rate / bench.limits.read, "x", bar=bar, at_least=True, noise=one.noise))
    what, noise = f"rate of a step / of its linear layers alone, {name}", one.noise + found[alone].noise
    rows.append(Row(what, rate / alone_rate, "x", bar=bench.bar(ALONE_BAR), at_least=True, noise=noise))
    return rows


def _step_name(name: str, candidates: int, length: int) -> str:
    """Name the line of a step."""
    return f"step, {name}, {candidates} candidate{'s' if candidates > 1 else ''}, {length} tokens in the cache"


def empty_cache(model: MPS2S, candidates: int, capacity: int) -> DecoderCache:
    """Make a cache as `sampling` does.

    Args:
        model: with random weights.
        candidates: at a time.
        capacity: most tokens of the cache.
    """
    memory = random_memory(model)
    return model.decoder.prefill(
        memory, max(candidates, CHUNK), capacity, real=None if memory.states.is_cuda else candidates
    )


def step(
    model: MPS2S, cache: DecoderCache, candidates: int, length: int, *, graph: bool = False
) -> Callable[[], Tensor]:
    """Prepare one token of every candidate, as `sampling` runs it.

    Args:
        model: in some form.
        cache: as `empty_cache` makes it.
        candidates: at a time.
        length: tokens in the cache.
        graph: whether the step is a CUDA graph.
    """
    device, decoder = cache.tokens.device, model.decoder
    # candidates differ, because layers leave out equal rows (`kernels.without_copies`)
    at = torch.arange(len(cache.tokens), device=device).clamp(max=candidates - 1)[:, None]
    slots = torch.tensor([length - 1], device=device)
    slot = torch.arange(cache.layers[0][0].shape[2] if graph else length, device=device)

    def run(at: Tensor, slots: Tensor) -> Tensor:
        around = None
        if decoder.neighbours is not None and cache.known is not None:
            around = decoder.neighbours.around(cache.known, at)
        return decoder.decode_rows(cache, RowInputs(at, at, at), slots, slot <= slots[:, None], 1, around)

    return partial(Graph(run, at, slots) if graph else run, at, slots)


def layers_of(block: DecoderBlock) -> list[nn.Module]:
    """List the linear layers that a step runs, in order, in whatever form."""
    names = ("attention.layer.qkv", "attention.layer.out", "cross.layer.q", "cross.layer.out")
    return [block.get_submodule(name) for name in (*names, "mlp.layer.hidden", "mlp.layer.out")]


def _linear_layers(model: MPS2S, *, graph: bool = False) -> Callable[[], list[Tensor]]:
    """Prepare the linear layers and the output table alone: a step takes at least as long."""
    config, like = model.config, model.embedding.weight
    # one candidate and its copies, as in the step that this is compared with
    widths = config.width, round(config.width * config.mlp_ratio)
    arguments = [torch.randn(1, 1, width).to(like).repeat(CHUNK, 1, 1) for width in widths]
    layers = [layer for block in model.decoder.layers for layer in layers_of(block)]
    last = {id(layers_of(block)[-1]) for block in model.decoder.layers}

    def run(narrow: Tensor, hidden: Tensor) -> list[Tensor]:
        return [*(layer(hidden if id(layer) in last else narrow) for layer in layers), model.decoder.head(narrow)]

    return partial(Graph(run, *arguments) if graph else run, *arguments)


def step_bytes(model: MPS2S, weights: str | None, candidates: int, length: int, *, memory: bool = True) -> float:
    """Count the bytes that a step has to read, each once.

    Args:
        model: in some form.
        weights: the form.
        candidates: at a time.
        length: tokens in the cache.
        memory: whether the keys and values of the photo count.
    """
    config, item = model.config, model.embedding.weight.element_size()
    linear, table = step_weights(config)
    places = config.text_length + (config.image_size // config.patch_size) ** 2 + config.grid[0] * config.grid[1]
    states = 2 * config.decoder_layers * config.width * (memory * places + candidates * length)  # keys and values
    bits = BITS.get(weights or "", item * 8)
    return linear * bits / 8 + (states + table) * item


@torch.inference_mode()
def _against_generate(bench: Bench, model: MPS2S, name: str) -> list[Row]:
    """Measure a token of `transformers`' `generate` on a T5 of the same dimensions, in the same precision."""
    sizes, precision = bench.sizes, name.split()[0]
    made: Any = peers.optional(bench, "transformers", lambda: peers.t5(model.config, DTYPES[precision], bench.device))
    if made is None:
        return []
    rows: list[Row] = []
    logits = step(model, empty_cache(model, 1, sizes.generated + 1), 1, sizes.generated)
    sampling = Sampling(top_k=TOP_K)
    uniform = torch.full((CHUNK, 1), 0.5, dtype=torch.float64, device=bench.device)

    def own() -> Tensor:
        """Run a step and draw a token, as `generate` does."""
        return draw(guide(logits(), sampling), uniform, sampling)

    for cache in ("dynamic", "static"):
        short = peers.optional(bench, "transformers", partial(peers.generate, made, 2, cache, TOP_K), f"{cache} cache")
        if short is None:
            continue
        long = peers.generate(made, 2 + sizes.generated, cache, TOP_K)
        found = timings({"short": short, "long": long, "own": own}, max(3, bench.rounds // 2), least=LEAST)
        token = (found["long"].seconds - found["short"].seconds) / sizes.generated
        peer = found["long"]._replace(seconds=max(token, 1e-9))
        rows.append(peer.row(f"T5 of the same dimensions, generate, {cache} cache, a token, {precision}", "ms"))
        bar = bench.bar(PEER_BARS[precision]) if cache == "dynamic" else None
        rows.append(times(f"generate, {cache} cache / step and drawing, {name}", peer, found["own"], bar))
    return rows
