"""A token cache on disk: a folder of parts, one for each shard of the data.

    tokens.json      the recipe that made it, hashes of the image tokenizer and of each shard, photos of each part
    dfvqgan/         the model folder of the image tokenizer
    000000/          the first part
        images.npy       uint8 [N, 3, S, S], complete; N = photos x variants, a photo's variants in a row
        masks.npy        uint8 [N, S * S / 8], the holes as bits
        tokens.npy       int32 [N, h, w]: ζ^x where known, the targets ζ^y where defective
        whole.npy        int32 [N, h, w]: ζ^y everywhere, the targets if all of the photo is hidden
        captions.npy     uint8, each photo's captions as JSON in UTF-8
        ends.npy         int64 [photos], where each photo's captions end
        part.json        what tokens.json says of this part
    000001/          ...

A variant is another crop and another hole of the same photo. A cache of version 2 is one part without a folder of its
own, whose captions are in tokens.json.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from nuwa_lip.disk import clean, from_json, parse_json, read_text, regular
from nuwa_lip.disk.fields import Bounds, check_bounds
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.hub import load_model
from nuwa_lip.models import DFVQGAN

FORMAT_VERSION = 3
ARRAYS = ("images", "masks", "tokens", "whole")
BOUNDS: Bounds = {"resolution": (1, 2**16), "grid": (1, 2**10), "codebook_size": (1, 2**24), "variants": (1, 10**6)}
DTYPES = {np.dtype(kind): found for kind, found in (("u1", torch.uint8), ("<i4", torch.int32), ("<i8", torch.int64))}


@dataclass(frozen=True, kw_only=True)
class About:
    """What tokens.json says of the arrays beside it."""

    resolution: int
    grid: tuple[int, int]
    codebook_size: int
    variants: int

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        if self.resolution % self.grid[0]:
            raise InputError(f"resolution {self.resolution} is not a multiple of grid {self.grid}")


@dataclass(frozen=True, kw_only=True)
class PartAbout:
    """What tokens.json says of a part."""

    shard: str
    """Name of the shard that it was made of."""
    sha256: str | None
    """Hash of that file; None for one that was fetched from elsewhere."""
    photos: int
    skipped: dict[str, Any]
    """What could not be read, as `vars` of a `Skipped`."""


@dataclass(frozen=True)
class RowFile:
    """A .npy file whose rows are read one by one.

    Memory stays flat and no file is held open, however many there are: of memory maps every page that was read would
    count, and so would each file.
    """

    path: Path
    start: int
    """Where the first row begins, in bytes."""
    shape: tuple[int, ...]
    kind: np.dtype[Any]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows as tensors."""
        return DTYPES[self.kind]

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, rows: Sequence[int]) -> Tensor:
        """Read some rows.

        Raises:
            InputError: the file has become shorter.
        """
        found = np.empty((len(rows), *self.shape[1:]), self.kind)
        size = found.nbytes // max(1, len(rows))
        with self.path.open("rb", buffering=0) as file:
            for row, place in zip(rows, found.reshape(len(rows), -1).view(np.uint8), strict=True):
                file.seek(self.start + row * size)
                if file.readinto(place.data) != size:
                    raise InputError(f"{self.path} is cut off: the token cache is damaged, make it anew")
        return torch.from_numpy(found)

    def all(self) -> Tensor:
        """Read all rows."""
        content = np.fromfile(self.path, self.kind, int(np.prod(self.shape)), offset=self.start)
        return torch.from_numpy(content.reshape(self.shape))


class Captions(Sequence[list[str]]):
    """Captions of the photos of a part, read when they are needed.

    Args:
        text: uint8, each photo's captions as JSON, one after another.
        ends: int64 [photos].
    """

    def __init__(self, text: RowFile, ends: RowFile) -> None:
        self.text, self.ends = text, ends

    @overload
    def __getitem__(self, photo: int) -> list[str]: ...

    @overload
    def __getitem__(self, photo: slice) -> list[list[str]]: ...

    def __getitem__(self, photo: int | slice) -> list[str] | list[list[str]]:
        """Give the captions of a photo or of several, without what a terminal or a page would not show."""
        if isinstance(photo, slice):
            text, ends = self.text.all().numpy(), [0, *self.ends.all().tolist()]
            return [_texts(text[ends[i] : ends[i + 1]].tobytes()) for i in range(*photo.indices(len(self)))]
        if not 0 <= photo < len(self):
            raise IndexError(photo)
        start, end = [0, *self.ends.rows(range(max(0, photo - 1), photo + 1)).tolist()][-2:]
        return _texts(self.text.rows(range(start, end)).numpy().tobytes())

    def __len__(self) -> int:
        return len(self.ends)


def _texts(content: bytes) -> list[str]:
    return [clean(str(text)) for text in json.loads(content)]


@dataclass(frozen=True)
class Part:
    """Arrays of a part on disk, or of a whole cache in memory."""

    images: Tensor | RowFile
    masks: Tensor | RowFile
    tokens: Tensor | RowFile
    whole: Tensor | RowFile
    captions: Sequence[list[str]]
    """Of each photo, N / variants of them."""

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, name: str, rows: Sequence[int]) -> Tensor:
        """Give some rows of an array."""
        array: Tensor | RowFile = getattr(self, name)
        return array.rows(rows) if isinstance(array, RowFile) else array[torch.tensor(rows, device=array.device)]

    def array(self, name: str) -> Tensor:
        """Give an array as a whole, read from disk if need be."""
        array: Tensor | RowFile = getattr(self, name)
        return array.all() if isinstance(array, RowFile) else array


