"""Figures that compare a repainted photo with the original.

Photos are uint8 [H, W, 3] at their own size, masks bool [H, W] with True = hole, errors in 8-bit steps.

Legend: H W photo, C_l H_l W_l map l of a network.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RING_WIDTH = 4
"""Pixels from the border inwards that the ring has."""
MAX_PSNR = 100.0
"""dB given to identical pictures, whose PSNR is infinite."""

Regions = Mapping[str, np.ndarray | None]
"""Ending of a figure's name ("", "_hole", "_ring") → bool [H, W] where it looks; None: everywhere."""


def ring_of(mask: np.ndarray) -> np.ndarray:
    """Find the hole's pixels at most `RING_WIDTH` rows or columns from a known pixel: bool [H, W].

    There the surroundings all but determine what belongs, so seams and shifts of colour at the border show,
    while the middle of the hole, where many answers are right, does not count.
    """
    known = torch.from_numpy(~mask)[None, None].float()
    near = F.max_pool2d(known, 2 * RING_WIDTH + 1, stride=1, padding=RING_WIDTH)[0, 0].numpy() > 0
    return near & mask


def regions_of(mask: np.ndarray) -> Regions:
    """Give the regions of the figures: the whole photo, its hole, the ring at the hole's border."""
    return {"": None, "_hole": mask, "_ring": ring_of(mask)}


