"""Reads the tensors of a PyTorch checkpoint (.ckpt, .pt, .pth, .bin) without unpickling it.

A pickle is a program that may call any function. Here its instructions are only read: dictionaries, lists, numbers and
tensors are followed, and a call of anything else leaves an inert `Opaque` behind. Nothing is imported, called or
decompressed, so that a hostile file can at worst be refused. Checkpoints are zip files since PyTorch 1.6; older ones
are refused.
"""

import pickletools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nuwa_lip.disk.regular import regular
from nuwa_lip.errors import InputError

MOST_INSTRUCTIONS = 20_000_000
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Opaque:
    """Stands for an object that no tensor needs: its place is kept, and nothing of it is made."""


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle names."""

    name: str


@dataclass(frozen=True)
class Stub:
    """A tensor that has not been read yet."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


@dataclass
class Reader:
    """A machine for the instructions of one pickle that runs nothing."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def above_mark(self) -> list[Any]:
        """Take what stands above the last mark."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def read(self, data: bytes) -> Any:
        """Follow all instructions → what the pickle describes.

        Raises:
            ValueError: it is damaged, or has an instruction that no checkpoint needs.
        """
        value: Any
        for count, (opcode, value, _) in enumerate(pickletools.genops(data)):
            if count > MOST_INSTRUCTIONS:
                raise ValueError("it has too many instructions")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in VALUES:
                self.stack.append(VALUES[name])
            elif name in ACTIONS:
                ACTIONS[name](self, value)
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[value] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[value])
            elif isinstance(value, str | bytes | int | float) and name not in ("PROTO", "FRAME", "GLOBAL"):
                self.stack.append(value)
            elif name == "GLOBAL":
                self.stack.append(Name(value.replace(" ", ".")))
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"it has the instruction {name}")
        raise ValueError("it has no end")


def _call(reader: Reader, _: Any) -> None:
    """Follow a call: a tensor, a parameter or a dictionary; anything else is opaque."""
    arguments, function = reader.stack.pop(), reader.stack.pop()
    made: Any = Opaque()
    if function == Name("torch._utils._rebuild_tensor_v2"):
        made = Stub(*arguments[:4])
    elif function in (Name("torch._utils._rebuild_parameter"), Name("torch._utils._rebuild_parameter_with_state")):
        made = arguments[0]
    elif function == Name("collections.OrderedDict"):
        made = {}
    reader.stack.append(made)


