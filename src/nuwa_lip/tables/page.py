"""A table with its pictures as one HTML file that works offline: rows of photo, hole, caption and every result.

The table's columns sort by a click, best first, the pictures by any figure of any row. Pictures are data URIs, and
nothing is fetched from anywhere.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from nuwa_lip.evaluation.report import ROWS
from nuwa_lip.tables import paper
from nuwa_lip.tables.assemble import Block, about, headings, made_by, texts
from nuwa_lip.tables.pictures import shown_of
from nuwa_lip.tables.rows import RowFolder

SIDE = 256
"""Largest side of a picture in the page, in pixels."""
QUALITY = 88

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em max(1em, 2vw); color: #222; }
h1 { font-size: 1.6em; } p, li { overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: .3em .6em; text-align: right; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th { padding: 0; } th button { all: unset; cursor: pointer; font-weight: bold; padding: .3em .6em; }
th button:hover { text-decoration: underline; } th button:focus-visible { outline: 2px solid #06c; }
th[aria-sort] { background: #dbe9fb; }
th[aria-sort] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.no { color: #a00; } .yes { color: #060; }
.scroll { overflow-x: auto; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.item { border-top: 1px solid #ccc; padding: .8em 0; }
.pictures { display: flex; gap: .6em; flex-wrap: wrap; }
figure { margin: 0; width: min(200px, 44vw); } figcaption { font-size: 12px; }
img { width: 100%; height: auto; display: block; background: #eee; }
"""

SCRIPT = """
"use strict";
// a cell's number is what it begins with; cells without one come last
const number = text => { const value = parseFloat(text); return Number.isNaN(value) ? Infinity : value; };
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => {
    head.firstChild.addEventListener("click", () => {
      // best first, the other way round by another click
      const order = head.textContent.includes("↑") ? ["descending", "ascending"] : ["ascending", "descending"];
      const now = order[head.getAttribute("aria-sort") === order[0] ? 1 : 0], up = now === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", now);
      const rows = [...table.tBodies[0].rows];
      const text = row => row.cells[column].textContent;
      rows.sort((a, b) => {
        const [x, y] = [number(text(a)), number(text(b))];
        if (x === y) return column === 0 ? (up ? 1 : -1) * text(a).localeCompare(text(b)) : 0;
        if (x === Infinity || y === Infinity) return x === Infinity ? 1 : -1;
        return up ? x - y : y - x;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
for (const gallery of document.querySelectorAll("section.gallery")) {
  const [row, metric, direction] = ["row", "metric", "direction"].map(c => gallery.querySelector("select." + c));
  const list = gallery.querySelector(".items");
  const value = item => {
    const figures = JSON.parse(item.dataset.figures);
    const found = (figures[row.value] || {})[metric.value];
    return found === undefined || found === null ? Infinity : found;
  };
  const sort = () => {
    row.disabled = direction.disabled = metric.value === "";
    const items = [...list.children];
    items.sort((a, b) => {
      if (metric.value === "") return a.dataset.index - b.dataset.index;
      const [x, y] = [value(a), value(b)];
      if (x === Infinity || y === Infinity) return x === y ? 0 : (x === Infinity ? 1 : -1);
      return direction.value === "up" ? x - y : y - x;
    });
    list.append(...items);
  };
  for (const select of [row, metric, direction]) select.addEventListener("change", sort);
  sort();  // a browser may have kept what was chosen before
}
"""


def page(blocks: Sequence[Block], folders: Sequence[RowFolder], chosen: Sequence[Sequence[int]], command: str) -> str:
    """The whole page.

    Args:
        blocks: a table on one or several benchmarks.
        folders: where the rows of each are.
        chosen: photos of each that are shown.
        command: the one that made it.
    """
    parts = [_table(block) for block in blocks]
    parts += [_gallery(*three) for three in zip(blocks, folders, chosen, strict=True) if three[2]]
    title = _title(blocks[0])
    legend = "<p>A click on a heading sorts. ↓: lower is better, ↑: higher is better, –: not measured.</p>"
    source = f"<p>The paper's figures: {escape(paper.SOURCE)}.</p><details><summary>Made by</summary>"
    source += f"<pre>{escape(chr(10).join(made_by(blocks, command)))}</pre></details>"
    return document(title, f"<h1>{escape(title)}</h1>{legend}" + "".join(parts) + source, STYLE, SCRIPT)


