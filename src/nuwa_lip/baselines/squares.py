"""From models that paint a square to repainted photos: the pipeline's windows, and known pixels put back exactly.

Every model sees the same view of a photo: a window around the hole, reduced from known pixels only, grey in the hole.

Legend: H W photo, S side of the model's square.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.data.benchmark import BenchmarkItem
from nuwa_lip.images.photo import as_photo
from nuwa_lip.images.windows import look, share_windows, window_seed

GREY = 128
"""What fills the hole."""

Fill = Callable[[np.ndarray, np.ndarray, str, int], np.ndarray]
"""(photo uint8 [S, S, 3], grey in the hole; mask bool [S, S]; caption; seed) → uint8 [S, S, 3]; known pixels free."""


class Painter(NamedTuple):
    """A model that paints a square."""

    fill: Fill
    side: int
    """S in pixels."""


def by_windows(painter: Painter, seed: int = 0) -> Repaint:
    """Repaint photos with a painter of squares; photo i gets the seed `seed` + i."""

    def repaint(item: BenchmarkItem) -> np.ndarray:
        photo, out = as_photo(item.image), item.image.copy()
        for number, (window, hole) in enumerate(share_windows(item.mask, painter.side)):
            view = look(photo, item.mask, window, painter.side)
            square = (view.image * 255).round().astype(np.uint8)
            square[view.mask] = GREY
            painted = painter.fill(square, view.mask, item.caption, window_seed(seed + item.index, number))
            enlarged = Image.fromarray(painted).resize((window.width, window.height), Image.Resampling.BICUBIC)
            rows, columns = window.within(photo.size)
            inside = np.asarray(enlarged)[rows.start - window.top :, columns.start - window.left :]
            inside = inside[: rows.stop - rows.start, : columns.stop - columns.start]
            out[rows, columns][hole] = inside[hole]
        return out

    return repaint


def by_photo(fill: Fill, seed: int = 0) -> Repaint:
    """Repaint photos with a model that takes any size [H, W]; photo i gets the seed `seed` + i."""

    def repaint(item: BenchmarkItem) -> np.ndarray:
        blank = np.where(item.mask[..., None], np.uint8(GREY), item.image)
        painted = fill(blank, item.mask, item.caption, seed + item.index)
        return np.where(item.mask[..., None], painted, item.image)

    return repaint


def fastest() -> torch.device:
    """Choose where other people's models compute: on a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_square(image: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor]:
    """Convert uint8 [S, S, 3], bool [S, S] to float32 [1, 3, S, S] in [-1, 1], zero in the hole, bool [1, 1, S, S]."""
    m = torch.from_numpy(mask)[None, None]
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    return x.masked_fill(m, 0), m


def from_square(image: Tensor) -> np.ndarray:
    """Convert float [1, 3, S, S] in [-1, 1] to uint8 [S, S, 3]."""
    pixels = ((image[0].float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return pixels.permute(1, 2, 0).cpu().numpy()
