"""Reports of measurements: a table, a JSON file, and a sheet of random photos to look at."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.disk import escaped, write_text, written_whole
from nuwa_lip.evaluation.images import Figures
from nuwa_lip.evaluation.tokenizers import TokenizerFigures

NUMBERS = re.compile(r"\[\n([-+.,\seE\dnul]*)\]")
"""A list of numbers and nulls over several lines; no string has a line's end in it."""
CELL, LINE, GAP = 128, 15, 4  # pixels of the sheet: side of a picture, height of its caption, space between

ROWS = {  # JSON name → (shown as, decimals)
    "lpips_squeeze": ("LPIPS-squeeze, whole ↓", 4),
    "lpips_squeeze_hole": ("LPIPS-squeeze, hole ↓", 4),
    "lpips_squeeze_ring": ("LPIPS-squeeze, ring ↓", 4),
    "lpips": ("LPIPS (VGG), whole ↓", 4),
    "lpips_hole": ("LPIPS (VGG), hole ↓", 4),
    "lpips_ring": ("LPIPS (VGG), ring ↓", 4),
    "fsd": ("FSD ↓", 2),
    "fsd_hole": ("FSD, hole ↓", 2),
    "krd": ("KRD ↓", 4),
    "krd_hole": ("KRD, hole ↓", 4),
    "fed": ("FED ↓", 2),
    "fed_hole": ("FED, hole ↓", 2),
    "fid": ("FID ↓", 2),
    "kid": ("KID ↓", 5),
    "psnr": ("PSNR, whole (dB) ↑", 2),
    "psnr_hole": ("PSNR, hole (dB) ↑", 2),
    "psnr_ring": ("PSNR, ring (dB) ↑", 2),
    "ssim": ("SSIM, whole ↑", 4),
    "ssim_hole": ("SSIM, hole ↑", 4),
    "ssim_ring": ("SSIM, ring ↑", 4),
    "ring": ("ring error ↓", 2),
    "clip_score": ("CLIP score ↑", 2),
    "clip_score_hole": ("CLIP score, hole's crop ↑", 2),
    "mse_known": ("MSE, known (of 1) ↓", 6),
    "lpips_squeeze_known": ("LPIPS-squeeze, known ↓", 4),
    "known_max_change": ("max known change", 0),
}


def table(figures: Mapping[str, Figures], title: str) -> Table:
    """Make a table with a column a method; every figure has its 95 % interval by bootstrap over the photos."""
    shown = Table(title=escaped(title, "markup"))
    shown.add_column("figure")
    for name in figures:
        shown.add_column(escaped(name, "markup"), justify="right")
    known = [f.as_json() for f in figures.values()]
    for key, (label, digits) in ROWS.items():
        if any(key in f for f in known):
            shown.add_row(label, *(_cell(f, key, digits) for f in figures.values()))
    return shown


def describe(setting: Mapping[str, Any], n: int) -> list[str]:
    """Write lines that say what the figures depend on.

    Args:
        setting: model, seeds, best_of, rank, blend, benchmark_sha256 and resize, as written to the report.
        n: photos measured.
    """
    lines = [f"n = {n}, benchmark sha256 {setting['benchmark_sha256']}"]
    if setting["model"] is not None:
        first, last = setting["seeds"]
        rank = f" by {setting['rank']}" if setting["rank"] else ""
        blend = ", blended at the hole's edge" if setting["blend"] else ""
        lines.append(f"model {setting['model']}, seeds {first} to {last}, best of {setting['best_of']}{rank}{blend}")
    resized = "; ".join(f"{name} {how}" for name, how in setting["resize"].items())
    return [*lines, f"photos as the networks see them: {resized}", "in brackets: 95 % intervals over the photos"]


def describe_tokenizer(figures: TokenizerFigures, setting: Mapping[str, Any]) -> list[str]:
    """Write lines about a DF-VQGAN's latents and codes, and what the figures depend on.

    Args:
        figures: of one tokenizer.
        setting: model, benchmark_sha256, side and n, as written to the report.
    """
    relative = number(figures.relative_distance, ".4f", figures.intervals["relative_distance"])
    return [
        f"average distance {number(figures.distance, '.4f')}; relative {relative}",
        f"known tokens whose code changes with the hole: {number(figures.changed, '.1%')}",
        f"codes in use: {figures.usage:.1%}, perplexity {figures.perplexity:.0f}",
        f"n = {setting['n']} at {setting['side']} px, benchmark sha256 {setting['benchmark_sha256']}",
    ]


