"""Checkpoints give their tensors, and nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.disk.checkpoints import read_checkpoint
from nuwa_lip.errors import InputError


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    return OrderedDict(
        plain=torch.randn(3, 2),
        turned=base.T,
        part=base[1:, 2],
        half=torch.randn(5).half(),
        narrow=torch.randn(5).bfloat16(),
        whole=torch.arange(4),
        yes=torch.tensor([True, False]),
        empty=torch.empty(0, 3),
        scalar=torch.tensor(2.5),
        weight=torch.nn.Parameter(torch.randn(2)),
    )


@pytest.mark.parametrize("protocol", [2, 4])
def test_every_kind_of_tensor_comes_back(tmp_path: Path, protocol: int) -> None:
    wanted = state()
    noise = {"epoch": 3, "lr": [1e-4, None, (True,)], "names": {"a": "b"}, "set": {1, 2}, "path": Path("x")}
    content = noise | {"optimizer_states": [{"state": {0: {"step": torch.zeros(1)}}}], "state_dict": wanted}
    torch.save(content, tmp_path / "model.ckpt", pickle_protocol=protocol)
    found = read_checkpoint(tmp_path / "model.ckpt")
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_nothing_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"state_dict": state(), "callbacks": {Evil: Evil(trace)}}, tmp_path / "model.ckpt")
    assert len(read_checkpoint(tmp_path / "model.ckpt")) == len(state())
    assert not trace.exists()


def rewritten(path: Path, change: dict[str, bytes], **options: Any) -> Path:
    """A checkpoint with some of its files replaced."""
    other = path.with_name("other.ckpt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.split("/", 1)[1], old.read(name)))
    return other


def test_what_is_damaged_is_one_line(tmp_path: Path) -> None:
    good = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.ones(4, 4)}}, good)
    torch.save({"epoch": 3}, tmp_path / "bare.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"a": 1}))
    endless = pickle.dumps({"a": 1})[:-1]
    cases = {
        "compressed": rewritten(good, {}, compression=zipfile.ZIP_DEFLATED),
    }
    for what, path in cases.items():
        with pytest.raises(InputError, match=what):
            read_checkpoint(path)
    for change in ({"data/0": b"\0" * 8}, {"data.pkl": endless}, {"data.pkl": b"\x80\x02R."}, {"data.pkl": b"R"}):
        with pytest.raises(InputError, match="cannot be read as a checkpoint") as error:
            read_checkpoint(rewritten(good, change))
        assert "\n" not in str(error.value)
    for name in ("bare.ckpt", "old.ckpt", "missing.ckpt"):
        with pytest.raises(InputError, match=name):
            read_checkpoint(tmp_path / name)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.ones(4, 4)}, path)
    with zipfile.ZipFile(path) as archive:
        name = next(one for one in archive.namelist() if one.endswith("data.pkl"))
        content = archive.read(name)
    small, large = b"K\x04K\x04", b"K\x04K\xff"
    assert small in content
    with pytest.raises(InputError, match="in a storage of 16"):
        read_checkpoint(rewritten(path, {"data.pkl": content.replace(small, large, 1)}))
