"""Web pages as one file that works offline: style, script and pictures are inside, and nothing is fetched."""

import base64
import io

from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.disk import escaped

SIDE = 256
"""Largest side of a picture in a page, in pixels."""
QUALITY = 88
"""Quality of the pictures' JPEG."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def escape(text: str) -> str:
    """Give a text as HTML that shows it, and nothing that turns its letters around."""
    return escaped(text, "page")


def document(title: str, name: str, body: str) -> str:
    """Make one HTML file, whose policy forbids it to fetch anything.

    Args:
        title: shown by the browser; it is escaped here.
        name: of the style and the script, such as "table" for `assets/pages/table.css` and `table.js`.
        body: HTML between them.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>\n{part(f'{name}.css')}</style></head>\n"
        f"<body>{body}\n<script>\n{part(f'{name}.js')}</script></body></html>\n"
    )


def part(name: str) -> str:
    """Read a style, a script or a piece of HTML by its file name."""
    return asset(f"pages/{name}").read_text(encoding="utf-8")


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """Give a picture as the URI of a JPEG, reduced to at most `side` pixels."""
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
