"""Rotary positions in two dimensions (Su et al. 2021): attention knows how far apart two tokens stand, not where.

Half of a head's channels take part, half of these for rows and half for columns; the others do not know where they are,
because what has no place (a caption) is attended to by them.

Legend: N tokens, P patches, d width of a head, r pairs of a head's channels that are rotated.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from nuwa_lip.models.mps2s_config import MPS2SConfig

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine, each [N, r] or [B, 1, N, r], of the angles that `rotate` turns pairs of channels by."""
LONGEST_WAVE = 64.0
"""Tokens in which the slowest pair turns by one radian; the fastest takes one token."""


class Rotations(NamedTuple):
    """The rotations of a sequence's queries and of its keys, which may stand at other places."""

    queries: Rotation
    keys: Rotation


def rotation_at(places: Tensor, config: MPS2SConfig) -> Rotation | None:
    """Return the rotation at places float [N, 2], row and column in tokens; None without rotary positions."""
    if not config.rotary:
        return None
    pairs = config.width // config.heads // 8  # of each axis
    waves = LONGEST_WAVE ** (torch.arange(pairs, device=places.device) / max(1, pairs - 1))
    angles = (places[..., None] / waves).flatten(-2)  # [N, 2 * pairs]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotate the first 2 r channels of queries or keys [B, heads, N, d]."""
    if rotation is None:
        return x
    cos, sin = (t.to(x.dtype) for t in rotation)
    a, b, rest = x.tensor_split((cos.shape[-1], 2 * cos.shape[-1]), -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def token_places(config: MPS2SConfig, device: torch.device) -> Tensor:
    """Return row and column of every token, float [N, 2]."""
    rows, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in config.grid)
    return torch.cartesian_prod(rows, columns)


def patch_places(config: MPS2SConfig, device: torch.device) -> Tensor:
    """Return where the middle of every patch of pixels stands among the tokens, float [P, 2]."""
    across = config.image_size // config.patch_size
    middles = (torch.arange(across, device=device, dtype=torch.float32) + 0.5) / across
    scale = torch.tensor(config.grid, device=device)
    return torch.cartesian_prod(middles, middles) * scale - 0.5
