"""Figures that others report: the error of the known part, exact for what is pasted, and CLIP of the hole's crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.data.benchmark import BenchmarkItem
from nuwa_lip.evaluation.images import Observer, means_of
from nuwa_lip.evaluation.job import Weights
from nuwa_lip.sampling.clip import clip_scores


def item() -> BenchmarkItem:
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:20, 10:24] = True
    return BenchmarkItem(
        index=0, name="00000", image=rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), mask=mask, caption="a bear"
    )


def figures(extras: tuple[str, ...], weights: Weights, results: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    methods: dict[str, Repaint] = {}
    found = Observer(methods, weights.networks(extras), extras).observe(item(), results)
    columns = (*means_of(extras), "known_max_change")
    return {name: dict(zip(columns, found[f"{name}/figures"], strict=True)) for name in results}


def test_what_is_pasted_is_exact_and_what_is_not_is_measured() -> None:
    photo, mask = item().image, item().mask
    pasted, shifted = photo.copy(), photo.copy()
    pasted[mask] = 7
    shifted[...] = photo // 2
    found = figures(("known",), Weights(), {"pasted": pasted, "shifted": shifted})
    assert found["pasted"]["mse_known"] == 0 and found["pasted"]["lpips_squeeze_known"] == 0
    assert found["pasted"]["lpips_squeeze"] > 0
    expected = np.square(shifted[~mask] / 255 - photo[~mask] / 255).mean()
    assert found["shifted"]["mse_known"] == pytest.approx(expected) and found["shifted"]["lpips_squeeze_known"] > 0


def test_the_holes_crop_is_judged_alone(clip_folder: Path) -> None:
    photo, mask = item().image, item().mask
    result = photo.copy()
    result[mask] = 200
    found = figures(("clip-hole",), Weights(clip=str(clip_folder)), {"result": result})["result"]
    crop = Image.fromarray(result[8:20, 10:24])
    (score,) = clip_scores([crop], "a bear", str(clip_folder))
    assert found["clip_score_hole"] == pytest.approx(100 * max(0.0, score))
    assert "clip_score" not in found
