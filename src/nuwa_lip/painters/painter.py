"""The protocol of a painter: what it is given, what it gives back, and what it needs.

A painter sees one window, with nothing of the hole in it, and gives squares of the same size. Windows, their reduction,
pasting, seams, metadata and provenance are the pipeline's, so that no painter can change a known pixel.

Legend: S side of the square, n candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.images.windows import View
from nuwa_lip.sampling import Sampling

DRAWING = frozenset({"temperature", "top_k", "top_p", "order", "schedule"})
"""Options that say how tokens are drawn."""
OPTIONS = DRAWING | {"prompt", "guidance_scale", "num_inference_steps", "revisions", "squares", "blend"}
"""Options of a call that a painter may take."""

Callback = Callable[..., None]
"""f(step, steps), from 1, called after each step; steps: of all candidates of the window. A painter that can show what
it has so far calls f(step, steps, decode): decode() gives an image like those of `Painting`, until the next step."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Says what a painter is to be given.

    Raises:
        InputError: the side is no multiple of `multiple`.
    """

    resolution: int
    """S, side of the square in pixels."""
    multiple: int = 1
    """S is a multiple of this."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Least and largest value of a pixel, for the painter and from it."""
    hole: float = 0.0
    """Value that stands in the hole."""
    options: frozenset[str] = OPTIONS - {"revisions", "squares"}
    """Those of `OPTIONS` that mean something to it; the others are refused if they are given. "squares" is for painters
    that look at `Window.coarse`."""
    sampling: Sampling = field(default_factory=Sampling)
    """What a call leaves open, such as the number of steps."""

    def __post_init__(self) -> None:
        if self.resolution < 1 or self.resolution % self.multiple:
            raise InputError(f"resolution is {self.resolution}; it must be a multiple of {self.multiple}")

    def window(self, view: View, device: torch.device) -> Window:
        """Bring what is known of a window to the painter's range and device."""
        low, high = self.value_range
        mask = torch.from_numpy(view.mask)[None, None].to(device)
        image = torch.from_numpy(view.image).permute(2, 0, 1)[None].to(device) * (high - low) + low
        return Window(image.masked_fill(mask, self.hole), mask)

    def signed(self, image: Tensor) -> Tensor:
        """Bring what was painted to float32 in [-1, 1]."""
        low, high = self.value_range
        image = image.float()
        return image if (low, high) == (-1, 1) else (image - low) * (2 / (high - low)) - 1


class Window(NamedTuple):
    """Holds what a painter sees."""

    image: Tensor
    """float32 [1, 3, S, S] in the painter's range; in the hole stands its `Needs.hole`."""
    mask: Tensor
    """bool [1, 1, S, S], True = to repaint."""
    coarse: Tensor | None = None
    """Like `image`, with a first painting in the hole, of which `second_pass` wants a finer one."""


class Painting(NamedTuple):
    """Holds n candidates for a window."""

    images: list[Tensor]
    """n of [1, 3, S, S] in the painter's range, known pixels free."""
    scores: Tensor
    """[n], mean log-probability of what was painted; 0 each from a painter that knows none."""
    tokens: int = 1
    """How many parts these are the mean of, as a weight among the windows of a photo."""


class Painter(Protocol):
    """Fills windows."""

    @property
    def needs(self) -> Needs:
        """Return what it is to be given."""

    @property
    def device(self) -> torch.device:
        """Return where windows are to be."""

    def paint(
        self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Callback | None
    ) -> Painting:
        """Paint a candidate for each seed, which depends on nothing but the other arguments and its own seed.

        Args:
            window: what is known.
            prompt: the caption, "" for none.
            seeds: n of them.
            sampling: how to sample.
            callback: called after each step.
        """

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Move it, as `torch.nn.Module.to` does."""


def counted(seeds: list[int], callback: Callback | None) -> Iterator[tuple[int, Callback]]:
    """Yield each candidate's seed, and a callback for its own steps, which are counted through all candidates."""
    for number, seed in enumerate(seeds):

        def progress(step: int, steps: int, before: int = number) -> None:
            if callback is not None:
                callback(before * steps + step, len(seeds) * steps)

        yield seed, progress
