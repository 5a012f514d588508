"""The second pass: a large hole, painted at the model's size and enlarged, is painted anew in squares of finer scale.

A square sees the known pixels at its own scale, the squares before it as known ones, and, in the rest of the hole, the
first painting (`models.perspectives.Coarse`), whose colours it keeps. A very large hole takes several passes, each
`FINER` times as fine as the last, down to the photo's own scale or as far as a given number of squares goes: the cost
is linear in the hole's area, and bounded. As GLIDE's enlarging step, but by the same network as the first pass.

Legend: S side of the model's square, s pixels of the photo under one of a square, h w size of a window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.images.photo import Photo
from nuwa_lip.images.preview import Progress
from nuwa_lip.images.windows import Box, look, put_back, window_seed
from nuwa_lip.sampling import Sampling

if TYPE_CHECKING:
    from nuwa_lip.painters.painter import Painter

SOFT = 1.5
"""Times that a painting may be enlarged before a second pass pays."""
FINER = 4.0
"""Times by which a pass is finer than the last; models are trained for 1.5 to 5."""
CONTEXT = 16
"""Pixels of a square on each side that are context, painted but not kept where the hole goes on."""
STEPS = 8
"""Parallel steps of a square: most of what stands there is settled by the first painting."""
COLOUR = 8
"""Pixels over which a square keeps the first painting's mean colour."""


def plan_passes(hole: np.ndarray, window: Box, side: int, most: int) -> list[list[Box]]:
    """Place the squares of each pass, coarse to fine; none where the painting is not enlarged much.

    Args:
        hole: bool [h, w], somewhere True; as large as the window's part inside the photo.
        window: to which the first painting is enlarged.
        side: S.
        most: number of squares of all passes, at most.
    """
    passes: list[list[Box]] = []
    enlarged = max(window.height, window.width) / side
    while enlarged > SOFT:
        scale = max(1.0, enlarged / FINER)
        boxes = place_squares(hole, side, scale)
        while len(boxes) > most and scale < enlarged / SOFT:
            scale *= 1.1
            boxes = place_squares(hole, side, scale)
        if len(boxes) > most:
            break
        passes.append(boxes)
        most, enlarged = most - len(boxes), scale
    return passes


def place_squares(hole: np.ndarray, side: int, scale: float) -> list[Box]:
    """Cover a hole with squares of S · s pixels, row by row; neighbours share their context.

    Args:
        hole: bool [h, w], somewhere True.
        side: S.
        scale: s.
    """
    length, context = round(side * scale), round(CONTEXT * scale)
    edges = []
    for axis, size in enumerate(hole.shape):
        inside = np.flatnonzero(hole.any(1 - axis))
        first, end = int(inside[0]) - context, int(inside[-1]) + 1
        starts = range(first, max(first + 1, end - 2 * context), length - 2 * context)
        edges.append([min(max(start, 0), max(0, size - length)) for start in starts])
    boxes = [Box(top, left, top + length, left + length) for top in edges[0] for left in edges[1]]
    return [box for box in boxes if hole[box.within(hole.shape)].any()]


def paint_anew(
    painter: Painter,
    painted: np.ndarray,
    hole: np.ndarray,
    passes: list[list[Box]],
    prompt: str,
    seed: int,
    sampling: Sampling,
    progress: Progress | None = None,
) -> np.ndarray:
    """Give a window's first painting its details.

    Args:
        painter: one whose `Needs` take a first painting.
        painted: float32 [h, w, 3] from 0 to 1, with the known pixels around the hole.
        hole: bool [h, w].
        passes: of `plan_passes`.
        prompt: the caption.
        seed: of the window.
        sampling: as for the first pass; squares take few steps and no guidance, as their content is settled.
        progress: is told of each square.

    Returns:
        float32 [h, w, 3]; outside the hole as `painted`.
    """
    sampling = replace(sampling, num_inference_steps=STEPS, guidance_scale=1.0)
    canvas = painted.copy()
    number = 0
    for boxes in passes:
        waiting = hole.copy()
        for box in boxes:
            number += 1
            if waiting[box.within(hole.shape)].any():
                own = window_seed(seed, number)
                _paint_square(painter, canvas, waiting, box, prompt, own, sampling)
            if progress is not None:
                progress.square()
    return canvas


def _paint_square(
    painter: Painter, canvas: np.ndarray, waiting: np.ndarray, box: Box, prompt: str, seed: int, sampling: Sampling
) -> None:
    """Paint what waits in one square, in place."""
    needs, size = painter.needs, waiting.shape
    photo = Photo(pixels=canvas, mode="RGB")
    known, all_of_it = (look(photo, mask, box, needs.resolution) for mask in (waiting, np.zeros_like(waiting)))
    window = needs.window(known, painter.device)
    coarse = needs.window(all_of_it, painter.device).image
    painting = painter.paint(window._replace(coarse=coarse), prompt, [seed], sampling, None)
    image, first = needs.signed(painting.images[0]), needs.signed(coarse)
    finer = put_back(image + soft(first - image, COLOUR), box, size)

    rows, columns = box.within(size)
    part = waiting[rows, columns]  # a view
    context = round(CONTEXT * box.height / needs.resolution)
    keep = part.copy()
    # what is painted beside nothing known is left to the next square, which will know this one
    if waiting[rows.stop :, columns].any():
        keep[box.bottom - rows.start - context :] = False
    if waiting[rows, columns.stop :].any():
        keep[:, box.right - columns.start - context :] = False
    canvas[rows, columns][keep] = finer[keep]
    part[keep] = False


def soft(image: Tensor, factor: float) -> Tensor:
    """Blur pictures as enlarging a smaller one by `factor` does.

    Args:
        image: [B, 3, S, S].
        factor: 1 or more.
    """
    small = F.interpolate(image, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(small, image.shape[2:], mode="bicubic", antialias=True)
