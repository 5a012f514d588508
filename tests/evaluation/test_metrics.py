"""Each figure against a value that can be had in another way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuwa_lip.evaluation import metrics


def noise(seed: int, height: int = 32, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(height: int = 32, width: int = 40) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[8:24, 10:30] = True
    return mask


def test_psnr_of_a_known_error() -> None:
    truth = np.full((10, 10, 3), 100, dtype=np.uint8)
    mask = np.zeros((10, 10), dtype=bool)
    mask[:5] = True
    result = truth.copy()
    result[mask] += 10
    assert metrics.psnr(result, truth, mask) == pytest.approx(20 * np.log10(25.5))
    assert metrics.psnr(result, truth) == pytest.approx(20 * np.log10(25.5) + 10 * np.log10(2))
    assert metrics.psnr(truth, truth) == metrics.MAX_PSNR


def test_ssim_equals_the_reference_implementation() -> None:
    truth = noise(0)
    blend = (0.7 * truth + 0.3 * noise(1)).astype(np.uint8)
    # torchmetrics 1.9 gives this for the places where the whole window lies within the photo
    assert metrics.ssim(blend, truth) == pytest.approx(0.8838531069266018, abs=1e-6)
    assert metrics.ssim(truth, truth) == pytest.approx(1)
    assert metrics.ssim(noise(2, 1, 7), noise(3, 1, 7)) <= 1  # smaller than the window


def test_ring_sees_the_border_of_the_hole_only() -> None:
    truth, mask = noise(0), box()
    middle, edge = truth.copy(), truth.copy()
    middle[12:20, 14:26] ^= 255  # everything further than four pixels from the known part
    edge[8:24, 10] = 255 - edge[8:24, 10]
    assert metrics.ring_error(middle, truth, mask) == 0
    assert metrics.ring_error(edge, truth, mask) > 0
    assert metrics.ring_error(truth, truth, np.ones_like(mask)) is None


def test_ring_of_a_constant_shift_is_the_shift() -> None:
    truth, mask = np.full((32, 40, 3), 90, dtype=np.uint8), box()
    shifted = truth.copy()
    shifted[mask] += 7
    assert metrics.ring_error(shifted, truth, mask) == 7


def test_known_change_ignores_the_hole() -> None:
    truth, mask = noise(0), box()
    result = np.where(mask[..., None], noise(1), truth)
    assert metrics.known_change(result, truth, mask) == 0
    result[0, 0, 1] = truth[0, 0, 1] ^ 3
    assert 1 <= metrics.known_change(result, truth, mask) <= 3
    assert metrics.known_change(result, truth, np.ones_like(mask)) == 0


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 6))
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(a, a + 2) == pytest.approx(6 * 4)
    # scaling by s scales the covariance by s²: |(s-1) μ|² + (s-1)² Tr C
    expected = np.square(2 * a.mean(0)).sum() + 4 * np.trace(np.cov(a, rowvar=False))
    assert metrics.frechet_distance(a, 3 * a) == pytest.approx(expected)


@given(st.integers(2, 6), st.integers(2, 6))
def test_frechet_distance_with_fewer_photos_than_features(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 10 + m)
    a, b = rng.standard_normal((n, 12)), rng.standard_normal((m, 12)) + 1
    forth, back = metrics.frechet_distance(a, b), metrics.frechet_distance(b, a)
    assert forth == pytest.approx(back)
    assert forth > 0


def test_bootstrap_interval_holds_the_mean_and_is_reproducible() -> None:
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = metrics.bootstrap_interval(values)
    assert low < values.mean() < high
    assert 0.2 < high - low < 0.36  # 2 x 1.96 / sqrt(200) = 0.277
    assert (low, high) == metrics.bootstrap_interval(values)