def document(title: str, body: str, style: str, script: str) -> str:
    """One HTML file; its policy forbids to fetch anything."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<style>{style}</style></head>\n<body>{body}\n<script>{script}</script></body></html>\n"
    )


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """A JPEG within the page, reduced to at most `side` pixels."""
    if max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _title(block: Block) -> str:
    """Without what its brackets say of this benchmark."""
    return block.table.title.partition(" (")[0]


def _table(block: Block) -> str:
    head = "".join(f"<th><button>{escape(text)}</button></th>" for text in headings(block.table))
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in texts(block))
    notes = "".join(f"<li>{escape(text)}</li>" for text in about(block))
    claims = "".join(f'<li>{escape(text)}: <b class="{word}">{word}</b></li>' for text, word in block.answers())
    heading = block.name + block.table.title.removeprefix(_title(block))
    return (
        f'<h2>{escape(heading)}</h2><div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><ul>{notes}</ul>" + (f"<h3>Claims</h3><ul>{claims}</ul>" if claims else "")
    )


def _gallery(block: Block, folder: RowFolder, chosen: Sequence[int]) -> str:
    """Photos with every row's result, sortable."""
    measured = [line for line in block.lines if line.trainings]
    keys = [key for key in block.table.sort if any(line.photos(key) is not None for line in measured)]
    rows = "".join(f'<option value="{escape(line.row.name)}">{escape(line.row.label)}</option>' for line in measured)
    metrics = "".join(f'<option value="{escape(key)}">{escape(label_of(key))}</option>' for key in keys)
    items = "".join(_item(index, block, folder, keys) for index in chosen)
    return (
        f'<section class="gallery"><h2>Results on {escape(block.name)}</h2><p>'
        f'<label>Sort by <select class="metric"><option value="">photo number</option>{metrics}</select></label> '
        f'<label>of <select class="row">{rows}</select></label> '
        '<label><select class="direction" aria-label="direction"><option value="up">lowest first</option>'
        f'<option value="down">highest first</option></select></label></p><div class="items">{items}</div></section>'
    )


def _item(index: int, block: Block, folder: RowFolder, keys: Sequence[str]) -> str:
    item = shown_of(index, block, folder)
    figures: dict[str, dict[str, float]] = {}
    shown = [_figure(item.photo, "photo", {}), _figure(item.hole, "hole", {})]
    for line in block.lines:
        if not line.trainings:
            continue
        found = {key: line.only({line.trainings[0].seed}).photos(key) for key in keys}  # as the pictures are
        measured = {key: values[index] for key, values in found.items() if values is not None and index < len(values)}
        own = {key: round(float(value), 4) for key, value in measured.items() if not np.isnan(value)}
        figures[line.row.name] = own
        if line.row.name in item.results:
            shown.append(_figure(item.results[line.row.name], line.row.label, own))
    data = escape(json.dumps(figures), quote=True)
    about_photo = f"{index:05d}: {escape(item.caption)}"
    about_photo += f"<br><small>{escape(item.credit)}</small>" if item.credit else ""
    return (
        f'<div class="item" data-index="{index}" data-figures="{data}"><p>{about_photo}</p>'
        f'<div class="pictures">{"".join(shown)}</div></div>'
    )


def _figure(picture: Image.Image, label: str, figures: Mapping[str, float]) -> str:
    below = "".join(f"<br>{escape(label_of(key))} {value:g}" for key, value in figures.items())
    return (
        f'<figure><img src="{data_uri(picture)}" alt="{escape(label)}"><figcaption>{escape(label)}{below}'
        "</figcaption></figure>"
    )


def label_of(key: str) -> str:
    """`oracle/psnr_hole` → "oracle PSNR, hole (dB)"."""
    part, _, name = key.rpartition("/")
    label = ROWS[name][0] if name in ROWS else name
    return f"{part} {label}".strip(" ↑↓")
