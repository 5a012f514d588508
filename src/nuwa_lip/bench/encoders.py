"""DF-VQGAN both ways and the encoders of the three perspectives, as shares of the machine's matrix rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import torch

from nuwa_lip.bench import official, peers
from nuwa_lip.bench.measure import CPU, Row, Timing, call_apart, gflop, times, timings
from nuwa_lip.bench.sizes import DTYPES, Bench, photo, picture, random_dfvqgan, random_mps2s, sizes_of

RECREATED = "official masked encoding, re-created"
"""In float32, as the official code runs."""
OFFICIAL_BARS = {"fp32": 4.0, "bf16": 10.0}
PEER_BARS = {"fp32": 1.0}
MASK_BARS = {"fp32": 1.1, "bf16": 1.2}
"""Largest ratio of the times of defect-free and plain encoding."""
MEMORY_BAR = 1.2
"""Largest ratio of their peaks of memory."""
KINDS = ("plain", "defect-free")
OWN = ("defect-free encoding", "decoding with skips")
LIGHT = ("light defect-free encoding", "light decoding with skips")
PEER = ("VQModel encoding", "VQModel decoding")


@torch.inference_mode()
def measure_tokenizer(bench: Bench) -> list[Row]:
    """Measure encoding and decoding a photo with a hole, against the official way and diffusers' VQModel."""
    rows: list[Row] = []
    kinds = bench.sizes.dfvqgan, bench.sizes.light_dfvqgan
    plain = random_dfvqgan(bench.sizes.dfvqgan, "fp32", bench.device)
    image, mask = (x.to(bench.device) for x in picture(plain.config.resolution))
    for precision in bench.precisions:
        model, light = (random_dfvqgan(kind, precision, bench.device) for kind in kinds)
        encoding, lightly = model.encode(image, mask), light.encode(image, mask)
        cases: dict[str, Callable[[], object]] = {
            "defect-free encoding": partial(model.encode, image, mask),
            "plain encoding": partial(model.encode, image),
            "decoding with skips": partial(model.decode, encoding.tokens, encoding.skips),
            "light defect-free encoding": partial(light.encode, image, mask),
            "light decoding with skips": partial(light.decode, lightly.tokens, lightly.skips),
            RECREATED: partial(official.masked_encode, plain, image, mask),
        }
        peer = peers.optional(bench, "diffusers", partial(peers.vqmodel, plain.config, DTYPES[precision]))
        if peer is not None:
            peer = peer.to(bench.device)
            pixels = image.to(DTYPES[precision])
            cases["VQModel encoding"] = partial(peer.encode, pixels)
            cases["VQModel decoding"] = partial(peer.decode, peer.encode(pixels).latents)
            cases["VQModel encoding to tokens"] = peers.vqmodel_tokens(peer, pixels)
        found = timings(cases, bench.rounds)
        official_time = found.pop(RECREATED)
        if precision == "fp32":
            rows.append(official_time.row(f"{RECREATED}, fp32"))
        rows += [timing.row(f"{name}, {precision}") for name, timing in found.items()]
        for name in ("plain encoding", "decoding with skips"):
            rows.append(_share(bench, f"{name}, {precision}", cases[name], found[name], precision))
        free, whole = found["defect-free encoding"], found["plain encoding"]
        bar = bench.bar(MASK_BARS[precision])
        rows.append(times(f"defect-free / plain, time, {precision}", free, whole, bar, at_least=False))
        if peer is not None:
            what, tokens = f"plain / diffusers VQModel, time, {precision}", found["VQModel encoding to tokens"]
            rows.append(times(what, whole, tokens, bench.bar(1.0), at_least=False))
        what = f"{RECREATED}, fp32 / defect-free, {precision}"
        rows.append(times(what, official_time, free, bench.bar(OFFICIAL_BARS[precision])))
        what = f"ours / light, encoding with the mask and decoding, {precision}"
        rows.append(times(what, _together(found, OWN), _together(found, LIGHT)))
        if peer is not None:
            theirs, own = (per_gflop(cases, found, names, bench.device) for names in (PEER, OWN))
            what = f"VQModel / ours, encoding with the mask and decoding, per GFLOP, {precision}"
            rows.append(times(what, theirs, own, bench.bar(PEER_BARS.get(precision))))
        rows += [] if bench.gpu else _encoding_memory(bench.sizes.small, precision)
    return rows


