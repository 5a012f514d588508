"""Ways of encoding a photo with a hole: what each sees, how they are judged, and one command that compares them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nuwa_lip.data.benchmark import BenchmarkItem
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.encodings import ENCODINGS, Encoders, fill, probe
from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, DFVQGANConfig
from tests.demo_photos import demo_benchmark


def make() -> DFVQGAN:
    torch.manual_seed(0)
    config = dataclasses.replace(DFVQGANConfig.preset("tiny"), symmetrical_connections=False)
    return DFVQGAN(config).eval().requires_grad_(False)


def photo() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 9:20, 10:22] = True
    return torch.rand(1, 3, 32, 32) * 2 - 1, mask


@pytest.mark.parametrize("name", ENCODINGS)
def test_no_way_sees_the_hole(name: str) -> None:
    encoders = Encoders(make(), ENCODINGS)
    image, mask = photo()
    tokens = [encoders.tokens(name, image.masked_fill(mask, value), mask) for value in (0.0, 9.0, float("nan"))]
    assert torch.equal(tokens[0], tokens[1]) and torch.equal(tokens[0], tokens[2])


def test_the_ways_differ_and_ours_is_the_models() -> None:
    model, (image, mask) = make(), photo()
    encoders = Encoders(model, ENCODINGS)
    found = {name: encoders.tokens(name, image, mask) for name in ENCODINGS}
    assert torch.equal(found["defect-free"], model.encode(image, mask).tokens)
    assert len({tuple(tokens.flatten().tolist()) for tokens in found.values()}) > 2


def test_a_fill_continues_what_is_known() -> None:
    image, mask = torch.full((1, 3, 32, 32), 0.5), photo()[1]
    torch.testing.assert_close(fill(image.masked_fill(mask, torch.nan), mask), image, atol=0.02, rtol=0)
    everything = torch.ones_like(mask)
    assert torch.equal(fill(image.masked_fill(everything, torch.nan), everything), torch.zeros_like(image))


def test_without_a_hole_all_agree() -> None:
    image, mask = photo()
    pixels = ((image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    item = BenchmarkItem(index=0, name="00000", image=pixels, mask=mask[0, 0].numpy(), caption="")
    whole = dataclasses.replace(item, mask=item.mask & False)
    found = probe(Encoders(make(), ENCODINGS), whole)
    assert all(found[f"{name}.agreement"] == 1 for name in ENCODINGS) and found["lost"] == 0
    holed = probe(Encoders(make(), ENCODINGS), item)
    assert all(0 <= holed[f"{name}.agreement"][0] <= 1 and holed[f"{name}.ring"][0] > 0 for name in ENCODINGS)
    # cells of 4 pixels: rows 8 to 20 and columns 8 to 24 are lost, less the hole itself
    assert holed["lost"] * 1024 == pytest.approx(12 * 16 - 11 * 12)


def test_one_command_compares_them(tmp_path: Path, nuwa_lip: Callable[..., Any]) -> None:
    demo_benchmark(tmp_path / "bench", dict.fromkeys(("gull", "bear", "fog")))
    save_model(tmp_path / "model", dfvqgan=make())
    words = ("evaluate", "tokenizer", tmp_path / "bench", "--model", tmp_path / "model")
    done = nuwa_lip(*words, "--encodings", "zero", "filled", "--json", tmp_path / "out.json")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out.json").read_text())
    assert set(report["encodings"]) == {"zero", "filled"} and report["n"] == 3
    for one in report["encodings"].values():
        low, high = one["intervals_95"]["agreement"]
        assert 0 <= low <= one["agreement"] <= high <= 1
    assert done.out.count("of the known codes") == 2
    with pytest.raises(InputError, match="there are: defect-free"):
        Encoders.load(str(tmp_path / "model"), ["telea"])