def read_about(folder: Path) -> tuple[About, dict[str, Any]]:
    """Read tokens.json → its checked fields, and all of them.

    Raises:
        InputError: it is missing, damaged, or of another version.
    """
    path = folder / "tokens.json"
    if not path.is_file():
        if unfinished := next(iter(unfinished_of(folder)), None):
            raise InputError(f"{unfinished} is not finished: run the same nuwa-lip tokenize again, which goes on")
        raise InputError(f"{folder} is not a token cache (it has no tokens.json): make one with nuwa-lip tokenize")
    damaged = f"{folder} is a damaged token cache: {path.name}"
    try:
        content = parse_json(read_text(path))
        version = int(content["format_version"])
        fields = [field.name for field in dataclasses.fields(About)]
        fields += ["captions"] if version == 2 else ["tokenizer", "parts"]
        missing = [name for name in fields if name not in content]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{damaged}: {error}") from error
    if version > FORMAT_VERSION:
        raise InputError(f"{folder} is a token cache of version {version}: update nuwa-lip")
    if version < 2:
        raise InputError(f"{folder} is a token cache of version {version}: make it anew with nuwa-lip tokenize")
    if missing:
        raise InputError(f"{damaged} has no {missing[0]}")
    known = {field.name: content[field.name] for field in dataclasses.fields(About)}
    return from_json(About, known, damaged), content


def unfinished_of(folder: Path) -> list[Path]:
    """Find the folders in which a cache of this name is being made."""
    form = f"{folder.name}.unfinished-"
    try:
        return sorted(path for path in folder.absolute().parent.iterdir() if path.name.startswith(form))
    except OSError:
        return []


def open_parts(folder: Path, about: About, content: dict[str, Any]) -> tuple[Part, ...]:
    """Open the parts of a cache.

    Args:
        folder: of the cache.
        about: checked fields of its tokens.json.
        content: all fields.

    Raises:
        InputError: a file is missing, or of another shape or type than tokens.json tells.
    """
    damaged = f"{folder} is a damaged token cache: tokens.json"
    if "captions" in content:
        texts = from_json(_Texts, {"captions": content["captions"]}, damaged).captions
        return (_open_part(folder, folder, about, [[clean(text) for text in of_photo] for of_photo in texts]),)
    parts = from_json(_Parts, {"parts": content["parts"]}, damaged).parts
    told = [from_json(PartAbout, part, damaged) for part in parts]
    return tuple(
        _open_part(folder, folder / part_name(number), about, part.photos)
        for number, part in enumerate(told)
        if part.photos
    )


@dataclass(frozen=True, kw_only=True)
class _Texts:
    captions: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    parts: list[dict[str, Any]]


def _open_part(cache: Path, folder: Path, about: About, captions: list[list[str]] | int) -> Part:
    """Open one part, and check its shapes; `captions` may be the number of photos."""
    arrays = {name: _open_array(cache, folder / f"{name}.npy") for name in ARRAYS}
    photos = captions if isinstance(captions, int) else len(captions)
    texts: Sequence[list[str]]
    if isinstance(captions, int):
        texts = Captions(*(_open_array(cache, folder / f"{name}.npy") for name in ("captions", "ends")))
    else:
        texts = captions
    if len(texts) != photos or any(len(array) != photos * about.variants for array in arrays.values()):
        raise InputError(
            f"{cache} is a damaged token cache: its files do not hold {photos} x {about.variants} rows ({folder.name})"
        )
    size = about.resolution
    rows = {"images": (3, size, size), "masks": (-(-size * size // 8),), "tokens": about.grid, "whole": about.grid}
    for name, array in arrays.items():
        dtype = torch.uint8 if name in ("images", "masks") else torch.int32
        if array.dtype != dtype or array.shape[1:] != rows[name]:
            found = f"{array.dtype} {[*array.shape[1:]]} a row, not {dtype} {[*rows[name]]}"
            raise InputError(f"{cache} is a damaged token cache: {name}.npy has {found}")
    return Part(**arrays, captions=texts)


def part_name(number: int) -> str:
    """Name the folder of a part."""
    return f"{number:06d}"


def _open_array(cache: Path, path: Path) -> RowFile:
    """Read the head of a .npy file, and check that the file is as long as it says."""
    try:
        with open(regular(path), "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, kind = read(file)
            start = file.tell()
        if kind not in DTYPES or columns_first or not shape:
            raise ValueError(f"it holds {kind}")
        if start + int(np.prod(shape)) * kind.itemsize > path.stat().st_size:
            raise ValueError("it is cut off")
        return RowFile(path, start, tuple(shape), kind)
    except (OSError, EOFError, ValueError, TypeError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else first_line(error)
        place = path.relative_to(cache)
        raise InputError(f"{cache} is a damaged token cache: {place}: {reason}") from error


def tokenizer_of(folder: Path) -> str:
    """Read the hash of the image tokenizer that lies in a cache.

    Raises:
        InputError: it is missing or damaged.
    """
    return hash_of(load_model(folder / "dfvqgan", need_mps2s=False).dfvqgan)


def hash_of(model: DFVQGAN) -> str:
    """Compute the SHA-256 of an image tokenizer: of its configuration, and of its weights however they are split."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def pack_captions(captions: Sequence[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Turn captions into what `Captions` reads: uint8, and int64 [photos]."""
    # a text may hold halves of surrogate pairs, which JSON writes as numbers
    texts = [json.dumps(of_photo).encode() for of_photo in captions]
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(text) for text in texts], dtype=np.int64)
