"""What a CPU or a GPU itself can do: how fast it multiplies matrices, by precision, and how fast it reads memory.

Other stages are stated as shares of these, so that a figure means something on another machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nuwa_lip.bench.measure import CPU, Row, Timing, now, timings
from nuwa_lip.fast.cuda_graphs import disable_cudnn_attention

READS = 10
LEAST = 0.2
"""Seconds of a repeat on a GPU, so that launching and synchronising count for little."""


def settle(device: torch.device) -> None:
    """Prepare a device: float32 is computed in float32, not in TF32."""
    disable_cudnn_attention(device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.allow_tf32 = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a GPU can do, or the CPU with the number of threads that torch is set to."""

    products: dict[str, Timing]
    """Times of a square matrix product, by precision: fp32, bf16 and int8 where the CPU has them."""
    size: int
    """Side of these matrices."""
    read: float
    """GB/s (10^9 bytes), the best of ten reads of a buffer that no cache holds."""

    def rate(self, precision: str) -> float:
        """Give the rate of a matrix product in GFLOP/s; NaN where it was not measured."""
        if precision not in self.products:
            return math.nan
        return 2 * self.size**3 / self.products[precision].seconds / 1e9

    def rows(self) -> list[Row]:
        """Make the lines of a report."""
        rows = [
            Row(f"matrix product, {name}", self.rate(name), "GFLOP/s", noise=timing.noise)
            for name, timing in self.products.items()
        ]
        return [*rows, Row("reading memory, best of ten", self.read, "GB/s")]


def has_bf16(device: torch.device = CPU) -> bool:
    """Say whether a device computes in bf16; emulated, it is a hundred times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def precisions(device: torch.device = CPU) -> list[str]:
    """List the precisions worth measuring on a device."""
    return ["fp32", "bf16"] if has_bf16(device) else ["fp32"]


def measure_limits(size: int, buffer_bytes: int, rounds: int, device: torch.device = CPU) -> Limits:
    """Measure the machine.

    Args:
        size: side of the matrices.
        buffer_bytes: of the buffer that is read; 2 GB and more for a figure to rely on.
        rounds: interleaved repeats of the products.
        device: the CPU, or a GPU.
    """
    a = torch.randn(size, size, device=device)
    cases: dict[str, Callable[[], object]] = {"fp32": lambda: a @ a}
    if has_bf16(device):
        b = a.bfloat16()
        cases["bf16"] = lambda: b @ b
    if device.type == "cuda" or torch.cpu._is_vnni_supported():
        c = torch.randint(-8, 8, (size, size), dtype=torch.int8, device=device)
        # cuBLAS wants the second one's columns in one piece, and on a CPU rows are faster
        d = c.t() if device.type == "cuda" else c
        cases["int8"] = lambda: torch._int_mm(c, d)
    products = timings(cases, rounds, least=LEAST if device.type == "cuda" else 0.0)
    return Limits(products=products, size=size, read=_read_rate(buffer_bytes, device))


def _read_rate(buffer_bytes: int, device: torch.device) -> float:
    """Measure the rate of reading memory in GB/s, the best of ten reads."""
    buffer = torch.ones(buffer_bytes // 4, device=device)  # written, or all its pages would be the same one
    reads, calls = [], 1 if device.type == "cpu" else READS
    for _ in range(READS):
        start = now()
        for _ in range(calls):
            buffer.sum()
        reads.append((now() - start) / calls)
    return buffer.numel() * 4 / min(reads) / 1e9
