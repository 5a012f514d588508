"""LaMa (Suvorov et al. 2022) from the TorchScript file that IOPaint publishes and keeps in torch's cache.

The file is a program that torch runs: give only one that you trust.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.baselines.squares import Fill
from nuwa_lip.errors import InputError

URL = "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt"
MULTIPLE = 8
"""Sides of what the network takes are multiples of this."""


def load_lama(path: Path | None = None) -> Fill:
    """Load LaMa as a painter of photos of any size; it reads no caption.

    Args:
        path: the file; None: where IOPaint has put it.

    Raises:
        InputError: the file is missing or no TorchScript.
    """
    path = path or Path(torch.hub.get_dir()) / "checkpoints" / URL.rsplit("/", 1)[1]
    if not path.is_file():
        raise InputError(
            f"{path} is missing: fetch {URL} and save it there (`iopaint download --model lama` does), or give the "
            "file by --baseline-model"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch means to give up TorchScript
            network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path} is damaged or not TorchScript, as {URL} is") from error

    @torch.inference_mode()
    def fill(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
        height, width = mask.shape
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        m = torch.from_numpy(mask)[None, None].float()
        painted: Tensor = network(_complete(x), _complete(m))[0, :, :height, :width]
        return (painted.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    return fill


def _complete(x: Tensor) -> Tensor:
    """Pad to multiples of eight, by repeating the last row and column."""
    down, right = (-side % MULTIPLE for side in x.shape[2:])
    return F.pad(x, (0, right, 0, down), mode="replicate")