def _set(holder: Any, pairs: list[Any]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if isinstance(holder, dict) and isinstance(key, str | int):
            holder[key] = value


def _extend(holder: Any, values: list[Any]) -> None:
    if isinstance(holder, list):
        holder.extend(values)


def _last(reader: Reader, count: int) -> list[Any]:
    """Take the last values of the stack."""
    if len(reader.stack) < count:
        raise ValueError("its stack is empty")
    taken = reader.stack[len(reader.stack) - count :]
    del reader.stack[len(reader.stack) - count :]
    return taken


def _push_pairs(reader: Reader, _: Any) -> None:
    made: dict[Any, Any] = {}
    _set(made, reader.above_mark())
    reader.stack.append(made)


def _set_many(reader: Reader, _: Any) -> None:
    pairs = reader.above_mark()
    _set(reader.stack[-1], pairs)


def _set_one(reader: Reader, _: Any) -> None:
    pair = _last(reader, 2)
    _set(reader.stack[-1], pair)


def _append_many(reader: Reader, _: Any) -> None:
    values = reader.above_mark()
    _extend(reader.stack[-1], values)


def _append_one(reader: Reader, _: Any) -> None:
    values = _last(reader, 1)
    _extend(reader.stack[-1], values)


def _persistent(reader: Reader, _: Any) -> None:
    reader.stack.append(("persistent", reader.stack.pop()))


def _opaque_of(count: int) -> Callable[[Reader, Any], None]:
    """Make an instruction that replaces values by something opaque."""

    def act(reader: Reader, _: Any) -> None:
        _last(reader, count)
        reader.stack.append(Opaque())

    return act


def _opaque_of_mark(reader: Reader, _: Any) -> None:
    reader.above_mark()
    reader.stack.append(Opaque())


ACTIONS: dict[str, Callable[[Reader, Any], Any]] = {
    "MARK": lambda reader, _: reader.marks.append(len(reader.stack)),
    "POP": lambda reader, _: reader.stack.pop(),
    "POP_MARK": lambda reader, _: reader.above_mark(),
    "DUP": lambda reader, _: reader.stack.append(reader.stack[-1]),
    "MEMOIZE": lambda reader, _: reader.memo.update({len(reader.memo): reader.stack[-1]}),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "EMPTY_SET": lambda reader, _: reader.stack.append(Opaque()),
    "EMPTY_TUPLE": lambda reader, _: reader.stack.append(()),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.above_mark())),
    "TUPLE1": lambda reader, _: reader.stack.append(tuple(_last(reader, 1))),
    "TUPLE2": lambda reader, _: reader.stack.append(tuple(_last(reader, 2))),
    "TUPLE3": lambda reader, _: reader.stack.append(tuple(_last(reader, 3))),
    "LIST": lambda reader, _: reader.stack.append(reader.above_mark()),
    "DICT": _push_pairs,
    "SETITEM": _set_one,
    "SETITEMS": _set_many,
    "APPEND": _append_one,
    "APPENDS": _append_many,
    "ADDITEMS": lambda reader, _: reader.above_mark(),
    "STACK_GLOBAL": lambda reader, _: reader.stack.append(Name(".".join(map(str, _last(reader, 2))))),
    "REDUCE": _call,
    "NEWOBJ": _opaque_of(2),
    "NEWOBJ_EX": _opaque_of(3),
    "OBJ": _opaque_of_mark,
    "INST": _opaque_of_mark,
    "BUILD": lambda reader, _: reader.stack.pop(),  # an object's state; a dictionary has none that counts
    "BINPERSID": _persistent,
}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint's largest dictionary of them, as `state_dict` or `model` is.

    Raises:
        InputError: it is damaged, of a kind that is not read, or holds no tensors by name.
    """
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                raise ValueError("it has no data.pkl")
            root = pickles[0].removesuffix("data.pkl")
            content = Reader().read(_stored(archive, pickles[0]))
            found = max(_dictionaries(content), key=len, default={})
            if not found:
                raise ValueError("it holds no tensors by name")
            return {name: _tensor(archive, root, stub) for name, stub in found.items()}
    except Exception as error:  # what a damaged or hostile file raises may be anything
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} cannot be read as a checkpoint of PyTorch: {why}") from error


def _dictionaries(content: Any) -> Iterator[dict[str, Stub]]:
    """Find the tensors by name of every dictionary in what a pickle describes."""
    waiting, seen = [content], set()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one
        if isinstance(one, dict):
            yield {name: value for name, value in one.items() if isinstance(name, str) and isinstance(value, Stub)}


def _stored(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    """Read a file of the archive; PyTorch compresses none, and a compressed one could be of any size."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    if size is not None and entry.file_size != size:
        raise ValueError(f"{name} has {entry.file_size} bytes, not {size}")
    return archive.read(name)


def _tensor(archive: zipfile.ZipFile, root: str, stub: Stub) -> Tensor:
    _, (kind, storage, key, _, numel) = stub.storage
    dtype = STORAGES[storage.name.removeprefix("torch.")]
    last = stub.offset + sum((n - 1) * step for n, step in zip(stub.size, stub.stride, strict=True))
    if kind != "storage" or "/" in key or min((*stub.size, *stub.stride, stub.offset), default=0) < 0:
        raise ValueError("a tensor is described wrongly")
    if 0 in stub.size:
        return torch.empty(stub.size, dtype=dtype)
    if last >= numel or torch.Size(stub.size).numel() > numel:
        raise ValueError(f"a tensor of shape {list(stub.size)} stands in a storage of {numel}")
    content = bytearray(_stored(archive, f"{root}data/{key}", numel * dtype.itemsize))
    return torch.frombuffer(content, dtype=dtype).as_strided(stub.size, stub.stride, stub.offset)
