"""The layout of the official MaskCOCO, MaskFlickr and MaskVG zips, and the project's only reader of pickles.

    gt/NNNN.png  mask/NNNN.pkl  mask_img/NNNN.png  guidance/NNNN.txt     (all of it perhaps below eval_visu/)

The zips can no longer be downloaded, so the reader follows the official loading code. The files of one photo share
their name without the ending. The mask is a pickled tensor [H, W] of any type, nonzero = to repaint (leading sizes
of 1 are dropped), or a picture NNNN.mask.png or NNNN.png, white = to repaint, as in the official CustomDataset. The
caption is the first line of the guidance that is not empty. mask_img/ holds the photo with its hole painted over; it
adds nothing to photo and mask, and is not read.

A pickle is a program. `TensorUnpickler` lets it name only the three functions that make up a tensor, and refuses
any other name before importing or running it.
"""

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nuwa_lip.disk import lines_of, read_text, regular
from nuwa_lip.errors import InputError

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")
MASK_SUFFIXES = (".pkl", ".mask.png", ".png")
FOLDERS = ("gt", "mask", "guidance")


class OfficialItem(NamedTuple):
    """One photo to repaint, not opened yet."""

    name: str
    photo: Path
    mask: Path
    caption: str


class Refused(InputError):
    """Raised where a pickle names a forbidden function; the reader adds the name of the file."""


def _load_storage(content: bytes) -> Any:
    """Load the numbers of a pickled tensor: a pickle again, which torch's own restricted reader opens."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _rebuild(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> torch.Tensor:
    """Rebuild a tensor by torch's own function, but refuse sizes beyond the storage: a few bytes could claim them."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    room = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if max(last + 1, math.prod(size)) > room:
        raise ValueError(f"a tensor of shape {list(size)} in a storage of {room}")
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, *rest)


class TensorUnpickler(pickle.Unpickler):
    """Unpickles a tensor, as `pickle.dump(tensor, file)` writes it, and nothing else."""

    ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        ("torch.storage", "_load_from_bytes"): _load_storage,
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Give the function of this name, if a pickle may call it.

        Raises:
            Refused: the name is not on the list.
        """
        if (module, name) not in self.ALLOWED:
            raise Refused(f"{module}.{name}")
        return self.ALLOWED[module, name]


def read_mask_pickle(path: Path) -> np.ndarray:
    """Read a pickled tensor as a mask, bool [H, W], True (nonzero) = to repaint.

    Raises:
        InputError: the file is missing or damaged, is not a tensor [H, W], or names what is not part of a tensor.
    """
    try:
        with open(regular(path), "rb") as file:
            mask = TensorUnpickler(file).load()
        if not isinstance(mask, torch.Tensor):
            raise InputError(f"{path} holds {type(mask).__name__}, not a tensor; save the mask with PNG")
        while mask.ndim > 2 and mask.shape[0] == 1:
            mask = mask[0]
        if mask.ndim != 2:
            raise InputError(f"{path} is a tensor of shape {list(mask.shape)}; a mask is [height, width]")
        return np.asarray(mask.detach() != 0)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except Refused as error:
        raise InputError(f"{path} is refused: its pickle asks for {error}, which no mask needs") from None
    except InputError:
        raise
    except Exception as error:  # what a damaged or hostile pickle raises may be anything
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} is no pickled tensor: {why}") from error


def is_official(folder: Path) -> bool:
    """Tell whether a folder has the official layout."""
    return (_root(folder) / "gt").is_dir()


def list_official(folder: Path) -> list[OfficialItem]:
    """List the photos, sorted by name.

    Raises:
        InputError: a folder, mask or guidance is missing, or a mask or guidance belongs to no photo.
    """
    root = _root(folder)
    for name in FOLDERS:
        if not (root / name).is_dir():
            raise InputError(f"{root} has the official layout but no folder {name}/; unpack the zip again")
    photos = _by_stem(root / "gt", PHOTO_SUFFIXES)
    masks, texts = _by_stem(root / "mask", MASK_SUFFIXES), _by_stem(root / "guidance", (".txt",))
    if not photos:
        raise InputError(f"{root / 'gt'} holds no photo")
    for part, ending in ((masks, "mask/{}.pkl"), (texts, "guidance/{}.txt")):
        if lost := photos.keys() - part.keys():
            raise InputError(f"{root / ending.format(min(lost))} is missing; unpack the zip again")
        if lost := part.keys() - photos.keys():
            raise InputError(f"{part[min(lost)]} belongs to no photo in {root / 'gt'}; remove it or add the photo")
    return [OfficialItem(name, photos[name], masks[name], _first_line(texts[name])) for name in sorted(photos)]


def _root(folder: Path) -> Path:
    return folder / "eval_visu" if (folder / "eval_visu").is_dir() else folder


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Find files by their name without the ending; of two with one name, the ending listed first wins."""
    found: dict[str, Path] = {}
    files = sorted(folder.iterdir())
    for suffix in suffixes:
        for path in files:
            stem = path.name[: -len(suffix)]
            if path.name.lower().endswith(suffix) and not stem.endswith(".mask"):
                found.setdefault(stem, path)
    return found


def _first_line(path: Path) -> str:
    lines = lines_of(read_text(path, errors="replace"))
    return lines[0].strip() if lines else ""
