"""Previews: a window of a photo as far as it is painted, exact as the result is, or small for a wire."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from nuwa_lip.images.photo import Patch, Photo
from nuwa_lip.images.pictures import to_bytes
from nuwa_lip.images.windows import Box, put_back

Decode = Callable[[], Tensor]
"""Gives the model's picture so far, float32 [1, 3, S, S] in about [-1, 1], until the next step begins."""
Step = Callable[[int, int, dict[str, Any]], Any]
"""A user's f(step, steps, {"preview": Preview})."""


@dataclass(frozen=True, eq=False)
class Preview:
    """Holds what a picture of an unfinished window is made from; nothing is computed unless asked for."""

    photo: Photo
    window: Box
    mask: np.ndarray
    """bool, the pixels to replace in the window's part inside the photo."""
    decode: Decode

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return the part inside the upright photo: left, top, width and height in pixels."""
        rows, columns = self.window.within(self.photo.size)
        return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start

    def patch(self) -> Patch:
        """Return what would be pasted into the photo now; the colours are not fitted to the hole's edge yet."""
        rgb = put_back(self.decode(), self.window, self.photo.size)
        return Patch(self.window.within(self.photo.size), self.mask, rgb)

    def picture(self) -> Image.Image:
        """Return the upright photo as it would be now; its known pixels are the photo's, to the bit."""
        return self.photo.shown(self.photo.repainted([self.patch()]))

    def small(self, longest: int) -> Image.Image:
        """Return the hole alone, to be laid over `box`: RGBA, transparent wherever a pixel is known.

        Args:
            longest: pixels of its longer side, at most; a smaller window keeps its size.
        """
        left, top, width, height = self.box
        scale = min(1, longest / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        square = to_bytes(((self.decode()[0] + 1) / 2).clamp(0, 1).permute(1, 2, 0).cpu().numpy())
        across, down = square.shape[1] / self.window.width, square.shape[0] / self.window.height
        left, top = left - self.window.left, top - self.window.top
        right, bottom = (left + width) * across, (top + height) * down
        part = (left * across, top * down, min(right, square.shape[1]), min(bottom, square.shape[0]))
        shown = Image.fromarray(square).resize(size, Image.Resampling.BICUBIC, box=part)
        hole = Image.fromarray(np.where(self.mask, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
        shown.putalpha(hole.point(lambda alpha: 255 * (alpha == 255)))
        return shown


@dataclass
class Progress:
    """Counts the steps of one window and hands the user's callback its previews."""

    callback: Step
    photo: Photo
    window: Box
    mask: np.ndarray
    """As for `Preview`."""
    signed: Callable[[Tensor], Tensor]
    """Brings what is decoded to [-1, 1]."""
    squares: int = 0
    """How many steps are to follow the painter's, one for each square of a second pass."""
    steps: int = 0
    """The painter's own, and the squares that are done."""

    def __call__(self, step: int, steps: int, decode: Decode | None = None) -> None:
        """Tell of a painter's step; `decode` gives what it has so far."""
        self.steps = steps
        preview = Preview(self.photo, self.window, self.mask, lambda: self.signed(decode())) if decode else None
        self.callback(step, steps + self.squares, {} if preview is None else {"preview": preview})

    def square(self) -> None:
        """Tell that a square is done."""
        self.steps, self.squares = self.steps + 1, self.squares - 1
        self.callback(self.steps, self.steps + self.squares, {})
