"""Each figure of a photo against a value that can be had in another way."""

from pathlib import Path
from typing import Any

import lpips as reference_lpips
import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.multimodal import clip_score
from transformers import CLIPModel, CLIPProcessor

from nuwa_lip.data.benchmark import BenchmarkItem
from nuwa_lip.evaluation import metrics
from nuwa_lip.evaluation.features import Lpips, Networks, to_batch
from nuwa_lip.evaluation.images import Observer
from nuwa_lip.models.perceptual import SqueezeNetFeatures, lpips


def noise(seed: int, height: int = 32, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(height: int = 32, width: int = 40) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[8:24, 10:30] = True
    return mask


def figure(name: str, result: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """One figure; without a mask of the whole photo."""
    return metrics.compare(result, truth, np.ones(truth.shape[:2], dtype=bool) if mask is None else mask)[name]


def test_psnr_of_a_known_error() -> None:
    truth = np.full((10, 10, 3), 100, dtype=np.uint8)
    mask = np.zeros((10, 10), dtype=bool)
    mask[:5] = True
    result = truth.copy()
    result[mask] += 10
    assert figure("psnr_hole", result, truth, mask) == pytest.approx(20 * np.log10(25.5))
    assert figure("psnr", result, truth) == pytest.approx(20 * np.log10(25.5) + 10 * np.log10(2))
    assert figure("psnr", truth, truth) == metrics.MAX_PSNR
    assert figure("psnr_hole", truth, truth, np.zeros_like(mask)) is None


def test_psnr_and_ssim_equal_those_of_torchmetrics() -> None:
    truth = noise(0)
    blend = (0.7 * truth + 0.3 * noise(1)).astype(np.uint8)
    a, b = (torch.from_numpy(photo).permute(2, 0, 1)[None].double() for photo in (blend, truth))
    assert figure("psnr", blend, truth) == pytest.approx(
        float(peak_signal_noise_ratio(a, b, data_range=255.0)), abs=1e-4
    )
    _, places = structural_similarity_index_measure(a, b, data_range=255.0, return_full_image=True)
    # only the places whose whole window lies within the photo
    expected = places.mean((0, 1))[5:-5, 5:-5].numpy()
    np.testing.assert_allclose(metrics.ssim_map(blend, truth), expected, atol=1e-6)
    assert figure("ssim", truth, truth) == pytest.approx(1)
    assert metrics.ssim_map(noise(2, 1, 7), noise(3, 1, 7)).shape == (1, 7)  # smaller than the window


def test_regions_look_where_they_say() -> None:
    truth, mask = noise(0, 48, 48), np.zeros((48, 48), dtype=bool)
    mask[10:38, 10:38] = True
    middle = truth.copy()
    middle[22:26, 22:26] ^= 255  # too far from the border for a window of the ring to reach
    row = metrics.compare(middle, truth, mask)
    assert row["psnr_ring"] == metrics.MAX_PSNR and row["ring"] == 0 and row["ssim_ring"] == pytest.approx(1, abs=1e-9)
    assert row["psnr_hole"] < row["psnr"] < metrics.MAX_PSNR
    assert row["ssim_hole"] < row["ssim"] < 1
    everything = metrics.compare(middle, truth, np.ones_like(mask))
    assert everything["psnr_ring"] is everything["ssim_ring"] is everything["ring"] is None
    assert everything["psnr_hole"] == everything["psnr"]
    assert everything["ssim_hole"] == everything["ssim"]


def test_ring_sees_the_border_of_the_hole_only() -> None:
    truth, mask = noise(0), box()
    middle, edge = truth.copy(), truth.copy()
    middle[12:20, 14:26] ^= 255  # everything further than four pixels from the known part
    edge[8:24, 10] = 255 - edge[8:24, 10]
    assert figure("ring", middle, truth, mask) == 0
    assert figure("ring", edge, truth, mask) > 0
    assert figure("ring", truth, truth, np.ones_like(mask)) is None


def test_ring_of_a_constant_shift_is_the_shift() -> None:
    truth, mask = np.full((32, 40, 3), 90, dtype=np.uint8), box()
    shifted = truth.copy()
    shifted[mask] += 7
    assert figure("ring", shifted, truth, mask) == 7


def test_known_change_ignores_the_hole() -> None:
    truth, mask = noise(0), box()
    result = np.where(mask[..., None], noise(1), truth)
    assert metrics.known_change(result, truth, mask) == 0
    result[0, 0, 1] = truth[0, 0, 1] ^ 3
    assert 1 <= metrics.known_change(result, truth, mask) <= 3
    assert metrics.known_change(result, truth, np.ones_like(mask)) == 0


@pytest.fixture(scope="module")
def squeezenet() -> SqueezeNetFeatures:
    """With random weights."""
    torch.manual_seed(0)
    return SqueezeNetFeatures()


def test_one_pass_gives_what_two_networks_give(squeezenet: SqueezeNetFeatures) -> None:
    truth, mask = noise(0, 48, 56), box(48, 56)
    results = [noise(1, 48, 56), np.where(mask[..., None], noise(2, 48, 56), truth)]
    rows = Networks(squeezenet).distances([truth, *results], metrics.regions_of(mask))
    hole = torch.from_numpy(mask)[None, None]
    for row, result in zip(rows, results, strict=True):
        a, b = to_batch([result]), to_batch([truth])
        assert row["lpips_squeeze"] == pytest.approx(float(lpips(squeezenet, a, b)), rel=1e-5)
        assert row["lpips_squeeze_hole"] == pytest.approx(float(lpips(squeezenet, a, b, hole)), rel=1e-5)
    everything = metrics.regions_of(np.ones_like(mask))
    row = Networks(squeezenet).distances([truth, results[0]], everything)[0]
    assert row["lpips_squeeze_ring"] is None


@pytest.mark.parametrize("size", [(64, 64), (50, 77)])
def test_lpips_is_that_of_the_lpips_package(squeezenet: SqueezeNetFeatures, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = reference_lpips.LPIPS(pretrained=False, pnet_rand=True, net="vgg", verbose=False)
    heads = [line.model[1].weight.data.abs_() for line in theirs.lins]
    state = {}
    for i in range(1, 6):  # their layers keep the numbers that torchvision gave them
        for name, value in getattr(theirs.net, f"slice{i}").state_dict().items():
            state[f"features.{name}"] = value
    ours = Networks(squeezenet, lpips=Lpips(state, [head.flatten() for head in heads]))
    truth, result = noise(0, *size), noise(1, *size)
    found = ours.distances([truth, result], {"": None})[0]["lpips"]
    assert found > 0.01
    with torch.inference_mode():
        assert found == pytest.approx(float(theirs(to_batch([result]), to_batch([truth]))), abs=1e-4)


class Features(CLIPModel):
    """Gives the features themselves, which torchmetrics expects and transformers 5 wraps."""

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get_image_features(*args, **kwargs)
        return getattr(found, "pooler_output", found)

    def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get_text_features(*args, **kwargs)
        return getattr(found, "pooler_output", found)


@torch.inference_mode()
def test_clip_score_is_that_of_torchmetrics(squeezenet: SqueezeNetFeatures, clip_folder: Path) -> None:
    theirs = Features.from_pretrained(clip_folder).eval(), CLIPProcessor.from_pretrained(clip_folder)
    observer = Observer({}, Networks(squeezenet, clip=clip_folder), ("clip",))
    column = observer.columns.index("clip_score")
    results = {"noise": noise(1), "blue": np.full((32, 40, 3), (0, 0, 255), dtype=np.uint8)}
    for caption, above in (("a bear", [True, False]), ("a cat", [True, True]), ("fog", [False, False])):
        item = BenchmarkItem(index=0, name="00000", image=noise(0), mask=box(), caption=caption)
        kept = observer.observe(item, results)
        found = [kept[f"{name}/figures"][column] for name in results]
        photos = [torch.from_numpy(photo).permute(2, 0, 1) for photo in results.values()]
        assert found == pytest.approx([float(clip_score(photo, caption, lambda: theirs)) for photo in photos], abs=1e-4)
        assert [score > 1 for score in found] == above  # both kinds: a cosine below 0 counts as 0


def test_detail_is_one_for_the_photo_itself_and_tells_blur_noise_and_borders() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(96, 160, (40, 50, 3), dtype=np.uint8)
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:45] = True
    blurred, noisy, bright = truth.copy(), truth.copy(), truth.copy()
    blurred[mask] = truth[mask].mean(0).round()
    noisy[mask] = rng.integers(0, 256, (int(mask.sum()), 3))
    bright[mask] = truth[mask] + 90
    assert metrics.detail(truth, truth, mask) == {"sharpness": 1, "seam": 1}
    assert metrics.detail(blurred, truth, mask)["sharpness"] == 0
    assert metrics.detail(noisy, truth, mask)["sharpness"] == pytest.approx(4, rel=0.2)  # four times the range
    shifted = metrics.detail(bright, truth, mask)
    assert shifted["sharpness"] == pytest.approx(1) and shifted["seam"] == pytest.approx(90 / 21.3, rel=0.1)


def test_detail_needs_a_border_and_something_true_to_compare_with() -> None:
    flat, photo = np.full((9, 9, 3), 7, np.uint8), np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    everything, pixel = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    pixel[4, 4] = True
    assert metrics.detail(photo, flat, pixel) == {"sharpness": None, "seam": None}
    assert metrics.detail(photo, photo, everything) == {"sharpness": 1, "seam": None}
    assert metrics.detail(photo, photo, pixel) == {"sharpness": None, "seam": 1}
