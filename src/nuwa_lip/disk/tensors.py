"""Tensors in safetensors files: what is wrong with one, or with writing it, is one line that names it."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nuwa_lip.disk.regular import regular
from nuwa_lip.errors import InputError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, which stay mapped to it.

    Raises:
        InputError: it is missing, damaged, or something else than safetensors.
    """
    try:
        return load_file(regular(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not safetensors: {error}") from error


def check_like(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Check tensors that are to take the place of others: the same names, shapes and types, and nothing but numbers.

    Raises:
        ValueError: one differs, or holds NaN or infinities.
    """
    for name in sorted({*tensors, *expected}):
        if name not in tensors:
            raise ValueError(f"{name} is missing")
        if name not in expected:
            raise ValueError(f"{name} has no place")
        found, wanted = tensors[name], expected[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ValueError(f"{name} is {found.dtype} {[*found.shape]}, not {wanted.dtype} {[*wanted.shape]}")
        check_finite(name, found)


def check_finite(name: str, tensor: Tensor) -> None:
    """Check that a tensor holds nothing but numbers.

    Raises:
        ValueError: it holds NaN or infinities.
    """
    # a sum is finite only if all are, and needs no second tensor as large; it may overflow, so that the rest is asked
    if tensor.is_floating_point() and not tensor.sum().isfinite() and not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds NaN or infinities")
