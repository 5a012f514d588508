"""The sheet of `nuwa-lip inpaint --grid`: a photo's hole and all its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from nuwa_lip.images.hole import Hole
from nuwa_lip.images.photo import Photo
from nuwa_lip.images.sheets import draw_sheet, show_hole

if TYPE_CHECKING:
    from nuwa_lip.pipeline import InpaintOutput

GRID_COLUMNS = 4


def candidates_sheet(photo: Photo, hole: Hole, result: InpaintOutput, prompt: str) -> Image.Image:
    """Draw the photo with its hole, then all candidates, the best first, each with its number and seed.

    Args:
        photo: as it was read.
        hole: what was repainted.
        result: the candidates.
        prompt: stands below.
    """
    cells = [(show_hole(photo.to_pil(photo.pixels), hole.mask), "hole")]
    for number, image in enumerate(result.images, 1):
        cells.append((image, f"{number}: seed {result.seeds[number - 1]}, score {result.scores[number - 1]:.3f}"))
    rows: list[tuple[Sequence[Image.Image], str | Sequence[str]]] = []
    for start in range(0, len(cells), GRID_COLUMNS):
        pictures, texts = zip(*cells[start : start + GRID_COLUMNS], strict=True)
        rows.append((pictures, texts))
    return draw_sheet([*rows, ((), prompt)])
