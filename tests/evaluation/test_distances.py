"""Distances of sets against the libraries that published figures come from, and against known answers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torchmetrics.image.kid import poly_mmd

from nuwa_lip.evaluation import distances
from nuwa_lip.evaluation.distances import frechet_distance, kernel_distance, median_interval


def sets(n: int, features: int, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    mix = rng.standard_normal((features, features)) / np.sqrt(features)
    return rng.standard_normal((n, features)) @ mix, rng.standard_normal((n, features)) * 1.2 @ mix + shift


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 6))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(6 * 4)
    # scaling by s scales the covariance by s²: |(s-1) μ|² + (s-1)² Tr C
    expected = np.square(2 * a.mean(0)).sum() + 4 * np.trace(np.cov(a, rowvar=False))
    assert frechet_distance(a, 3 * a) == pytest.approx(expected)


def test_frechet_distance_of_drawn_gaussians_tends_to_theirs() -> None:
    rng = np.random.default_rng(0)
    deviation_a, deviation_b, shift = np.array([1.0, 2.0, 0.5]), np.array([2.0, 1.0, 0.5]), np.array([1.0, 0.0, -1.0])
    a = rng.standard_normal((200_000, 3)) * deviation_a
    b = rng.standard_normal((200_000, 3)) * deviation_b + shift
    expected = np.square(shift).sum() + np.square(deviation_a - deviation_b).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=0.02)


@given(st.integers(2, 6), st.integers(2, 6))
def test_frechet_distance_with_fewer_photos_than_features(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 10 + m)
    a, b = rng.standard_normal((n, 12)), rng.standard_normal((m, 12)) + 1
    forth, back = frechet_distance(a, b), frechet_distance(b, a)
    assert forth == pytest.approx(back)
    assert forth > 0


def test_frechet_distance_is_fid() -> None:
    a, b = sets(300, 48)
    one, other = (fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b))
    expected = fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-4)
    assert frechet_distance(a.astype(np.float32), a.astype(np.float32)) == pytest.approx(0, abs=1e-3)


def test_parts_of_a_set_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sets(130, 10)
    whole = frechet_distance(a, b), kernel_distance(a, b)[0]
    monkeypatch.setattr(distances, "CHUNK", 50)
    assert (frechet_distance(a, b), kernel_distance(a, b)[0]) == pytest.approx(whole, abs=1e-10)


def test_kernel_distance_is_kid() -> None:
    a, b = sets(100, 16)
    found = kernel_distance(a, b)[0]
    assert found == pytest.approx(float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))), abs=1e-8)
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=100, verbose=False
    )
    assert found == pytest.approx(theirs[KEY_METRIC_KID_MEAN], abs=1e-4)


def test_kernel_distance_has_no_bias() -> None:
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.standard_normal((2, 20, 4)))[0] for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300)


def test_a_resample_is_a_set_of_its_own_but_for_copies() -> None:
    a, b = sets(12, 5)
    chosen = np.array([0, 2, 3, 5, 8, 11])
    counts = np.zeros((1, 12), dtype=int)
    counts[0, chosen] = 1
    assert kernel_distance(a, b, counts) == pytest.approx(kernel_distance(a[chosen], b[chosen]))


def test_intervals_hold_their_figure_and_shrink_with_n() -> None:
    for estimate in (distances.frechet_estimate, distances.kernel_estimate):
        widths = []
        for n in (50, 800):
            found = estimate(*sets(n, 6))
            low, high = found.interval
            assert low < found.value < high
            assert (found.value, found.interval) == (estimate(*sets(n, 6)).value, estimate(*sets(n, 6)).interval)
            widths.append(high - low)
        assert widths[1] < widths[0] / 2
    assert np.isfinite(distances.kernel_estimate(*sets(2, 6)).interval).all()


def test_estimates_of_one_n_pair_up() -> None:
    """Two nearly equal methods differ far less than either figure is uncertain, because both see the same resamples."""
    a, b = sets(100, 6)
    one, other = distances.frechet_estimate(a, b), distances.frechet_estimate(a * 1.01, b)
    paired = distances.spread_interval(other.value - one.value, other.resampled - one.resampled)
    assert paired[1] - paired[0] < (one.interval[1] - one.interval[0]) / 5


def test_ratio_interval_is_paired() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 1, 200)
    low, high = distances.ratio_interval(values * 0.7 * rng.normal(1, 0.01, 200), values)
    assert 0.69 < low < 0.7 < high < 0.71


def test_bootstrap_interval_holds_the_mean_and_is_reproducible() -> None:
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = distances.bootstrap_interval(values)
    assert low < values.mean() < high
    assert 0.2 < high - low < 0.36  # 2 x 1.96 / sqrt(200) = 0.277
    assert (low, high) == distances.bootstrap_interval(values)


def test_the_medians_interval_holds_the_median_and_not_an_outlier() -> None:
    values = np.r_[np.random.default_rng(0).normal(1, 0.1, 99), 1e6]
    low, high = median_interval(values)
    assert 0.95 < low < np.median(values) < high < 1.05
    assert median_interval(np.full(5, 2.0)) == (2, 2)
