"""Graphs of ONNX that erase what is in the hole, without a caption: MI-GAN and LaMa, by onnxruntime.

Two signatures are known, told apart by the type of the picture:

    uint8     MI-GAN's whole pipeline: mask 0 in the hole and 255 elsewhere → uint8
    float32   LaMa: picture from 0 to 1, mask 1 in the hole and 0 elsewhere → float32, from 0 to 255 or to 1

A graph draws nothing by chance, so that all seeds give the same picture.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.painters.painter import Callback, Needs, Painting, Window, counted
from nuwa_lip.sampling import Sampling

SIDE = 512
"""S where the graph leaves it open, as MI-GAN's does."""
TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class Eraser:
    """Holds a session of onnxruntime.

    Raises:
        InputError: the graph has another signature.
    """

    device = torch.device("cpu")  # of windows; the session computes where its providers do

    def __init__(self, session: Any) -> None:
        self.session = session
        inputs = {("mask" if "mask" in one.name.lower() else "image"): one for one in session.get_inputs()}
        kinds = {one.type for one in inputs.values()}
        if len(session.get_inputs()) != 2 or len(inputs) != 2 or len(kinds) != 1 or not kinds <= set(TYPES):
            found = ", ".join(f"{one.name} {one.type}" for one in session.get_inputs())
            raise InputError(f"the graph takes {found}: an eraser takes an image and a mask, both uint8 or both float")
        self.names = inputs["image"].name, inputs["mask"].name
        self.kind = TYPES[kinds.pop()]
        side = inputs["image"].shape[-1]
        self.needs = Needs(
            resolution=side if isinstance(side, int) else SIDE,
            value_range=(0.0, 1.0),
            hole=0.5,
            options=frozenset({"blend"}),
        )

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Stay: onnxruntime takes a GPU by itself, if it was installed for one."""

    def paint(
        self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Callback | None
    ) -> Painting:
        """Erase once, whatever the seeds.

        Args:
            window, prompt, seeds, sampling, callback: as for `Painter.paint`.

        Raises:
            InputError: the graph gives something else than a square.
        """
        if len(seeds) > 1:
            warnings.warn(f"this model draws nothing by chance: all {len(seeds)} candidates are equal", stacklevel=2)
        image, mask = window.image.numpy(), window.mask.numpy()
        if self.kind == np.uint8:
            given = (image * 255).round().astype(np.uint8), np.where(mask, np.uint8(0), np.uint8(255))
        else:
            given = image, mask.astype(np.float32)
        (painted, *_) = self.session.run(None, dict(zip(self.names, given, strict=True)))
        if painted.shape != image.shape:
            raise InputError(f"the graph gives {list(painted.shape)} for {list(image.shape)}: it is no eraser")
        for _, progress in counted(seeds, callback):
            progress(1, 1)
        square = torch.from_numpy(painted).float() / (255 if _bytes(painted, image, ~mask) else 1)
        return Painting([square.clamp(0, 1)] * len(seeds), torch.zeros(len(seeds)))


def _bytes(painted: np.ndarray, image: np.ndarray, known: np.ndarray) -> bool:
    """Tell whether values go up to 255: then the known pixels, which an eraser gives back, fit better."""
    if painted.dtype == np.uint8:
        return True
    where = np.broadcast_to(known, image.shape)
    as_one, as_bytes = (np.abs(painted - scale * image)[where].sum() / scale for scale in (1, 255))
    return bool(as_bytes <= as_one)


def load_eraser(path: Path, dtype: torch.dtype) -> Eraser:
    """Load a graph.

    Args:
        path: an ONNX file.
        dtype: float32.

    Raises:
        InputError: it is of another signature, or another dtype is asked for.
    """
    import onnxruntime  # type: ignore[import-untyped]

    if dtype != torch.float32:
        raise InputError(f"{path} computes in the types of its own: leave {str(dtype).removeprefix('torch.')} out")
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
    return Eraser(onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers()))
