"""Reports of measurements: a table, a JSON file, and a sheet of random photos to look at."""

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.data.benchmark import Benchmark, BenchmarkItem
from nuwa_lip.disk import escaped, write_text, written_whole
from nuwa_lip.evaluation.images import Figures
from nuwa_lip.evaluation.tokenizers import TokenizerFigures
from nuwa_lip.images.sheets import draw_sheet, show_hole

NUMBERS = re.compile(r"\[\n([-+.,\seE\dnul]*)\]")
"""A list of numbers and nulls over several lines; no string has a line's end in it."""
CELL = 128  # pixels on a side of the sheet's pictures

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
        # the main one last, beside what it is compared with
        methods = dict(reversed(photos.items()))
        photo, *results = (Image.fromarray(p) for p in (item.image, *methods.values()))
        pictures = [photo, show_hole(photo, item.mask), *results]
        for picture in pictures:
            picture.thumbnail((CELL, CELL))
        self.rows[item.index] = (pictures, item.caption)
        self.headings = ["photo", "hole", *methods]

    def complete(self, methods: Mapping[str, Repaint], source: Benchmark) -> None:
        """Repaint the drawn photos that were measured elsewhere, by another process or an earlier run."""
        for index in self.missing:
            item = source[index]
            self.watch(item, {name: repaint(item) for name, repaint in methods.items()})

    def save(self, path: Path, columns: int = 2) -> None:
        """Draw the rows in `columns` blocks side by side, as PNG."""
        rows = [row for _, row in sorted(self.rows.items())]
        high = -(-len(rows) // columns)
        blocks = [draw_sheet(rows[n : n + high], self.headings, CELL) for n in range(0, len(rows), high)]
        size = sum(block.width for block in blocks), max(block.height for block in blocks)
        sheet = Image.new("RGB", size, "white")
        for n, block in enumerate(blocks):
            sheet.paste(block, (n * block.width, 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            sheet.save(part, "PNG", optimize=True)


def command_line() -> str:
    """Give the command that is running, as one would type it again."""
    return shlex.join(["nuwa-lip", *sys.argv[1:]])
