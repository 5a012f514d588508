"""Attention of the few rows of a decoding step on the CPU, by a kernel of our own in C++ (`few_rows.cpp`).

PyTorch's matrix products bring keys and values into another order before they multiply, which for a few rows takes
longer than the products. This kernel takes them as they lie, once for up to four rows: for one row and a photo's 1,357
states in bf16, none of them in a CPU cache, 0.17 to 0.18 ms a layer. A row's result is the same to the bit however many
rows and sequences there are. The C++ compiler makes it on first use (`build`), in a second or two.

Legend: B batch, R rows, M keys, d width of a head.
"""

import ctypes
import functools
import itertools
import platform
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.fast.compiling import compiler, opaque

SOURCE = Path(__file__).with_name("few_rows.cpp")
FUNCTIONS = {torch.bfloat16: "attend_bfloat16", torch.float32: "attend_float32"}
WIDTHS = (16, 32, 64, 128)
"""Widths of a head that the kernel is compiled for."""
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
"""Contraction is off because it is the compiler's choice, loop by loop, and with it the last bit of a row."""
NUMBERS = struct.Struct("=20q")
"""Strides of batch, head and row of q, k, v, what is visible, and the result; B, heads, R, M, d."""
MACHINES = ("x86_64", "aarch64")
"""On Linux; other compilers have other flags, and that of macOS no OpenMP."""
ROWS = 8
"""Most rows of a sequence: with more of them, and four sequences, PyTorch's products are faster."""


def supported() -> bool:
    """Return whether the kernel is for this kind of machine."""
    return sys.platform == "linux" and platform.machine() in MACHINES


@functools.cache
def build() -> ctypes.CDLL:
    """Make the kernel and load it, once in a process; nothing is left on the disk.

    Raises:
        InputError: there is no compiler, it cannot make this, or nothing can be loaded from the temporary folder.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder, "few_rows.so")
        command = [compiler(), *FLAGS, str(SOURCE), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            reason = next((line for line in lines if "error" in line), lines[0])
            raise InputError(f"{command[0]} cannot compile {SOURCE.name}: {reason}; name another one in CXX")
        try:
            loaded = ctypes.CDLL(str(library))
        except OSError as error:
            raise InputError(
                f"cannot load what {command[0]} has made of {SOURCE.name}: {error}; name a folder for it in TMPDIR"
            ) from error
    for name in FUNCTIONS.values():
        function = getattr(loaded, name)
        function.restype, function.argtypes = None, [*[ctypes.c_void_p] * 5, ctypes.c_char_p]
    return loaded


def takes(q: Tensor, k: Tensor) -> bool:
    """Return whether the kernel is for such rows [B, heads, R, d] and keys; the answer is the same for every B."""
    return (
        q.device.type == "cpu"
        and q.dtype == k.dtype
        and q.dtype in FUNCTIONS
        and q.shape[-1] in WIDTHS
        and q.shape[-2] <= ROWS
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad))
    )


def _rows_first(q: Tensor) -> Tensor:
    """Make an empty [B, heads, R, d] that lies in memory as [B, R, heads, d], as the next layer reads it."""
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)


@opaque(lambda q, k, v, visible: _rows_first(q))
def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
    """Attend from rows [B, heads, R, d] to keys and values [B, heads, M, d], as `scaled_dot_product_attention`.

    Args:
        q, k, v: all float32 or all bfloat16, of a width in `WIDTHS`; no gradient goes through.
        visible: bool, broadcast to [B, heads, R, M], True = may be attended; a row sees one key at least.
    """
    assert q.shape[-1] in WIDTHS and q.dtype == k.dtype == v.dtype, "see `takes`"
    kernel = getattr(build(), FUNCTIONS[q.dtype])
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    y = _rows_first(q)
    batch, heads, rows, width = q.shape
    keys = k.shape[2]
    if visible is not None:
        visible = visible.expand(batch, heads, rows, keys)
        visible = visible if visible.stride(-1) == 1 else visible.contiguous()
    strides = [x.stride()[:3] if x is not None else (0, 0, 0) for x in (q, k, v, visible, y)]
    numbers = NUMBERS.pack(*itertools.chain(*strides), batch, heads, rows, keys, width)
    kernel(*(x.data_ptr() if x is not None else None for x in (q, k, v, visible, y)), numbers)
    return y
