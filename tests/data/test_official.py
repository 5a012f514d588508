"""The official layout is read as a benchmark, and its pickles can do nothing but be tensors."""

import io
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.data.benchmark import read_benchmark, verify_benchmark
from nuwa_lip.data.official import read_mask_pickle
from nuwa_lip.errors import InputError

TOUCHED: list[str] = []
"""What a malicious pickle has done."""


def touch(name: str) -> str:
    TOUCHED.append(name)
    return name


class Call:
    """Pickled, it is a call of any function."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hole(i: int) -> np.ndarray:
    mask = np.zeros((24, 32), dtype=bool)
    mask[4 : 14 + i, 8:20] = True
    return mask


def _stored(tensor: torch.Tensor) -> bytes:
    """The inner pickle of a tensor's pickle."""
    operations = pickletools.genops(pickle.dumps(tensor))
    return next(argument for operation, argument, _ in operations if operation.name == "BINBYTES")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos as the official zips have them: masks as int32 tensors of [H, W]."""
    root = tmp_path / "MaskCOCO"
    for name in ("gt", "mask", "mask_img", "guidance"):
        (root / "eval_visu" / name).mkdir(parents=True)
    for i in range(2):
        photo, name = np.full((24, 32, 3), 40 * i, np.uint8), f"{i:04d}"
        Image.fromarray(photo).save(root / "eval_visu" / "gt" / f"{name}.png")
        Image.fromarray(photo * ~hole(i)[..., None]).save(root / "eval_visu" / "mask_img" / f"{name}.png")
        (root / "eval_visu" / "guidance" / f"{name}.txt").write_text(f"a café, number {i}\n", encoding="utf-8")
        with open(root / "eval_visu" / "mask" / f"{name}.pkl", "wb") as file:
            pickle.dump(torch.from_numpy(hole(i)).int(), file)
    return root


def test_reads_as_a_benchmark(folder: Path) -> None:
    benchmark = read_benchmark(folder)
    assert len(benchmark) == 2 and benchmark.captions == ("a café, number 0", "a café, number 1")
    for i, item in enumerate(benchmark):
        assert (item.index, item.name, item.caption) == (i, f"000{i}", benchmark.captions[i])
        assert (item.image == 40 * i).all()
        np.testing.assert_array_equal(item.mask, hole(i))
    assert len(benchmark.sha256) == 64 and benchmark.sha256 == read_benchmark(folder / "eval_visu").sha256
    (folder / "eval_visu" / "guidance" / "0001.txt").write_text("another")
    assert read_benchmark(folder).sha256 != benchmark.sha256
    with pytest.raises(InputError, match="no hashes to check"):
        verify_benchmark(benchmark)
    (folder / "eval_visu" / "guidance" / "0001.txt").write_text("\n a red\u2028house\x85 by\nmore", encoding="utf-8")
    assert read_benchmark(folder).captions[1] == "a red\u2028house\x85 by"


def test_reads_masks_as_pictures(folder: Path) -> None:
    for i, ending in enumerate((".mask.png", ".png")):
        Image.fromarray(hole(i)).save(folder / "eval_visu" / "mask" / f"000{i}{ending}")
        (folder / "eval_visu" / "mask" / f"000{i}.pkl").unlink()
    np.testing.assert_array_equal([item.mask for item in read_benchmark(folder)], [hole(0), hole(1)])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_tensors_of_any_type(tmp_path: Path, dtype: torch.dtype, protocol: int) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(torch.from_numpy(hole(0)).to(dtype)[None], protocol))
    np.testing.assert_array_equal(read_mask_pickle(path), hole(0))


def test_views_are_read_and_bombs_are_not(tmp_path: Path) -> None:
    path, whole = tmp_path / "m.pkl", torch.from_numpy(hole(0))
    path.write_bytes(pickle.dumps(whole.T[3:30:2, 2:]))
    np.testing.assert_array_equal(read_mask_pickle(path), hole(0).T[3:30:2, 2:])
    storage = Call(torch.storage._load_from_bytes, _stored(whole))
    for size, stride in (((10**5, 10**5), (0, 0)), ((10**5, 10**5), (10**5, 1)), ((25, 32), (32, 1))):
        call = Call(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, OrderedDict())
        path.write_bytes(pickle.dumps(call))
        with pytest.raises(InputError, match="in a storage of 768"):
            read_mask_pickle(path)


@pytest.mark.parametrize(
    "content, named",
    [
        (Call(touch, "outer"), "touch"),
        ([torch.zeros(2, 2), Call(touch, "hidden")], "touch"),
        (Call(eval, "1"), "builtins.eval"),
        (Call(torch.load, "x"), "torch.serialization.load"),
        (np.zeros((2, 2)), "numpy"),
        (torch.nn.Parameter(torch.zeros(2, 2)), "torch._utils._rebuild_parameter"),
    ],
)
def test_a_malicious_pickle_is_refused_by_name(tmp_path: Path, content: object, named: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=f"m.pkl is refused: its pickle asks for .*{named}") as caught:
        read_mask_pickle(path)
    assert not TOUCHED and "\n" not in str(caught.value)


def test_a_malicious_storage_within_a_tensor_is_not_run(tmp_path: Path) -> None:
    """The outer pickle names nothing but the list; what its tensor is made of is another pickle."""
    inner = io.BytesIO()
    torch.save(Call(touch, "inner"), inner, _use_new_zipfile_serialization=False)
    modern = io.BytesIO()
    torch.save(Call(touch, "inner"), modern)
    path = tmp_path / "m.pkl"
    for payload in (inner.getvalue(), modern.getvalue(), pickle.dumps(Call(touch, "inner"), 2)):
        storage = Call(torch.storage._load_from_bytes, payload)
        arguments = (storage, 0, (2, 2), (2, 1), False, OrderedDict())
        path.write_bytes(pickle.dumps(Call(torch._utils._rebuild_tensor_v2, *arguments)))
        named = {arg for op, arg, _ in pickletools.genops(path.read_bytes()) if "UNICODE" in op.name}
        assert "touch" not in named
        with pytest.raises(InputError, match="m.pkl is no pickled tensor") as caught:
            read_mask_pickle(path)
        assert not TOUCHED and "\n" not in str(caught.value)
    pickle.loads(pickle.dumps(Call(touch, "proof")))  # the trap does work
    assert TOUCHED.pop() == "proof"


@pytest.mark.parametrize(
    "content, says",
    [
        (pickle.dumps({"mask": 1})[:-3], "no pickled tensor"),
        (b"", "no pickled tensor"),
        (b"\x89PNG\r\n", "no pickled tensor"),
        (pickle.dumps([1, 2]), "holds list, not a tensor"),
        (pickle.dumps(torch.zeros(3, 4, 4)), r"shape \[3, 4, 4\]"),
    ],
)
def test_damaged_pickles_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises(InputError, match=f"m.pkl.*{says}") as caught:
        read_mask_pickle(tmp_path / "m.pkl")
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_left_over_is_named(folder: Path) -> None:
    root = folder / "eval_visu"
    (root / "guidance" / "0007.txt").write_text("of no photo")
    with pytest.raises(InputError, match="0007.txt belongs to no photo"):
        read_benchmark(folder)
    (root / "guidance" / "0007.txt").unlink()
    with open(root / "mask" / "0001.pkl", "wb") as file:
        pickle.dump(torch.ones(5, 6), file)
    with pytest.raises(InputError, match="0001.pkl is 6x5; its photo is 32x24"):
        read_benchmark(folder)[1]
    (root / "mask" / "0001.pkl").unlink()
    with pytest.raises(InputError, match="mask/0001.pkl is missing"):
        read_benchmark(folder)
    for path in (root / "guidance").iterdir():
        path.unlink()
    (root / "guidance").rmdir()
    with pytest.raises(InputError, match="no folder guidance/"):
        read_benchmark(folder)
