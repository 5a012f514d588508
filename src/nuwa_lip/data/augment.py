"""Augmentation of a batch on its device: one resampling for crop, stretch and flip, one product for colour.

The source squares may be squeezed photos (see `nuwa_lip.data.photos`): the crop is a square of the true
photo, so its sides in the source differ by the photo's aspect. Random numbers are drawn on the generator's
device: a CPU generator gives the same pictures on every device.

Shapes: B batch, S source side.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nuwa_lip.disk.fields import Bounds, check_bounds

BOUNDS: Bounds = {"scale": (1e-4, 1), "colour": (0, 10)}
ASPECTS = {4 / 3: 0.5, 3 / 2: 0.25, 3 / 4: 0.15, 1.0: 0.1}
"""Plausible shapes of photos whose shape is unknown (width / height), and how often each is assumed."""
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What varies each time that a photo is drawn."""

    scale: tuple[float, float] = (0.65, 1.0)
    """Least and largest area of the crop, as a share of the photo's largest square."""
    flip: bool = True
    """Whether half of the photos are mirrored, except those whose caption speaks of left or right."""
    colour: float = 0.1
    """Strength of brightness, contrast and saturation changes; 0 for none."""
    stretch: bool = True
    """Whether photos of unknown shape are stretched to a plausible one; otherwise they are taken for squares."""

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS, "augmentation.")


def augment(
    images: torch.Tensor,
    aspects: torch.Tensor,
    size: int,
    recipe: Augmentation,
    generator: torch.Generator | Sequence[np.random.Generator],
    captions: Sequence[str] | None = None,
) -> torch.Tensor:
    """Crop, stretch, flip and recolour at random.

    Args:
        images: uint8 [B, 3, S, S].
        aspects: [B] true width / height of the photos; 0 = unknown.
        size: side of the result.
        recipe: what to vary.
        generator: source of all randomness, one for all photos or each photo's own.
        captions: B captions; those with "left" or "right" forbid the flip. None: all may be flipped.

    Returns:
        float32 [B, 3, size, size] in [-1, 1] on the images' device.
    """
    b, device = len(images), generator.device if isinstance(generator, torch.Generator) else torch.device("cpu")
    if isinstance(generator, torch.Generator):
        u = torch.rand(8, b, generator=generator, device=device)  # drawn whatever the recipe uses of it
    else:
        u = torch.from_numpy(np.stack([own.random(8, dtype=np.float32) for own in generator], 1))
    shapes = aspects.to(device, torch.float32)
    known = shapes > 0  # False for NaN too
    if recipe.stretch:
        edges = torch.tensor(list(ASPECTS.values()), device=device).cumsum(0)[:-1]
        guesses = torch.tensor(list(ASPECTS), device=device)[torch.bucketize(u[0], edges)]
    else:
        guesses = torch.ones(b, device=device)
    least, largest = recipe.scale
    side = (least + (largest - least) * u[1]).sqrt()
    extent = _extent(torch.where(known, shapes, guesses)) * side[:, None]
    shift = (1 - extent) * (2 * u[2:4].T - 1)
    if recipe.flip:
        allowed = [not SIDES.search(text) for text in captions] if captions is not None else [True] * b
        mirror = (u[4] < 0.5) & torch.tensor(allowed, device=device)
        extent[:, 0] = torch.where(mirror, -extent[:, 0], extent[:, 0])
    result = _resample(images, extent, shift, size)
    if recipe.colour > 0:
        result = _recolour(result, 1 + recipe.colour * (2 * u[5:8].T - 1).to(images.device))
    return result


def _extent(shapes: torch.Tensor) -> torch.Tensor:
    """Give the sides of the photo's largest square as shares [B, 2] of the source's width and height."""
    return torch.stack([(1 / shapes).clamp(max=1.0), shapes.clamp(max=1.0)], dim=1)


def _resample(images: torch.Tensor, extent: torch.Tensor, shift: torch.Tensor, size: int) -> torch.Tensor:
    """Cut boxes out of the source, in [-1, 1].

    Args:
        images: uint8 [B, 3, S, S].
        extent: [B, 2] width and height of the box as shares of the source; negative mirrors.
        shift: [B, 2] centre of the box in the source's coordinates, -1..1.
        size: side of the result.
    """
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = extent.to(images.device).unbind(1)
    theta[:, :, 2] = shift.to(images.device)
    # bilinear sampling skips pixels when it shrinks much: take several samples a pixel and average them
    samples = max(math.ceil(images.shape[-1] / size / 1.3), 1)
    shape = [len(images), 3, size * samples, size * samples]
    grid = F.affine_grid(theta, shape, align_corners=False)
    result = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    if samples > 1:
        result = F.avg_pool2d(result, samples)
    return result.mul_(2 / 255).sub_(1)


def _recolour(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale brightness, contrast and saturation [B, 3] of images in [-1, 1], as one 3x3 matrix a photo."""
    brightness, contrast, saturation = (f.view(-1, 1, 1) for f in factors.unbind(1))
    grey = torch.tensor(GREY, device=images.device).expand(1, 3, 3)
    keep = torch.eye(3, device=images.device).expand(1, 3, 3)
    matrix = brightness * contrast * (saturation * keep + (1 - saturation) * grey)  # [B, 3, 3]
    offset = (brightness - 1).expand(-1, 3, 1)  # brightness scales light: black (-1) stays where it is
    mixed = torch.baddbmm(offset, matrix, images.flatten(2))
    return mixed.view_as(images).clamp_(-1, 1)
