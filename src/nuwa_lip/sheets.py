"""Sheets: rows of pictures with a caption under each row, as one picture to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 8
HOLE = 200  # grey that a hole is shown in


def show_hole(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """The photo with its hole (bool [H, W], True = to repaint) in grey."""
    return Image.fromarray(np.where(mask[..., None], np.uint8(HOLE), np.asarray(photo.convert("RGB"))))


def draw_sheet(
    rows: Sequence[tuple[Sequence[Image.Image], str]], headings: Sequence[str] = (), cell: int = 256
) -> Image.Image:
    """Draw rows of (pictures, caption).

    Args:
        rows: at least one; pictures of any size and mode, shown upright as they are.
        headings: one above each column.
        cell: side in pixels of the square that each picture is fitted into.
    """
    font = ImageFont.load_default(14)
    line = 14 + GAP
    columns = max(len(pictures) for pictures, _ in rows)
    width = columns * (cell + GAP) + GAP
    top = line if headings else GAP
    fitted = [([_fit(picture, cell) for picture in pictures], caption) for pictures, caption in rows]
    heights = [max(picture.height for picture in pictures) for pictures, _ in fitted]
    sheet = Image.new("RGB", (width, top + sum(heights) + len(rows) * (line + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, heading in enumerate(headings):
        draw.text((GAP + i * (cell + GAP), 3), heading, "black", font)
    y = top
    for (pictures, caption), height in zip(fitted, heights, strict=True):
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (GAP + i * (cell + GAP), y))
        while draw.textlength(caption, font) > width - 2 * GAP:
            caption = caption[:-2].rstrip() + "…"
        draw.text((GAP, y + height + 2), caption, "black", font)
        y += height + line + GAP
    return sheet


def _fit(picture: Image.Image, cell: int) -> Image.Image:
    """Shrink or enlarge to fit into a square of `cell` pixels, on white where it is transparent."""
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut rather than scale
        picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
