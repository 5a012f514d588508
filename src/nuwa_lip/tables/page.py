"""A table with its pictures as one HTML file that works offline: rows of photo, hole, caption and every result.

The table's columns sort by a click, best first, the pictures by any figure of any row. Pictures are data URIs, and
nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from nuwa_lip.evaluation.html import data_uri, document, escape
from nuwa_lip.evaluation.report import ROWS
from nuwa_lip.tables import paper
from nuwa_lip.tables.assemble import Block, about, headings, made_by, texts
from nuwa_lip.tables.pictures import shown_of


def page(blocks: Sequence[Block], chosen: Sequence[Sequence[int]], command: str) -> str:
    """Make the page of a command's tables.

    Args:
        blocks: a table on one or several benchmarks.
        chosen: photos of each that are shown.
        command: the one that made it.
    """
    parts = [_table(block) for block in blocks]
    parts += [_gallery(block, photos) for block, photos in zip(blocks, chosen, strict=True) if photos]
    title = _title(blocks[0])
    legend = "<p>A click on a heading sorts. ↓: lower is better, ↑: higher is better, –: not measured.</p>"
    source = f"<p>The paper's figures: {escape(paper.SOURCE)}.</p><details><summary>Made by</summary>"
    source += f"<pre>{chr(10).join(map(escape, made_by(blocks, command)))}</pre></details>"
    return document(title, "table", f"<h1>{escape(title)}</h1>{legend}" + "".join(parts) + source)


def _title(block: Block) -> str:
    """The title without its brackets, which are about this benchmark."""
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


def _gallery(block: Block, chosen: Sequence[int]) -> str:
    """Make the sortable list of photos with every row's result."""
    measured = [line for line in block.lines if line.trainings]
    keys = [key for key in block.table.sort if any(line.photos(key) is not None for line in measured)]
    rows = "".join(f'<option value="{escape(line.row.name)}">{escape(line.row.label)}</option>' for line in measured)
    metrics = "".join(f'<option value="{escape(key)}">{escape(label_of(key))}</option>' for key in keys)
    items = "".join(_item(index, block, keys) for index in chosen)
    return (
        f'<section class="gallery"><h2>Results on {escape(block.name)}</h2><p>'
        f'<label>Sort by <select class="metric"><option value="">photo number</option>{metrics}</select></label> '
        f'<label>of <select class="row">{rows}</select></label> '
        '<label><select class="direction" aria-label="direction"><option value="up">lowest first</option>'
        f'<option value="down">highest first</option></select></label></p><div class="items">{items}</div></section>'
    )


def _item(index: int, block: Block, keys: Sequence[str]) -> str:
    item = shown_of(index, block)
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
    data = escape(json.dumps(figures))
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
    """Name a figure for people: oracle/psnr_hole → "oracle PSNR, hole (dB)"."""
    part, _, name = key.rpartition("/")
    label = ROWS[name][0] if name in ROWS else name
    return f"{part} {label}".strip(" ↑↓")