def compare(result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """Compute every figure that needs no network; None where its region is empty.

    Args:
        result, truth: uint8 [H, W, 3].
        mask: bool [H, W], True = hole.
    """
    regions = regions_of(mask)
    error = result.astype(np.float64) - truth.astype(np.float64)
    similarity = ssim_map(result, truth)
    row: dict[str, float | None] = {}
    for ending, region in regions.items():
        row[f"psnr{ending}"] = _psnr(_mean(np.square(error), region))
        row[f"ssim{ending}"] = _mean(similarity, _central(region, similarity))
    row["ring"] = _mean(np.abs(error), regions["_ring"])
    row["known_max_change"] = float(known_change(result, truth, mask))
    return row


def detail(result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """Compare how much detail the hole has, and how visible its border is, with the true photo's: 1 is as in that.

    sharpness: mean absolute Laplacian in the hole. seam: mean absolute difference between pixels that touch across its
    border. None where the true photo has none of it, or the hole no border.

    Args:
        result, truth: uint8 [H, W, 3].
        mask: bool [H, W], True = hole.
    """
    return {
        "sharpness": _share(_laplacian(result, mask), _laplacian(truth, mask)),
        "seam": _share(_step_across(result, mask), _step_across(truth, mask)),
    }


def _laplacian(photo: np.ndarray, mask: np.ndarray) -> float | None:
    """Average the absolute Laplacian of the channels' mean where a pixel and its four neighbours are in the hole."""
    grey = photo.astype(np.float64).mean(-1)
    middle = (slice(1, -1), slice(1, -1))
    beside = [(slice(None, -2), middle[1]), (slice(2, None), middle[1]), (middle[0], slice(None, -2))]
    beside.append((middle[0], slice(2, None)))
    inside = mask[middle] & np.logical_and.reduce([mask[one] for one in beside])
    values = np.abs(4 * grey[middle] - np.sum([grey[one] for one in beside], 0))
    return _mean(values, inside)


def _step_across(photo: np.ndarray, mask: np.ndarray) -> float | None:
    """Average the absolute differences between known pixels and those of the hole beside them."""
    steps = [np.abs(np.diff(photo.astype(np.float64), axis=axis))[np.diff(mask, axis=axis)] for axis in (0, 1)]
    values = np.concatenate(steps)
    return float(values.mean()) if values.size else None


def _share(value: float | None, truth: float | None) -> float | None:
    return None if value is None or not truth else value / truth


def _psnr(mse: float | None) -> float | None:
    if not mse:
        return None if mse is None else MAX_PSNR
    return min(MAX_PSNR, 10 * float(np.log10(255.0**2 / mse)))


def ssim_map(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute the structural similarity (Wang et al. 2004) of each place: Gaussian window of 11 pixels, σ 1.5.

    Args:
        result, truth: uint8 [H, W, 3]. Sides under 11 pixels get the largest odd window that fits.

    Returns:
        float64 [H', W'], mean over the channels, of the places whose window lies wholly within the photo.
    """
    size = min(11, *truth.shape[:2])
    size -= 1 - size % 2
    x = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-x.square() / (2 * 1.5**2))
    a, b = (torch.from_numpy(np.array(p)).permute(2, 0, 1).double() for p in (result, truth))  # [3, H, W]
    weights = (line / line.sum()).tolist()
    mean_a, mean_b, aa, bb, ab = (_blur(_blur(x, weights, 2), weights, 1) for x in (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    squares = mean_a.square() + mean_b.square()
    luminance = (2 * mean_a * mean_b + c1) / (squares + c1)
    structure = (2 * (ab - mean_a * mean_b) + c2) / (aa + bb - squares + c2)
    return (luminance * structure).mean(0).numpy()


def _blur(x: Tensor, weights: Sequence[float], dim: int) -> Tensor:
    """Sum weighted neighbours along one dimension; shifts are ten times as fast as a convolution in float64."""
    length = x.shape[dim] - len(weights) + 1
    total = x.narrow(dim, 0, length) * weights[0]
    for i, weight in enumerate(weights[1:], start=1):
        total.add_(x.narrow(dim, i, length), alpha=weight)
    return total


def known_change(result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> int:
    """Find the largest change of any known pixel's channel, in 8-bit steps; 0 means equal to the bit.

    Args:
        result, truth: uint8 [H, W, 3].
        mask: bool [H, W], True = repainted.
    """
    change = np.abs(result.astype(np.int16) - truth.astype(np.int16))[~mask]
    return int(change.max()) if change.size else 0


def perceptual_distance(
    result: Sequence[Tensor], truth: Sequence[Tensor], regions: Regions, heads: Sequence[Tensor] | None = None
) -> dict[str, float | None]:
    """Average the squared differences of channel-normalised features over the places of each region.

    Without heads it is the unweighted mean over the maps (LPIPS-squeeze, with SqueezeNet's maps), with heads the
    weighted sum over channels and maps, as in LPIPS (Zhang et al. 2018).

    Args:
        result, truth: maps [C_l, H_l, W_l] of the same network.
        regions: a place of a map counts by its share in the region.
        heads: learned weights [C_l] of each map's channels.
    """
    places = []  # of each map, [H_l, W_l]
    for i, (x, y) in enumerate(zip(result, truth, strict=True)):
        square = (_unit(x) - _unit(y)).square()
        places.append(square.sum(0) if heads is None else torch.einsum("chw,c->hw", square, heads[i]))
    share = len(places) if heads is None else 1
    row: dict[str, float | None] = {}
    for ending, region in regions.items():
        if region is not None and not region.any():
            row[ending] = None
            continue
        row[ending] = sum(weighted_mean(place[None], region).item() for place in places) / share
    return row


def weighted_mean(maps: Tensor, region: np.ndarray | None) -> Tensor:
    """Average over space, each place weighted by its share in the region: [C, h, w] → [C]."""
    if region is None:
        return maps.mean((1, 2))
    weight = F.interpolate(torch.from_numpy(region)[None, None].float(), maps.shape[1:], mode="area")[0]
    return (maps * weight).sum((1, 2)) / weight.sum().clamp(min=1e-12)


def _unit(x: Tensor) -> Tensor:
    """Scale the features [C, h, w] of every place to unit length."""
    return x * (x.square().sum(0, keepdim=True) + 1e-10).rsqrt()


def _central(region: np.ndarray | None, similarity: np.ndarray) -> np.ndarray | None:
    """Cut a region to the places of an SSIM map, which lacks the photo's margin."""
    if region is None:
        return None
    top, left = ((n - m) // 2 for n, m in zip(region.shape, similarity.shape, strict=True))
    return region[top : top + similarity.shape[0], left : left + similarity.shape[1]]


def _mean(values: np.ndarray, region: np.ndarray | None) -> float | None:
    """Average [H, W, ...] over a region; None if it is empty."""
    if region is None:
        return float(values.mean())
    return float(values[region].mean()) if region.any() else None
