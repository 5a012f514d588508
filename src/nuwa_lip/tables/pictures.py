"""Photos with what each row made of them: sheets like the paper's Fig. 2, 5, 6 and 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from nuwa_lip.evaluation.tokenizers import Squares
from nuwa_lip.images.sheets import HOLE, draw_sheet, show_hole
from nuwa_lip.tables.assemble import Block

ROWS, CELL = 6, 176
"""Photos of a sheet, and pixels on a side of each picture."""
GAIN = 4
"""By how much changes of known pixels are amplified, to be seen."""


class Shown(NamedTuple):
    """One photo of a benchmark with its results."""

    photo: Image.Image
    mask: np.ndarray
    """bool [H, W], True = repainted."""
    caption: str
    credit: str
    """Where the photo is from and under which licence, if that is known."""
    results: Mapping[str, Image.Image]
    """By the row's name, where it was kept."""

    @property
    def hole(self) -> Image.Image:
        """The photo with its hole in grey."""
        return show_hole(self.photo, self.mask)

    def changes(self, name: str) -> Image.Image:
        """Show how a result changes known pixels (Fig. 2): black where it does not, the hole in grey."""
        photo, result = (np.asarray(picture).astype(np.int16) for picture in (self.photo, self.results[name]))
        change = np.minimum(GAIN * np.abs(result - photo), 255).astype(np.uint8)
        return Image.fromarray(np.where(self.mask[..., None], np.uint8(HOLE), change))


def shown_of(index: int, block: Block) -> Shown:
    """Gather photo `index` with the results of a table's rows; those of a DF-VQGAN are at its square."""
    item = block.source[index]
    side = next((one.setting.get("side") for line in block.lines for one in line.trainings), None)
    if side is not None:
        item = Squares(block.source, int(side))[index]
    results = {}
    for line in block.lines:
        if not line.trainings:
            continue
        part = line.row.key(f"{block.table.picture}/").rstrip("/")
        path = block.folder.picture(line.trainings[0].row, index, part)
        if path.is_file():
            with Image.open(path) as picture:
                results[line.row.name] = picture.convert("RGB")
    credit = ", ".join(part for part in (item.url, item.license) if part)
    return Shown(Image.fromarray(item.image), item.mask, item.caption, credit, results)


def sheet(block: Block, chosen: Sequence[int], *, changes: bool = False) -> Image.Image | None:
    """Draw photos with every row's result (Fig. 5, 6, 7), or with its changes outside the hole (Fig. 2).

    Args:
        block: the table.
        chosen: numbers of photos; the first ones are shown.
        changes: show changes.

    Returns:
        None where there is nothing to show.
    """
    names = [line.row.name for line in block.lines if line.trainings]  # shorter than their labels
    rows: list[tuple[list[Image.Image], str]] = []
    for index in chosen[:ROWS]:
        item = shown_of(index, block)
        blank = Image.new("RGB", item.photo.size, "white")
        results = {
            name: item.changes(name) if changes else item.results[name] for name in names if name in item.results
        }
        rows.append(([item.photo, item.hole, *(results.get(name, blank) for name in names)], item.caption))
    if not rows or not names:
        return None
    return draw_sheet(rows, ("photo", "hole", *names), cell=CELL)
