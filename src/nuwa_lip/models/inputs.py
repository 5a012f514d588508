"""Checks of what an `MPS2S` is given: shapes always, values where waiting for the device does no harm.

Legend: B batch, N tokens of the grid, K defective tokens.
"""

import torch
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.models.mps2s_config import MPS2SConfig


def check_photo(
    config: MPS2SConfig, image: Tensor, mask: Tensor, tokens: Tensor, token_mask: Tensor, *, values: bool
) -> Tensor:
    """Check what is known of B photos → their defective positions, bool [B, N].

    Args:
        config: of the model that they are for.
        image, mask, tokens, token_mask: as for `MPS2S.encode`.
        values: look into the tokens, too, which waits for the device.

    Raises:
        InputError: a shape, type or value does not fit.
    """
    batch, side, grid = tokens.shape[0], config.image_size, config.grid
    expected = (
        ("image", image, (batch, 3, side, side)),
        ("mask", mask, (batch, 1, side, side)),
        ("tokens", tokens, (batch, *grid)),
        ("token_mask", token_mask, (batch, 1, *grid)),
    )
    for name, value, shape in expected:
        if value.shape != shape:
            raise InputError(f"{name} has shape {list(value.shape)}; needed: {list(shape)}")
        if name.endswith("mask") and value.dtype != torch.bool:
            raise InputError(f"{name} is {value.dtype}; needed: torch.bool, True = defective")
    defective = token_mask.flatten(1)
    if values:
        check_range("tokens", tokens.flatten(1).masked_fill(defective, 0), config.codebook_size)
    return defective


def check_positions(order: Tensor, token_mask: Tensor, *, values: bool) -> Tensor:
    """Check an order of decoding → which of its entries count, bool [B, K].

    Args:
        order, token_mask: as for `MPS2S.forward`.
        values: look into the order, too, which waits for the device.

    Raises:
        InputError: it is not an order of each sample's defective positions.
    """
    if order.ndim != 2 or len(order) != len(token_mask):
        raise InputError(f"order has shape {list(order.shape)}; needed: [{len(token_mask)}, K]")
    defective = token_mask.flatten(1)
    counts = defective.sum(1, keepdim=True)
    real = torch.arange(order.shape[1], device=order.device) < counts
    if values:
        if order.shape[1] < counts.max():
            raise InputError(f"order has {order.shape[1]} positions; {int(counts.max())} are defective")
        cells = defective.shape[1]
        # padding goes to a cell of its own behind the grid
        valid = real & (order >= 0) & (order < cells)
        named = torch.zeros(len(order), cells + 1, dtype=torch.bool, device=order.device)
        named.scatter_(1, order.where(valid, cells), True)
        wrong = ((named[:, :cells] != defective).any(1)).nonzero().flatten().tolist()
        if wrong:
            raise InputError(f"order of sample {wrong[0]} is not a permutation of its defective positions")
    return real


def check_range(name: str, values: Tensor, size: int) -> None:
    """Check that values are int64 from 0 to below `size`.

    Args:
        name: of the values, for the error.
        values: of any shape.
        size: what they must be below.

    Raises:
        InputError: they are not.
    """
    if values.dtype != torch.int64:
        raise InputError(f"{name} is {values.dtype}; needed: torch.int64")
    if values.numel() and (values.min() < 0 or values.max() >= size):
        raise InputError(f"{name} holds {int(values.min())} to {int(values.max())}; needed: 0 to {size - 1}")
