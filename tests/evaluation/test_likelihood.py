"""Bits of the truth and the caption rank: known answers, and the command end to end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.likelihood import caption_bits, other_captions, summarise_likelihood
from nuwa_lip.evaluation.store import Store
from nuwa_lip.evaluation.tokenizers import Squares
from nuwa_lip.hub import ModelParts, load_model, save_model
from nuwa_lip.models import MPS2S
from nuwa_lip.models.losses import mps2s_loss
from nuwa_lip.models.orders import raster_order, target_tokens
from nuwa_lip.sampling import Sampling
from tests.conftest import tiny_parts


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("likelihood") / "shapes"
    return build_benchmark(shape_samples(6, size=32), source="shapes", rule="rectangles-40-60", seed=0, out=out)


def test_bits_are_the_training_loss_of_the_true_tokens(benchmark: Benchmark, tiny_model: Path) -> None:
    parts, item = load_model(tiny_model), Squares(benchmark, 32)[0]
    assert parts.mps2s is not None and parts.tokenizer is not None
    found = caption_bits(parts, item, [item.caption, "a grey sky"])
    y = torch.from_numpy(item.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    m = torch.from_numpy(item.mask)[None, None]
    with torch.inference_mode():
        for bits, caption in zip(found, [item.caption, "a grey sky"], strict=True):
            known, whole = parts.dfvqgan.encode(y, m), parts.dfvqgan.encode(y)
            assert known.token_mask is not None
            merged = torch.where(known.token_mask[:, 0], whole.tokens, known.tokens)
            ids = parts.tokenizer([caption])
            logits, real = parts.mps2s(ids, y, m, merged, known.token_mask)
            order, _ = raster_order(known.token_mask)
            nats = mps2s_loss(logits, target_tokens(merged, order), real)
            assert bits == pytest.approx(float(nats) / np.log(2), rel=1e-4)
    assert found[0] != found[1]


def test_a_model_that_knows_nothing_needs_all_bits_of_a_code(benchmark: Benchmark, tiny_model: Path) -> None:
    parts, item = load_model(tiny_model), Squares(benchmark, 32)[1]
    assert parts.mps2s is not None
    parts.mps2s.embedding.weight.data.zero_()  # every code is as likely as any
    assert caption_bits(parts, item, ["a", "b"]) == pytest.approx([6, 6])  # 64 codes


def test_other_captions_differ_and_do_not_change() -> None:
    captions = ["a", "b", "a", "c", "d"]
    found = other_captions(captions, 2, 3)
    assert sorted(found) == ["b", "c", "d"] and found == other_captions(captions, 2, 3)
    with pytest.raises(InputError, match="4 other captions are asked for, but the benchmark has 3"):
        other_captions(captions, 0, 4)


def test_rank_and_wins_of_known_bits(tmp_path: Path) -> None:
    store = Store(tmp_path / "work", {})
    # true, none, two others: ahead of both, of one, of none, level with one
    rows = [[1.0, 9, 2, 3], [2, 9, 1, 3], [3, 9, 1, 2], [1, 9, 1, 4]]
    for i, row in enumerate(rows):
        store.save(i, {"bits": np.array(row, dtype=np.float64)})
    found = summarise_likelihood(store, 4, "raster")
    assert found.others == 2
    assert found.figures == pytest.approx(
        {
            "bits": 7 / 4,
            "bits_swapped": (2.5 + 2 + 1.5 + 2.5) / 4,
            "bits_without": 9,
            "swap_gain": (1.5 + 0 - 1.5 + 1.5) / 4,
            "caption_rank": 1.5 / 4,
            "caption_wins": (1 + 0.5 + 0 + 0.75) / 4,
        }
    )
    assert found.per_photo["bits"] == [1, 2, 3, 1]
    low, high = found.intervals["bits"] or (0, 0)
    assert 1 <= low < 7 / 4 < high <= 3


@pytest.mark.usefixtures("workers_here")
def test_the_command(
    benchmark: Benchmark, tiny_model: Path, tmp_path: Path, nuwa_lip: Callable[..., Any], measured_here: list[str]
) -> None:
    words = ("evaluate", "likelihood", benchmark.folder, "--model", tiny_model, "--others", 3)
    done = nuwa_lip(*words, "--json", tmp_path / "a.json", "--limit", 4)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["n"] == 4 and report["others"] == 3 and report["order"] == "raster"
    assert report["benchmark_sha256"] == benchmark.sha256 and len(report["per_photo"]["bits"]) == 4
    assert report["bits"] == pytest.approx(np.mean(report["per_photo"]["bits"]), abs=1e-5)
    assert 0 <= report["caption_rank"] <= report["caption_wins"] <= 1
    assert "bits per defective token" in done.out and benchmark.sha256 in done.out
    done = nuwa_lip(*words, "--others", 99)
    assert done.code == 2 and "99 other captions are asked for" in done.err
    measured_here.clear()
    done = nuwa_lip(*words, "--json", tmp_path / "b.json", "--limit", 4, "--workers", 2)
    assert done.code == 0 and measured_here == [1, "00003", "00000", "00002"], done.err
    again = json.loads((tmp_path / "b.json").read_text())
    for name in ("bits", "bits_swapped", "bits_without", "swap_gain", "caption_rank"):  # of float32 logits
        assert again[name] == pytest.approx(report[name], abs=1e-4)
    assert again["per_photo"]["bits"] == pytest.approx(report["per_photo"]["bits"], abs=1e-4)


def test_a_model_without_text_has_bits_but_no_rank(
    benchmark: Benchmark, tmp_path: Path, nuwa_lip: Callable[..., Any]
) -> None:
    dfvqgan, mps2s, tokenizer = tiny_parts()
    deaf = MPS2S(dataclasses.replace(mps2s.config, perspectives=("pixels", "tokens"))).eval()
    folder = tmp_path / "deaf"
    save_model(folder, dfvqgan=dfvqgan, mps2s=deaf, tokenizer=tokenizer, sampling=Sampling(order="random"))
    parts: ModelParts = load_model(folder)
    assert parts.mps2s is not None and parts.mps2s.text is None
    done = nuwa_lip("evaluate", "likelihood", benchmark.folder, "--model", folder, "--json", tmp_path / "a.json")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["caption_rank"] is None and report["bits"] > 0 and report["others"] == 0
