"""Freed memory kept at hand: on a CPU the system's fresh pages cost more than the arithmetic on them."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell the C library not to give freed tensors back to the system; for long jobs on a CPU.

    By default every large tensor is mapped anew and cleared page by page, which can slow encoding and training of
    small models to a third. The price is that the process stays as large as it was at its largest.

    Returns:
        Whether the library (glibc) has agreed; others are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all(mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)))
