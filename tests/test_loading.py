"""Loading costs no second copy of the weights: they stay in the files, which are mapped into memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nuwa_lip.hub import load_model, save_model

MAPS = Path("/proc/self/maps")


def in_file(weight: torch.Tensor, name: str) -> bool:
    """Whether a weight's memory is a mapped file's."""
    for line in MAPS.read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if line.endswith(name) and first <= weight.data_ptr() < last:
            return True
    return False


@pytest.mark.skipif(not MAPS.exists(), reason="needs the kernel's list of mapped files")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_stay_in_their_file(dtype: torch.dtype, tiny_model: Path, tmp_path: Path) -> None:
    parts = load_model(tiny_model)
    save_model(tmp_path / "own", **parts._asdict(), dtype=dtype)
    own = load_model(tmp_path / "own", dtype=dtype)
    assert own.mps2s is not None
    assert all(in_file(weight, "mps2s.safetensors") for weight in own.mps2s.parameters())
    other = torch.bfloat16 if dtype == torch.float32 else torch.float32
    converted = load_model(tmp_path / "own", dtype=other)
    assert {weight.dtype for weight in converted.dfvqgan.parameters()} == {other}
    assert not in_file(converted.dfvqgan.last_layer, "dfvqgan.safetensors")