def _encoding_memory(small: bool, precision: str) -> list[Row]:
    """Measure the peak of one encoding with a hole and of one without, each in a process of its own."""
    peaks = {kind: call_apart(encode_once, small, precision, kind).peak_mb for kind in KINDS}
    ratio, bar = peaks["defect-free"] / peaks["plain"], None if small else MEMORY_BAR
    rows = [Row(f"{kind} encoding, peak, {precision}", peak, "MB") for kind, peak in peaks.items()]
    return [*rows, Row(f"defect-free / plain, memory, {precision}", ratio, "x", bar=bar)]


def encode_once(small: bool, precision: str, kind: str) -> None:
    """Encode a photo, in the process whose memory is measured.

    Args:
        small: take the tiny model.
        precision: fp32 or bf16.
        kind: one of `KINDS`.
    """
    model = random_dfvqgan(sizes_of(small).dfvqgan, precision)
    image, mask = picture(model.config.resolution)
    with torch.inference_mode():
        model.encode(image, mask if kind == "defect-free" else None)


def _together(found: Mapping[str, Timing], names: tuple[str, ...]) -> Timing:
    """Add the times of several cases."""
    return Timing(sum(found[name].seconds for name in names), max(found[name].noise for name in names))


def per_gflop(
    cases: Mapping[str, Callable[[], object]],
    found: Mapping[str, Timing],
    names: tuple[str, ...],
    device: torch.device = CPU,
) -> Timing:
    """Divide `together` by the cases' operations, in billions: VQModel's decoder has two thirds more than ours.

    Args:
        cases: what was timed.
        found: its times.
        names: the cases to add up.
        device: where they run.
    """
    both = _together(found, names)
    return both._replace(seconds=both.seconds / sum(gflop(cases[name], device) for name in names))


@torch.inference_mode()
def measure_encoders(bench: Bench) -> list[Row]:
    """Measure encoding the caption, pixels and tokens of a photo, against T5's encoder on as many positions."""
    rows: list[Row] = []
    config = bench.sizes.mps2s
    for precision in bench.precisions:
        model = random_mps2s(config, precision, bench.device)
        inputs = photo(config, device=bench.device)
        cases: dict[str, Callable[[], object]] = {"own": partial(model.encode, *inputs)}
        # its decoder is of no interest here, and needs memory
        short = dataclasses.replace(config, decoder_layers=1)
        peer = peers.optional(bench, "transformers", partial(peers.t5, short, DTYPES[precision], bench.device))
        if peer is not None:
            states = torch.randn(peer.memory_shape).to(bench.device, DTYPES[precision])
            cases["T5"] = partial(peer.encoder, inputs_embeds=states)
        found = timings(cases, bench.rounds)
        rows.append(found["own"].row(f"three perspectives, {precision}"))
        rows.append(_share(bench, f"three perspectives, {precision}", cases["own"], found["own"], precision))
        if peer is not None:
            rows.append(found["T5"].row(f"T5's encoder, as many positions, {precision}"))
            rows.append(times(f"T5's encoder / three perspectives, {precision}", found["T5"], found["own"]))
        del model, peer, cases
    return rows


def _share(bench: Bench, name: str, run: Callable[[], object], timing: Timing, precision: str) -> Row:
    """State a time as a share of the rate of a square matrix product, by the operations that PyTorch counts."""
    rate = gflop(run, bench.device) / timing.seconds
    what = f"{name}: share of the matrix rate"
    return Row(what, rate / bench.limits.rate(precision), "x", noise=timing.noise)
