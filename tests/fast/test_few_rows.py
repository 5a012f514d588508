"""The kernel in C++ against PyTorch's attention, which is its slow twin."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.fast import few_rows
from nuwa_lip.models.cache import BatchPadding, CachedRows
from nuwa_lip.models.decoder import CausalAttention, CrossAttention, Kernel

pytestmark = pytest.mark.skipif(not (few_rows.supported() and shutil.which("g++")), reason="needs Linux and g++")
DTYPES = pytest.mark.parametrize("dtype", few_rows.FUNCTIONS)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int, heads: int, rows: int, keys: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """As a decoder has them: rows lie first, and of a cache a part is used."""
    q = random(batch, rows, heads, width).to(dtype).transpose(1, 2)
    k, v = (random(batch, heads, keys + 3, width, seed=seed).to(dtype)[:, :, :keys] for seed in (1, 2))
    return q, k, v


@DTYPES
@settings(max_examples=30)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    rows=st.integers(1, 9),
    keys=st.integers(1, 70),
    width=st.sampled_from(few_rows.WIDTHS),
    seed=st.integers(0, 99),
)
def test_it_is_attention(
    batch: int, heads: int, rows: int, keys: int, width: int, seed: int, dtype: torch.dtype
) -> None:
    q, k, v = inputs(batch, heads, rows, keys, width, dtype)
    visible = random(rows, keys, seed=seed) > 0
    visible[:, seed % keys] = True
    for mask in (None, visible, visible[:1].expand(batch, 1, 1, keys)):
        expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
        found = few_rows.attend(q, k, v, mask)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@DTYPES
@pytest.mark.parametrize("width", few_rows.WIDTHS)
def test_a_row_is_the_same_to_the_bit_however_many_there_are(width: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(3, 5, 8, 157, width, dtype)
    visible = random(8, 157) > -1
    for mask in (None, visible):
        with threads(2):
            every = few_rows.attend(q, k, v, mask)
        for count in (1, 2, 3, 4, 5):
            for first in range(9 - count):
                rows = slice(first, first + count)
                with threads(1):
                    few = few_rows.attend(q[1:2, :, rows], k[1:2], v[1:2], None if mask is None else mask[rows])
                assert torch.equal(few, every[1:2, :, rows])


@pytest.mark.parametrize("scale", [0.0, 30.0, 1e4])
def test_scores_far_apart_neither_overflow_nor_vanish(scale: float) -> None:
    q, k, v = inputs(1, 2, 3, 50, 32, torch.float32)
    expected = F.scaled_dot_product_attention((q * scale).double(), k.double(), v.double())
    torch.testing.assert_close(few_rows.attend(q * scale, k, v, None).double(), expected, atol=1e-3, rtol=1e-3)


def test_a_key_that_is_not_visible_does_not_count_and_nan_that_is_shows() -> None:
    q, k, v = inputs(1, 1, 2, 20, 16, torch.bfloat16)
    visible = torch.ones(2, 20, dtype=torch.bool)
    visible[0, 7] = False
    k[..., 7, :] = torch.nan
    found = few_rows.attend(q, k, v, visible)
    assert found[..., 0, :].isfinite().all() and found[..., 1, :].isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("padding", [None, BatchPadding(2, 4)])
def test_memories_shared_by_sequences(padding: BatchPadding | None) -> None:
    layer, x = CrossAttention(64, 4), random(8, 1, 64)
    if padding is not None:
        x = padding.restore(padding.strip(x))
    keys_values = layer.keys_values(random(2, 30, 64, seed=1))
    visible = torch.arange(30)[None] < 21
    expected = layer(x, keys_values, visible)
    seen = []

    def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
        seen.append(q.shape[2])
        return few_rows.attend(q, k, v, visible)

    layer.kernel = Kernel(few_rows.takes, attend)
    torch.testing.assert_close(layer(x, keys_values, visible, padding=padding), expected, atol=1e-5, rtol=1e-5)
    assert seen == [4 if padding is None else 2], "of each memory, without the padding"


@torch.no_grad()
def test_only_few_rows_of_the_right_width_are_taken() -> None:
    def refuse(*args: Tensor | None) -> Tensor:
        raise AssertionError("not to be called")

    kernel = Kernel(few_rows.takes, refuse)
    few, wide = random(1, 2, few_rows.ROWS, 16), random(1, 2, 1, 24)
    assert few_rows.takes(few, few) and not few_rows.takes(wide, wide)
    assert not few_rows.takes(few, few.bfloat16()) and not few_rows.takes(few.double(), few.double())
    assert not few_rows.takes(few.to("meta"), few.to("meta"))
    with torch.enable_grad():
        assert not few_rows.takes(few.requires_grad_(), few)
    for q in (random(1, 2, few_rows.ROWS + 1, 16), wide):
        rows, width = q.shape[2], 2 * q.shape[3]
        layer, slots, cache = CausalAttention(width, 2), torch.arange(rows), torch.zeros(1, 2, rows, q.shape[3])
        layer.kernel = kernel
        x = random(1, rows, width)
        assert layer(x, None, None, CachedRows((cache, cache.clone()), slots, slots <= slots[:, None])).shape == x.shape


def test_a_model_that_has_it_can_be_sent_to_another_process() -> None:
    layer = CrossAttention(64, 4)
    layer.kernel = Kernel(few_rows.takes, few_rows.attend)
    assert pickle.loads(pickle.dumps(layer)).kernel == layer.kernel


def test_a_compiler_that_cannot_make_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(few_rows, "SOURCE", tmp_path / "few_rows.cpp")
    few_rows.SOURCE.write_text("int main() { return nothing; }")
    with pytest.raises(InputError, match=r"few_rows\.cpp.*nothing"):
        few_rows.build.__wrapped__()


def test_a_library_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(f"{path}: failed to map segment")

    monkeypatch.setattr(few_rows.ctypes, "CDLL", fail)
    with pytest.raises(InputError, match="failed to map"):
        few_rows.build.__wrapped__()
