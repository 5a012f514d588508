"""What was painted against what was asked for: known answers, and the command end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.cli import main
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem, build_benchmark
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.data.shards import Sample, write_shards
from nuwa_lip.evaluation.captions import (
    COLOURS,
    RidgeClassifier,
    ask_for_colours,
    asked_classes,
    colour_shares,
    recoloured,
    summarise_classes,
    summarise_colours,
)
from nuwa_lip.evaluation.store import Store
from tests.conftest import Done

PURE = {
    "red": (220, 20, 20),
    "yellow": (240, 220, 30),
    "white": (250, 250, 245),
    "purple": (130, 40, 190),
    "pink": (250, 150, 190),
    "blue": (30, 60, 220),
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("captions") / "shapes"
    return build_benchmark(shape_samples(8, size=32), source="shapes", rule="block-40-60", seed=0, out=out)


@pytest.mark.parametrize("name", COLOURS)
def test_pure_colours_have_their_names(name: str) -> None:
    shares = colour_shares(np.array([PURE[name]] * 3 + [(128, 128, 128)], np.uint8))
    assert shares[COLOURS.index(name)] == 0.75 and shares.sum() == 0.75


def test_a_caption_gets_another_colour_in_place_of_its_one() -> None:
    assert recoloured("a gray t-shirt", "red") == "a red t-shirt"
    assert recoloured("a shirt", "red") is None and recoloured("a red and white shirt", "blue") is None
    assert recoloured("a hundred whitecaps", "red") is None


@pytest.mark.parametrize(("obedient", "right"), [(True, 1.0), (False, 1 / 6)])
def test_who_obeys_is_right_and_who_does_not_is_by_chance(
    obedient: bool, right: float, benchmark: Benchmark, tmp_path: Path
) -> None:
    def paint(item: BenchmarkItem, caption: str) -> np.ndarray:
        colour = next(name for name in COLOURS if name in caption) if obedient else "blue"
        return np.where(item.mask[..., None], np.uint8(PURE[colour]), item.image)

    store = Store(tmp_path / "store", {})
    ask_for_colours(paint, benchmark, range(8), store)
    found = summarise_colours(store, 8)
    named = sum(recoloured(caption, "red") is not None for caption in benchmark.captions)
    assert found.n == named > 0 and found.share == pytest.approx(right)
    assert set(found.each) == set(COLOURS)


def test_classes_are_asked_by_chance_and_counted(benchmark: Benchmark) -> None:
    asked = asked_classes(benchmark, 8, seed=0)
    assert asked == asked_classes(benchmark, 8, seed=0) and set(asked) <= set(benchmark.captions)
    found = summarise_classes(["a", "b", "b", "a"], ["a", "a", "b", "b"])
    assert found.share == 0.5 and found.each == {"a": 0.5, "b": 0.5}


def test_a_classifier_tells_what_can_be_told() -> None:
    rng = np.random.default_rng(0)
    labels = ["x", "y", "z"] * 40
    features = rng.normal(size=(120, 10)) + 3 * np.array([[label == name for name in "xyzxyzxyzx"] for label in labels])
    classifier = RidgeClassifier(features[:60], labels[:60])
    assert np.mean([a == b for a, b in zip(classifier(features[60:]), labels[60:], strict=True)]) > 0.95


def test_the_command_writes_figures_and_a_sheet(benchmark: Benchmark, tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "captions", str(benchmark.folder), "--model", str(tiny_model), "--limit", "3"]
    main([*arguments, "--json", str(tmp_path / "out.json"), "--sheet", str(tmp_path / "sheet.png")])
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["ask"] == "colours" and 0 <= content["right"] <= 1 and set(content["each"]) == set(COLOURS)
    assert (tmp_path / "sheet.png").is_file()
    with pytest.raises(SystemExit) as refused:
        main([*arguments, "--ask", "classes"])
    assert refused.value.code == 2


def grounds(captions: list[str], seed: int) -> list[Sample]:
    """Photos of noise around the colour that their captions name, "a red ground" or "a blue ground"."""
    rng, photos = np.random.default_rng(seed), []
    for i, caption in enumerate(captions):
        pixels = np.add(PURE[caption.split()[1]], rng.integers(-30, 30, (32, 32, 3))).clip(0, 255).astype(np.uint8)
        photos.append(Sample(key=f"{seed}-{i}", image=Image.fromarray(pixels), captions=[caption]))
    return photos


def test_the_command_asks_for_classes(tiny_model: Path, nuwa_lip: Callable[..., Done], tmp_path: Path) -> None:
    both = ["a red ground", "a blue ground"]
    build_benchmark(grounds(both * 2, 0), source="grounds", rule="block-40-60", seed=0, out=tmp_path / "bench")
    write_shards(grounds(both * 4, 1), tmp_path / "both")
    write_shards(grounds(both[:1] * 4, 2), tmp_path / "red")
    words = ["evaluate", "captions", tmp_path / "bench", "--model", tiny_model, "--ask", "classes", "--photos"]
    done = nuwa_lip(*words, tmp_path / "both", "--json", tmp_path / "out.json")
    assert done.code == 0 and "1.000 of the true holes rightly (fitted to 8 photos)" in done.out, done.err
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["ask"] == "classes" and content["n"] == 4 and set(content["each"]) <= set(both)
    assert 0 <= content["right"] <= 1
    refused = nuwa_lip(*words, tmp_path / "red")
    assert refused.code == 2 and "'a blue ground'" in refused.err
