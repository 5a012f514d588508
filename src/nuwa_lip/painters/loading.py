"""Finds a painter by its name: a model of ours, a pipeline of diffusers' layout, or a graph of ONNX.

Models are taken from folders and from the hub's cache; nothing is fetched here. `nuwa-lip pull NAME` does that.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nuwa_lip import hub
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.fast.quantise import quantise
from nuwa_lip.painters.diffusion import load_diffusion
from nuwa_lip.painters.eraser import load_eraser
from nuwa_lip.painters.folders import INDEX, silence
from nuwa_lip.painters.known import Known, find_known
from nuwa_lip.painters.nuwa_lip import NuwaLip
from nuwa_lip.painters.painter import Painter
from nuwa_lip.painters.token_folder import is_token_folder, load_masked_token

GRAPH = ".onnx"
OWN = "config.json"
"""A model of ours has it at its top, those of diffusers in their parts; exported for diffusers, ours has both files."""


def load_painter(name: str | Path, dtype: torch.dtype | None = None, weights: str | None = None) -> Painter:
    """Load a painter.

    Args:
        name: bundled name, one of `known.KNOWN`, folder, ONNX file, or hub id.
        dtype: precision of the weights; None: float32.
        weights: form of NÜWA-LIP's weights for decoding (`nuwa_lip.fast.quantise`).

    Raises:
        InputError: there is none of this name, a part of it is missing, or it takes no such dtype or weights.
    """
    place = locate(name) or hub.resolve(name)
    if place.suffix != GRAPH and not ((place / INDEX).is_file() and not (place / OWN).is_file()):
        return _ours(place, dtype, weights)
    if weights is not None:
        raise InputError(f"weights is {weights!r}, which only a NÜWA-LIP's can be, not {name}'s: leave it out")
    if place.suffix == GRAPH:
        with reading(name, "erase"):
            return load_eraser(place, dtype or torch.float32)
    with reading(name, "painters"):
        return _diffusers(place, dtype or torch.float32, find_known(str(name)))


def locate(name: str | Path) -> Path | None:
    """Find the folder or file of another's model; None: the name can only be of one of ours.

    Raises:
        InputError: it is a known model that is not in the hub's cache, or a folder with several graphs.
    """
    path, known = Path(name), find_known(str(name))
    if path.suffix == GRAPH and path.is_file():
        return path
    if path.is_dir():
        if (path / OWN).is_file():
            return None
        if (path / INDEX).is_file():
            return path
        graphs = sorted(path.glob(f"*{GRAPH}"))
        if len(graphs) > 1:
            raise InputError(f"{path} holds {len(graphs)} graphs, {graphs[0].name} and others: name the file itself")
        return graphs[0] if graphs else None
    repository, file = (known.id, known.file or INDEX) if known else (str(name), INDEX)
    found = hub.cached(repository, file) if re.fullmatch(hub.HUB_ID, repository) else None
    if found is None and known is not None:
        raise InputError(
            f"{name} is not in the hub's cache: fetch it by 'nuwa-lip pull {repository}' ({known.size}, licence: "
            f"{known.licence}), or give a folder that holds it"
        )
    return found if found is None or file != INDEX else found.parent


@contextmanager
def reading(name: str | Path, extra: str) -> Iterator[None]:
    """Turn what libraries raise while a model is loaded into one line.

    Args:
        name: the model's.
        extra: of this package, which installs the libraries.

    Raises:
        InputError: a library or a part of the model is missing, or something is of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{name} needs {error.name or first_line(error)}: pip install 'nuwa-lip[{extra}]'") from error
    except Exception as error:  # of many libraries: a file is missing, torn, or of another network
        raise InputError(f"{name} cannot be loaded: {type(error).__name__}: {first_line(error)}") from error


def _diffusers(folder: Path, dtype: torch.dtype, known: Known | None) -> Painter:
    """Load a folder of diffusers' layout: by defect-free tokens if it has tokens, as diffusers does otherwise."""
    silence()
    if is_token_folder(folder):
        return load_masked_token(folder, dtype)
    return load_diffusion(folder, dtype, known and known.steps, known and known.guidance)


def _ours(folder: Path, dtype: torch.dtype | None, weights: str | None) -> NuwaLip:
    parts = hub.load_model(folder, dtype=dtype or torch.float32)
    if parts.mps2s is None or parts.tokenizer is None:
        raise InputError(f"{folder} holds a DF-VQGAN only (stage 1)")
    if weights is not None:
        quantise(parts.mps2s, weights)
    return NuwaLip(parts.dfvqgan, parts.mps2s, parts.tokenizer, parts.sampling, parts.card)
