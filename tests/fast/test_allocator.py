"""Freed memory is kept where the C library is glibc; other systems and libraries are left alone."""

import ctypes
import platform
import subprocess
import sys

import pytest

from nuwa_lip.fast.allocator import keep_freed_memory

COUNT_FAULTS = """
import resource
from nuwa_lip.fast.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * 2**25
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

mapped = faults()
assert keep_freed_memory()
faults()  # the first pages come from the system
print(mapped, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    """Counted are the pages that the system has to clear, in a process of its own: the choice lasts."""
    run = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    mapped, kept = map(int, run.stdout.split())
    assert mapped > 40 and kept < mapped / 10


def test_other_systems_and_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
