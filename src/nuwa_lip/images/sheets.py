"""Sheets: rows of pictures with a caption under each row, as one picture to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nuwa_lip.images.pictures import viewable

GAP = 8
HOLE = 200  # grey that a hole is shown in


def show_hole(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """Show the photo upright with its hole (bool [H, W], True = to repaint) in grey."""
    return Image.fromarray(np.where(mask[..., None], np.uint8(HOLE), np.asarray(viewable(photo))))


def draw_sheet(
    rows: Sequence[tuple[Sequence[Image.Image], str | Sequence[str]]], headings: Sequence[str] = (), cell: int = 256
) -> Image.Image:
    """Draw rows of pictures, each row with its caption below.

    Args:
        rows: at least one (pictures, caption), one of them with pictures, of any size and mode; a list of captions has
            one for each picture.
        headings: texts above the columns.
        cell: side in pixels of the square that each picture is fitted into.
    """
    font = ImageFont.load_default(14)
    line = 14 + GAP
    columns = max(len(pictures) for pictures, _ in rows)
    width = columns * (cell + GAP) + GAP
    top = line if headings else GAP
    fitted = [([_fit(picture, cell) for picture in pictures], caption) for pictures, caption in rows]
    heights = [max((picture.height for picture in pictures), default=0) for pictures, _ in fitted]
    sheet = Image.new("RGB", (width, top + sum(heights) + len(rows) * (line + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, heading in enumerate(headings):
        draw.text((GAP + i * (cell + GAP), 3), heading, "black", font)
    y = top
    for (pictures, caption), height in zip(fitted, heights, strict=True):
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (GAP + i * (cell + GAP), y))
        texts, room = ([caption], width) if isinstance(caption, str) else (caption, cell + 2 * GAP)
        for i, text in enumerate(texts):
            draw.text((GAP + i * (cell + GAP), y + height + 2), _cut(text, room, draw, font), "black", font)
        y += height + line + GAP
    return sheet


def _cut(text: str, width: int, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """Bring a text to one line that fits."""
    text = " ".join(text.split())[:width]  # no longer than can possibly fit
    while draw.textlength(text, font) > width - 2 * GAP:
        text = text[:-2].rstrip() + "…"
    return text


def _fit(picture: Image.Image, cell: int) -> Image.Image:
    """Shrink or enlarge to fit into a square of `cell` pixels."""
    picture = viewable(picture)
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)
