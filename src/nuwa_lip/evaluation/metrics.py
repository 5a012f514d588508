"""Figures that compare a repainted photo with the original, and sets of photos with each other.

Photos are uint8 [H, W, 3] at their own size, masks bool [H, W] with True = hole, errors in 8-bit steps.

Legend: H W photo, N photos, F features of a photo.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.models.perceptual import SqueezeNetFeatures, lpips_squeeze

RING_WIDTH = 4
"""Pixels from the border inwards that `ring_error` looks at."""
MAX_PSNR = 100.0
"""dB given to identical pictures, whose PSNR is infinite."""


def to_tensor(photo: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] → float32 [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 127.5 - 1


def psnr(result: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of the whole photo or under `mask`; at most `MAX_PSNR`."""
    error = np.square(result.astype(np.float64) - truth.astype(np.float64))
    mse = float(error.mean() if mask is None else error[mask].mean())
    return MAX_PSNR if mse == 0 else min(MAX_PSNR, 10 * float(np.log10(255.0**2 / mse)))


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 pixels, σ 1.5, mean over channels.

    Args:
        result, truth: uint8 [H, W, 3]. Sides under 11 pixels get the largest odd window that fits.
    """
    size = min(11, *truth.shape[:2])
    size -= 1 - size % 2
    x = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-x.square() / (2 * 1.5**2))
    line = line / line.sum()
    # [3, 1, H, W]: channels as samples
    a, b = (torch.from_numpy(np.array(p)).permute(2, 0, 1)[:, None].double() for p in (result, truth))

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float((luminance * structure).mean())


def ring_error(result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Mean absolute error over the ring: hole pixels at most `RING_WIDTH` rows or columns from a known pixel.

    There the surroundings all but determine what belongs, so seams and shifts of colour at the border show,
    while the middle of the hole, where many answers are right, does not count. None where nothing is known.
    """
    known = torch.from_numpy(~mask)[None, None].float()
    near = F.max_pool2d(known, 2 * RING_WIDTH + 1, stride=1, padding=RING_WIDTH)[0, 0].numpy() > 0
    ring = near & mask
    if not ring.any():
        return None
    return float(np.abs(result[ring].astype(np.float64) - truth[ring].astype(np.float64)).mean())


def known_change(result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> int:
    """Largest change of any known pixel's channel; 0 means equal to the bit."""
    change = np.abs(result.astype(np.int16) - truth.astype(np.int16))[~mask]
    return int(change.max()) if change.size else 0


@torch.inference_mode()
def perceptual(
    features: SqueezeNetFeatures, result: np.ndarray, truth: np.ndarray, mask: np.ndarray
) -> tuple[float, float]:
    """LPIPS-squeeze of the whole photo and of the hole alone (see `models.perceptual.lpips_squeeze`)."""
    a, b, hole = to_tensor(result), to_tensor(truth), torch.from_numpy(mask)[None, None]
    return float(lpips_squeeze(features, a, b)), float(lpips_squeeze(features, a, b, hole))


@torch.inference_mode()
def embed(features: SqueezeNetFeatures, photo: np.ndarray) -> np.ndarray:
    """Means over space of SqueezeNet's last feature map for the photo at 227 x 227: float64 [512]."""
    small = F.interpolate(to_tensor(photo), (227, 227), mode="bicubic", antialias=True)
    return features(small)[-1][0].mean((1, 2)).double().numpy()


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of the Gaussians fitted to two sets: |μ_a - μ_b|² + Tr(C_a + C_b - 2 √(C_a C_b)).

    Args:
        a, b: float64 [N, F], at least two rows each.
    """
    mean = float(np.square(a.mean(0) - b.mean(0)).sum())
    # with C = Rᵀ R, R from the centred features, Tr √(C_a C_b) is the sum of the singular values of R_a R_bᵀ;
    # unlike a matrix root this stays exact where there are fewer photos than features
    root_a, root_b = _root(a), _root(b)
    cross = float(torch.linalg.svdvals(root_a @ root_b.mT).sum())
    return max(0.0, mean + float(root_a.square().sum() + root_b.square().sum()) - 2 * cross)


def _root(x: np.ndarray) -> Tensor:
    """Triangular R with Rᵀ R the covariance of x's columns."""
    return torch.linalg.qr(torch.from_numpy((x - x.mean(0)) / np.sqrt(len(x) - 1)), mode="r").R


def bootstrap_interval(values: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean of per-photo values, by resampling the photos."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
