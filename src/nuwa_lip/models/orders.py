"""Orders in which defective tokens are decoded: the paper's raster, any permutation, inwards from the border.

An order is a key for every cell of the grid; the defective cells are decoded by rising key. Samples of one
batch may have different orders: `order_by(torch.where(coin, keys, other_keys), token_mask)`.

Legend: B batch, h w token grid, N = h · w, K most defective tokens of a sample.
"""

import torch
from torch import Tensor

from nuwa_lip.errors import InputError

ORDERS = ("raster", "random", "border")


def decoding_order(name: str, token_mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return the defective positions of one photo in the order of decoding.

    Args:
        name: one of `ORDERS`, see `order_keys`.
        token_mask: bool [1, 1, h, w] or [1, h, w], True = defective.
        generator: on the CPU; for "random" only.

    Returns:
        Flat (row-major) positions, int64 [K].

    Raises:
        InputError: there is no such order.
    """
    mask = token_mask.reshape(1, 1, *token_mask.shape[-2:])
    return order_by(order_keys(name, mask, generator), mask)[0][0]


def order_keys(name: str, token_mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Compute the keys of an order for `order_by`, float64 [B, N].

    Args:
        name: "raster": row by row; "random": a permutation for each sample; "border": inwards from the border
            of the hole, by the distance to the nearest known token, row by row among equals (and where
            nothing is known).
        token_mask: bool [B, 1, h, w], True = defective.
        generator: on the CPU; for "random" only.

    Raises:
        InputError: there is no such order.
    """
    check_order(name)
    batch, cells = token_mask.flatten(1).shape
    if name == "random":
        return torch.rand(batch, cells, generator=generator, dtype=torch.float64).to(token_mask.device)
    keys = torch.arange(cells, dtype=torch.float64, device=token_mask.device).expand(batch, -1)
    return keys if name == "raster" else keys + cells * border_distance(token_mask).flatten(1)


def border_distance(token_mask: Tensor) -> Tensor:
    """Compute the squared distance of every cell to the nearest known one, int64 [B, h, w]; 0 if nothing is known.

    Args:
        token_mask: bool [B, 1, h, w], True = defective.
    """
    defective = token_mask[:, 0]
    height, width = defective.shape[1:]
    rows = torch.arange(height, device=defective.device)
    columns = torch.arange(width, device=defective.device)
    far = (height + width) ** 2  # more than any distance
    # to the nearest in the same row first; a squared distance is the sum of both directions
    across = (columns[:, None] - columns).square()  # [w, w]
    nearest = torch.where(defective[:, :, None], far, across).amin(-1)  # [B, h, w]
    down = (rows[:, None] - rows).square()[..., None]  # [h, h, 1]
    distance = (nearest[:, None] + down).amin(2)
    return distance.where(distance < far, 0)


def raster_order(token_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `order_by` does for the order from top left to bottom right."""
    return order_by(order_keys("raster", token_mask), token_mask)


def order_by(keys: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each sample's defective positions by rising key.

    Args:
        keys: [B, N], all different within a sample.
        token_mask: bool [B, 1, h, w].

    Returns:
        Positions, int64 [B, K], with zeros after a sample's own, and which count, bool [B, K].
    """
    defective = token_mask.flatten(1)
    counts = defective.sum(1, keepdim=True)
    longest = int(counts.max()) if len(counts) else 0
    ranked = keys.masked_fill(~defective, torch.inf).argsort(1)
    real = torch.arange(longest, device=token_mask.device) < counts
    return ranked[:, :longest].where(real, 0), real


def target_tokens(tokens: Tensor, order: Tensor) -> Tensor:
    """Look up the tokens [B, h, w] at the positions `order` [B, K] → int64 [B, K]."""
    return tokens.flatten(1).gather(1, order)


def check_order(name: str) -> None:
    """Check the name of an order.

    Raises:
        InputError: it is none of `ORDERS`.
    """
    if name not in ORDERS:
        raise InputError(f"there is no order {name!r}; there are: {', '.join(ORDERS)}")
