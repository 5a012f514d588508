"""Weights in few bits: each format against plain weights of the same values, its rows alone, its loss."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip import InpaintPipeline
from nuwa_lip.errors import InputError
from nuwa_lip.fast.quantise import (
    LAYERS,
    Inputs,
    PackedLinear,
    QuantisedLinear,
    has_vnni,
    is_quantised,
    quality_loss,
    quantise,
    to_int4,
    to_int8,
)
from nuwa_lip.models import MPS2S
from nuwa_lip.sampling import sample
from tests.small_models import make_model, seeded

VNNI = pytest.mark.skipif(not has_vnni(), reason="needs products of 8-bit numbers (VNNI)")
ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
MARKS = {"int8": VNNI, "packed": ONEDNN}
FORMATS = [pytest.param(name, marks=MARKS.get(name, ())) for name in LAYERS]
N, K = 96, 256


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def held(name: str, weight: Tensor) -> Tensor:
    """The weights that a format stands for."""
    if name == "packed":
        return weight.float()
    if name != "int4":
        whole, scale = to_int8(weight)
        return whole * scale[:, None]
    whole, scale, offset = to_int4(weight)
    groups = (whole.unflatten(1, (scale.shape[1], -1)) - 8) * scale[..., None] + offset[..., None]
    return groups.flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_equals_a_plain_one_of_the_weights_it_holds(name: str, dtype: torch.dtype) -> None:
    weight, x = random(N, K).to(dtype), random(2, 4, K, seed=1).to(dtype)
    if name == "packed" and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(RuntimeError, match="bf16"):  # which `quantise` tells in one line
            LAYERS[name](weight)
        return
    y = LAYERS[name](weight)(x)
    expected = F.linear(x.float(), held(name, weight))
    assert y.dtype == dtype and y.shape == (2, 4, N)
    # activations in 8 bits: each is off by up to 1/254 of the row's largest
    error = (y.float() - expected).abs().max() / expected.abs().max()
    assert error < (0.02 if name == "int8" or dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize(("name", "error"), [("int8", 1 / 254), ("int4", 1 / 30)])
def test_weights_are_held_as_closely_as_their_bits_allow(name: str, error: float) -> None:
    weight = random(N, K)
    spread = weight.amax(1) - weight.amin(1) if name == "int4" else weight.abs().amax(1)
    assert ((held(name, weight) - weight).abs().amax(1) <= spread * error * 1.01).all()


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    layer, x = LAYERS[name](random(N, K)), random(4, K, seed=1)
    changed = x.clone()
    changed[1:] *= 100
    assert torch.equal(layer(x)[0], layer(changed)[0])
    if name != "packed":  # the sum of a product of floats depends on the number of rows
        assert torch.equal(layer(x)[:1], layer(x[:1]))
        assert torch.equal(layer(x[:1].expand(4, -1)), layer(x[:1]).expand(4, -1))
    assert torch.isfinite(layer(torch.zeros(4, K))).all()


def wide() -> MPS2S:
    return make_model(scale=1, width=64)


def make_inputs(model: MPS2S) -> Inputs:
    generator, side = seeded(), model.config.image_size
    token_mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    token_mask[0, :, 2:5, 3:6] = token_mask[1, :, :2] = True
    image = torch.rand(2, 3, side, side, generator=generator) * 2 - 1
    mask = token_mask.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    tokens = torch.randint(model.config.codebook_size, (2, 8, 8), generator=generator)
    return torch.randint(3, 512, (2, 6), generator=generator), image, mask, tokens, token_mask


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_in_few_bits_predicts_nearly_the_same(name: str) -> None:
    exact, inputs = wide(), make_inputs(wide())
    few = copy.deepcopy(exact)
    quantise(few, name)
    assert is_quantised(few) and not is_quantised(exact)
    loss = quality_loss(exact, few, [inputs])
    assert loss.exact_nats == pytest.approx(math.log(64), rel=0.2)
    assert abs(loss.divergence) < {"int4": 0.05, "packed": 1e-9}.get(name, 0.005)
    assert name == "packed" or loss.divergence > 0
    assert abs(loss.nats - loss.exact_nats) < 0.1
    assert loss.agreement > 0.5


@ONEDNN
@pytest.mark.parametrize("name", FORMATS)
def test_every_form_packs_the_output_table(name: str) -> None:
    model = wide()
    rows = random(5, model.config.width)
    expected = model.decoder.head(rows)
    quantise(model, name)
    assert isinstance(model.decoder.output, PackedLinear)
    torch.testing.assert_close(model.decoder.head(rows), expected, atol=1e-5, rtol=1e-5)


def test_the_loss_of_bf16_is_measured_too() -> None:
    exact, inputs = wide(), make_inputs(wide())
    loss = quality_loss(exact, copy.deepcopy(exact).bfloat16(), [inputs])
    assert 0 < loss.divergence < 0.005 and loss.agreement > 0.5
    assert 0 < abs(loss.nats - loss.exact_nats) < 0.1


@pytest.mark.parametrize("name", FORMATS)
def test_candidates_in_few_bits_know_nothing_of_their_number(name: str) -> None:
    model = wide()
    quantise(model, name)
    memory = model.encode(*make_inputs(model))[0]
    four = sample(model, memory, num_candidates=4, generator=seeded(3))
    one = sample(model, memory, generator=seeded(3))
    assert torch.equal(four[0][:1], one[0]) and torch.equal(four[1][:1], one[1])
    slow = sample(model, memory, generator=seeded(3), use_cache=False)
    assert torch.equal(one[0], slow[0])


def test_nothing_is_lost_between_a_model_and_itself() -> None:
    model = wide()
    loss = quality_loss(model, model, [make_inputs(model)])
    assert (loss.divergence, loss.agreement, loss.nats) == (0, 1, loss.exact_nats)
    ids, image, mask, tokens, token_mask = make_inputs(model)
    with pytest.raises(InputError, match="0 defective tokens"):
        quality_loss(model, model, [(ids, image, mask, tokens, torch.zeros_like(token_mask))])


def test_what_cannot_be_quantised_is_named() -> None:
    with pytest.raises(InputError, match="'int2'.*packed, int8, int8-weights, int4"):
        quantise(wide(), "int2")
    with pytest.raises(InputError, match="32.*48"):
        to_int4(torch.zeros(4, 48))
    with pytest.raises(InputError, match="on meta"):
        quantise(wide().to("meta"), "int4")
    few = wide()
    quantise(few, "int8-weights")
    with pytest.raises(InputError, match="another form already"):
        quantise(few, "int4")


def test_a_kernel_that_is_missing_is_named_and_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_operator(weight: Tensor) -> QuantisedLinear:
        return torch.ops.aten._no_such_operator(weight)

    monkeypatch.setitem(LAYERS, "int4", no_operator)
    model = wide()
    with pytest.raises(InputError, match="'int4'.*no_such_operator"):
        quantise(model, "int4")
    monkeypatch.undo()
    with pytest.raises(InputError, match="'int4'.*torch.float64"):
        quantise(model.double(), "int4")
    assert not is_quantised(model)


def test_a_pipeline_in_few_bits_is_neither_saved_nor_moved(tiny_model: Path, tmp_path: Path) -> None:
    pipe = InpaintPipeline.from_pretrained(tiny_model, weights="int8-weights")
    assert is_quantised(pipe.mps2s)
    with pytest.raises(InputError, match="cannot be saved"):
        pipe.save_pretrained(tmp_path / "few")
    for where in (torch.bfloat16, "meta"):
        with pytest.raises(InputError, match="stay as they are"):
            pipe.to(where)
    for here in ("cpu", torch.device("cpu"), torch.float32, pipe.dfvqgan.last_layer):
        assert pipe.to(here) is pipe


@pytest.mark.parametrize(("cap", "held_back"), [("AVX2", True), ("avx512_core", True), ("AVX512_CORE_VNNI", False)])
def test_eight_bits_are_refused_where_the_environment_takes_their_products_away(
    cap: str, held_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert has_vnni() is not held_back
    if held_back:
        with pytest.raises(InputError, match="VNNI"):
            quantise(make_model(), "int8")
