"""The networks behind the figures: the fixed random one, and those of FID, KID, LPIPS, CLIP and FED, here untrained."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch_fidelity import feature_extractor_inceptionv3

from nuwa_lip.assets import asset
from nuwa_lip.commands import evaluate
from nuwa_lip.data.benchmark import build_benchmark
from nuwa_lip.data.shards import Sample
from nuwa_lip.evaluation.features import Networks, RandomFeatures, load_inception
from nuwa_lip.evaluation.job import Weights
from nuwa_lip.models.perceptual import VGG16Features
from nuwa_lip.models.projected import EfficientNetLite0
from tests.small_runs import efficientnet_state

EXPECTED_WEIGHT = 0.018949398770928383
EXPECTED_MEANS = [0.0315859, 0.0350314, 0.0335233, 0.0372816, 0.0431047]


def test_the_random_network_never_changes() -> None:
    network = RandomFeatures()
    maps = network(torch.linspace(-1, 1, 3 * 128 * 128).view(1, 3, 128, 128))
    assert [tuple(level.shape[1:]) for level in maps] == [(32, 64, 64), (64, 32, 32)] + [
        (128, n, n) for n in (16, 8, 4)
    ]
    assert float(network.kernels[1][0, 0, 0, 0]) == pytest.approx(EXPECTED_WEIGHT, rel=1e-6)
    assert [float(level.mean()) for level in maps] == pytest.approx(EXPECTED_MEANS, rel=1e-4)


def test_the_random_network_sees_structure_not_brightness() -> None:
    network, photo = RandomFeatures(), torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) - 0.5
    inner = (..., slice(1, -1), slice(1, -1))  # the border meets the padding's zeros
    first, brighter = network(photo)[0][inner], network(photo + 0.3)[0][inner]
    torch.testing.assert_close(first, brighter, atol=1e-5, rtol=0)
    blurred = torch.nn.functional.avg_pool2d(photo, 3, stride=1, padding=1)
    assert network(blurred)[0].mean() < 0.6 * first.mean()


def test_vectors_of_the_hole_do_not_see_the_rest() -> None:
    networks = Weights().networks([])
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (227, 227, 3), dtype=np.uint8)
    mask = np.zeros((227, 227), dtype=bool)
    mask[150:] = True
    other = photo.copy()
    other[:20] = 0  # further from the hole than a feature sees
    found = networks.vectors([photo, other], mask)
    assert set(found) == {"squeezenet", "squeezenet_hole", "random", "random_hole"}
    for name in ("squeezenet", "random"):
        whole, hole = (np.abs(value[0] - value[1]).max() for value in (found[name], found[f"{name}_hole"]))
        assert whole > 1e-3 and hole < whole / 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inception, VGG-16 and EfficientNet-Lite0 with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(efficientnet_state(), folder / "lite.safetensors")
    torch.manual_seed(0)
    save_file(VGG16Features().state_dict(), folder / "vgg.safetensors")
    kind = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(kind, "load_state_dict", lambda *_: None)
        state = kind("inception-v3-compat", ["2048"]).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "inception.safetensors")
    return folder


def test_inception_is_that_of_torch_fidelity(weights: Path) -> None:
    state = load_file(weights / "inception.safetensors")
    network = load_inception(state)
    torch.testing.assert_close(dict(network.state_dict()), state)
    photos = [np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8) for i in range(2)]
    mask = np.ones((40, 60), dtype=bool)
    found = Networks(Weights().networks([]).squeezenet, inception=network).vectors(photos, mask)["inception"]
    alone = network(torch.from_numpy(photos[1]).permute(2, 0, 1)[None])[0]
    assert found.shape == (2, 2048)
    np.testing.assert_allclose(found[1], alone[0], atol=1e-4)


def test_features_of_fed_are_means_over_the_photo_and_over_its_hole(weights: Path) -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(2)]
    mask = np.zeros((224, 224), dtype=bool)
    mask[:96, 64:] = True  # whole cells of the map
    found = Weights(lite=weights / "lite.safetensors").networks(["fed"]).vectors(photos, mask)
    pixels = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 127.5 - 1
    last = EfficientNetLite0(efficientnet_state())(pixels)[-1]
    assert found["efficientnet"].shape == found["efficientnet_hole"].shape == (2, 112)
    np.testing.assert_allclose(found["efficientnet"], last.mean((2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["efficientnet_hole"], last[:, :, :6, 4:].mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_figures_that_are_asked_for(
    weights: Path, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [Image.open(asset(f"demo/photos/{name}.jpg")).convert("RGB").resize((64, 48)) for name in ("gull", "bear")]
    samples = [Sample(key=str(i), image=photo, captions=["a bear"], meta={}) for i, photo in enumerate(photos)]
    bench = build_benchmark(samples, source="demo", rule="center-40-60", seed=0, out=tmp_path / "bench")
    options: dict[str, Any] = {
        "metrics": "kid, lpips,clip,fed",
        "lite": weights / "lite.safetensors",
        "inception": weights / "inception.safetensors",
        "vgg": weights / "vgg.safetensors",
        "clip": str(clip_folder),
    }
    out = tmp_path / "figures.json"
    evaluate.images(bench.folder, results=bench.folder / "images", baseline="telea", json=out, **options)
    report = json.loads(out.read_text())
    telea = report["compared"]["opencv-telea"]
    assert report["lpips"] == report["lpips_hole"] == 0 < telea["lpips_ring"] <= telea["lpips_hole"]
    assert telea["kid"] > report["kid"] and math.isfinite(report["kid"])
    assert 0 <= report["clip_score"] <= 100
    assert report["fed"] == pytest.approx(0, abs=1e-6) and telea["fed_hole"] > telea["fed"] > 1e-3
    assert "fid" not in report and {"inception", "clip", "efficientnet"} < report["resize"].keys()
    shown = capsys.readouterr().out
    assert "FED, hole" in shown and "KID" in shown and "CLIP score" in shown and "LPIPS (VGG), hole" in shown