def describe_encodings(
    figures: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any], setting: Mapping[str, Any]
) -> list[str]:
    """Write a line about each way of encoding, and what the figures depend on.

    Args:
        figures, common: of `encodings.summarise_encodings`.
        setting: model, benchmark_sha256, side and n, as written to the report.
    """
    lines = [
        f"{name}: {number(one['agreement'], '.1%', one['intervals_95']['agreement'])} of the known codes are those of "
        f"the complete photo; ring {number(one['ring'], '.2f', one['intervals_95']['ring'])}"
        for name, one in figures.items()
    ]
    return [
        *lines,
        f"ring of the complete photo's codes: {number(common['whole_ring'], '.2f')} of 255",
        f"known pixels under lost tokens: {number(common['lost_pixels'], '.1%')} of the photo",
        f"n = {setting['n']} at {setting['side']} px, benchmark sha256 {setting['benchmark_sha256']}",
    ]


def _cell(figures: Figures, key: str, digits: int) -> str:
    value = figures.as_json().get(key)
    if key.endswith("_known") and value == 0:
        return "exact"
    return number(value, f".{digits}f", figures.intervals.get(key))


def number(value: Any, form: str, interval: tuple[float, float] | None = None) -> str:
    """Write a figure with its interval; "-" where there is none.

    Args:
        value: the figure.
        form: a format, such as .4f.
        interval: its ends.
    """
    if value is None:
        return "-"
    text = format(value, form)
    return text if interval is None else f"{text} [{interval[0]:{form}}, {interval[1]:{form}}]"


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write figures as JSON, whole or not at all; lists of numbers stand on one line each."""
    text = json.dumps(report, indent=1, allow_nan=False)
    text = NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text)
    write_text(path, text + "\n")


class Sheet:
    """Random rows (photo, hole, each method, caption) gathered while measuring, drawn as one picture.

    Args:
        n: number of photos measured.
        rows: of the sheet, at most.
        seed: of the choice.
    """

    def __init__(self, n: int, *, rows: int = 24, seed: int = 0) -> None:
        chosen = np.random.default_rng(seed).choice(n, min(rows, n), replace=False)
        self.chosen = {int(i) for i in chosen}
        self.rows: dict[int, tuple[list[Image.Image], str]] = {}
        self.headings: list[str] = []

    @property
    def missing(self) -> list[int]:
        """Drawn photos that are not in the sheet yet."""
        return sorted(self.chosen - self.rows.keys())

    def watch(self, item: BenchmarkItem, photos: dict[str, np.ndarray]) -> None:
        """Keep the item if it was drawn; hand this to `measure`."""
        if item.index not in self.chosen:
            return
        hole = np.where(item.mask[..., None], np.uint8(200), item.image)
        # the main one last, beside what it is compared with
        methods = dict(reversed(photos.items()))
        pictures = [Image.fromarray(p) for p in (item.image, hole, *methods.values())]
        self.rows[item.index] = ([_fit(p) for p in pictures], item.caption)
        self.headings = ["photo", "hole", *methods]

    def complete(self, methods: Mapping[str, Repaint], source: Benchmark) -> None:
        """Repaint the drawn photos that were measured elsewhere, by another process or an earlier run."""
        for index in self.missing:
            item = source[index]
            self.watch(item, {name: repaint(item) for name, repaint in methods.items()})

    def save(self, path: Path, columns: int = 2) -> None:
        """Draw the rows in `columns` blocks side by side, as PNG."""
        font = ImageFont.load_default(11)
        block = len(self.headings) * (CELL + GAP) + 3 * GAP
        high = -(-len(self.rows) // columns)
        sheet = Image.new("RGB", (columns * block, LINE + high * (CELL + LINE + GAP)), "white")
        draw = ImageDraw.Draw(sheet)
        for column in range(columns):
            for i, heading in enumerate(self.headings):
                draw.text((column * block + i * (CELL + GAP), 1), heading, "black", font)
        for n, (_, (pictures, caption)) in enumerate(sorted(self.rows.items())):
            x, y = n // high * block, LINE + n % high * (CELL + LINE + GAP)
            for i, picture in enumerate(pictures):
                sheet.paste(picture, (x + i * (CELL + GAP), y))
            while draw.textlength(caption, font) > block - 3 * GAP:
                caption = caption[:-2].rstrip() + "…"
            draw.text((x, y + CELL + 1), caption, "black", font)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            sheet.save(part, "PNG", optimize=True)


def _fit(picture: Image.Image) -> Image.Image:
    """Shrink or enlarge to fit into a cell, on white."""
    cell = Image.new("RGB", (CELL, CELL), "white")
    scale = CELL / max(picture.size)
    size = tuple(max(1, round(scale * n)) for n in picture.size)
    cell.paste(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS))
    return cell


def command_line() -> str:
    """Give the command that is running, as one would type it again."""
    return shlex.join(["nuwa-lip", *sys.argv[1:]])
