"""A measured step is that of the sampler."""

from nuwa_lip.bench import decoding
from nuwa_lip.bench.sizes import SMALL, random_mps2s
from nuwa_lip.sampling.loop import CHUNK


def test_the_bytes_of_a_step_are_those_of_its_layers() -> None:
    model = random_mps2s(SMALL.mps2s, "fp32")
    layers = [layer for block in model.decoder.layers for layer in decoding.layers_of(block)]
    weights = sum(p.numel() * 4 for layer in [*layers, model.embedding] for p in layer.parameters())
    memory = 32 + 16 + 64  # caption, patches, tokens
    assert decoding.step_bytes(model, None, 1, 10) == weights + 2 * 2 * 32 * (memory + 10) * 4


def test_candidates_of_a_measured_step_differ_and_fillers_do_not() -> None:
    model = random_mps2s(SMALL.mps2s, "fp32")
    for candidates in (1, 3):
        logits = decoding.step(model, decoding.empty_cache(model, candidates, 4), candidates, 2)()
        assert len(logits) == CHUNK and len(logits.flatten(1).unique(dim=0)) == candidates
