"""The second pass: a large hole, painted at the model's size and enlarged, is painted anew in squares of finer scale.

A square sees the known pixels at its own scale, the squares before it as known ones, and, in the rest of the hole, the
first painting (`models.perspectives.Coarse`), whose colours it keeps. A very large hole takes several passes, each
`FINER` times as fine as the last, down to the photo's own scale or as far as a given number of squares goes: the cost
is linear in the hole's area, and bounded. As GLIDE's enlarging step, but by the same network as the first pass.

Legend: S side of the model's square, s pixels of the photo under one of a square, h w size of a window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.images.photo import Photo
from nuwa_lip.images.preview import Progress
from nuwa_lip.images.windows import Box, look, put_back, window_seed
from nuwa_lip.sampling import Sampling

if TYPE_CHECKING:
    from nuwa_lip.painters.painter import Painter, Window

SOFT = 1.5
"""Times that a painting may be enlarged before a second pass pays."""
FINER = 4.0
"""Times by which a pass is finer than the last; models are trained for 1.5 to 5."""
CONTEXT = 1 / 8
"""Share of a square's side, on each of its four, that is context: painted but not kept where the hole goes on."""
STEPS = 8
"""Parallel steps of a square: most of what stands there is settled by the first painting."""
TEMPERATURE = 0.7
"""Of a square, beside the call's own."""
SEEDS = 2**20
"""Where the squares' numbers begin, for seeds that no other window has."""
KEPT = 1.4
"""A square keeps the first painting's colours over this many of its pixels: what is finer is the square's own."""


class Pass(NamedTuple):
    """Holds the squares of one pass."""

    squares: list[Box]
    finer: float
    """Times that they are finer than what has been painted so far."""
    scale: float
    """s."""


def plan_passes(hole: np.ndarray, window: Box, side: int, most: int) -> list[Pass]:
    """Place the squares of each pass, coarse to fine; none where the painting is not enlarged much.

    Args:
        hole: bool [h, w], somewhere True; as large as the window's part inside the photo.
        window: to which the first painting is enlarged.
        side: S.
        most: number of squares of all passes, at most.
    """
    passes: list[Pass] = []
    enlarged = window.longer / side
    while enlarged > SOFT:
        scale = max(1.0, enlarged / FINER)
        boxes = place_squares(hole, side, scale)
        while len(boxes) > most and scale < enlarged / SOFT:
            scale *= 1.1
            boxes = place_squares(hole, side, scale)
        if len(boxes) > most:
            break
        passes.append(Pass(boxes, enlarged / scale, scale))
        most, enlarged = most - len(boxes), scale
    return passes


def place_squares(hole: np.ndarray, side: int, scale: float) -> list[Box]:
    """Cover a hole with squares of S · s pixels, row by row; each has context where the photo does not end.

    Args:
        hole: bool [h, w], somewhere True.
        side: S.
        scale: s.
    """
    length = round(side * scale)
    context = round(CONTEXT * length)
    edges = []
    for axis, size in enumerate(hole.shape):
        inside = np.flatnonzero(hole.any(1 - axis))
        # beyond the hole, where the photo goes on: beside nothing known its last pixels would not fit what is
        first = min(max(int(inside[0]) - context, 0), max(0, size - length))
        last = max(first, min(int(inside[-1]) + 1 + context, size) - length)
        steps = -(-(last - first) // (length - 2 * context))
        edges.append([round(start) for start in np.linspace(first, last, steps + 1)])
    boxes = [Box(top, left, top + length, left + length) for top in edges[0] for left in edges[1]]
    return [box for box in boxes if hole[box.within(hole.shape)].any()]


def paint_anew(
    painter: Painter,
    painted: np.ndarray,
    hole: np.ndarray,
    passes: list[Pass],
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
        sampling: as for the first pass; squares take few steps, no guidance, no revisions: their content is settled.
        progress: is told of each square.

    Returns:
        float32 [h, w, 3]; outside the hole as `painted`.
    """
    cooler = sampling.temperature * TEMPERATURE
    sampling = replace(sampling, num_inference_steps=STEPS, guidance_scale=1.0, temperature=cooler, revisions=0)
    canvas = painted.copy()
    number = SEEDS
    for squares, finer, _ in passes:
        waiting = hole.copy()
        for place, box in enumerate(squares):
            number += 1
            if waiting[box.within(hole.shape)].any():
                fade = _fade(box, hole)
                window, first = _see(painter, canvas, waiting, box, fade > 0)
                (image,) = painter.paint(window, prompt, [window_seed(seed, number)], sampling, None).images
                image = painter.needs.signed(image)
                image += soft(first - image, KEPT * finer)
                _put(canvas, waiting, box, squares[place + 1 :], put_back(image, box, hole.shape), fade)
            if progress is not None:
                progress.square()
    return canvas


def _fade(box: Box, hole: np.ndarray) -> np.ndarray:
    """Give what a square counts beside those before it, float32 [rows, columns] of its part of the hole.

    0 at its edges and to half of its context, which it takes as it is; from there to the end of the context more and
    more, so that no border is seen, not even that of what the painter took for known.
    """
    parts, context = box.within(hole.shape), CONTEXT * box.height
    ramps = []
    for part, first in zip(parts, (box.top, box.left), strict=True):
        inwards = np.arange(part.start, part.stop) - first + 0.5
        ramps.append((2 * np.minimum(inwards, box.height - inwards) / context - 1).clip(0, 1))
    return (np.minimum.outer(*ramps) * hole[parts]).astype(np.float32)


def _see(
    painter: Painter, canvas: np.ndarray, waiting: np.ndarray, box: Box, again: np.ndarray
) -> tuple[Window, Tensor]:
    """Reduce a square to what the painter sees of it, and all of it to [-1, 1]; what fades counts as waiting."""
    needs, hidden = painter.needs, waiting.copy()
    hidden[box.within(hidden.shape)] |= again
    photo = Photo(pixels=canvas, mode="RGB")
    known, all_of_it = (look(photo, mask, box, needs.resolution) for mask in (hidden, np.zeros_like(hidden)))
    coarse = needs.window(all_of_it, painter.device).image
    return needs.window(known, painter.device)._replace(coarse=coarse), needs.signed(coarse)


def _put(
    canvas: np.ndarray, waiting: np.ndarray, box: Box, later: list[Box], finer: np.ndarray, fade: np.ndarray
) -> None:
    """Put a square into the canvas: what has waited, which then waits no longer, and faded what others have painted."""
    rows, columns = box.within(waiting.shape)
    context = round(CONTEXT * box.height)
    ready = waiting[rows, columns].copy()
    # what is painted beside nothing known is left to the next square, which will know this one
    if any(other.left == box.left for other in later):
        ready[box.bottom - rows.start - context :] = False
    if any(other.top == box.top for other in later):
        ready[:, box.right - columns.start - context :] = False
    share = np.where(waiting[rows, columns], ready, fade)
    part = canvas[rows, columns]  # a view
    part += share[..., None] * (finer - part)
    waiting[rows, columns][ready] = False


def soft(image: Tensor, factor: float) -> Tensor:
    """Blur pictures as enlarging a smaller one by `factor` does.

    Args:
        image: [B, 3, S, S].
        factor: 1 or more.
    """
    small = F.interpolate(image, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(small, image.shape[2:], mode="bicubic", antialias=True)
