"""Freed memory is kept where the C library allows it, and nothing fails where it does not."""

import ctypes
import sys

import pytest
import torch

from nuwa_lip.fast.allocator import keep_freed_memory


def test_tensors_are_the_same_with_memory_kept() -> None:
    before = torch.ones(2**22).cumsum(0)
    kept = keep_freed_memory()
    assert kept in (True, False)
    assert torch.equal(torch.ones(2**22).cumsum(0), before)


def test_other_systems_and_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
