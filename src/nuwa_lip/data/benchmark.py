"""Benchmark folders: real photos, captions and frozen masks, hashed so that two figures are comparable.

    images/NNNNN.png  masks/NNNNN.png (white = repaint)  captions.jsonl  benchmark.json

`benchmark.json` holds the source, the mask rule, the seed, and hashes of pixels and captions; pixels and not
files, because PNG files of the same picture differ between versions of the compressor. Building is a pure
function of (source, rule, seed, limit): mask i depends on nothing but the seed, i and the photo's size.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nuwa_lip.data.masks import MaskRecipe, random_mask
from nuwa_lip.data.shards import Sample
from nuwa_lip.errors import InputError

FORMAT_VERSION = 1
RULES = ("rectangles", "strokes", "border", "center")


@dataclass(frozen=True, kw_only=True)
class BenchmarkItem:
    """One photo to repaint."""

    index: int
    name: str
    """Number with five digits, the files' name without ending."""
    image: np.ndarray
    """uint8 [H, W, 3], complete."""
    mask: np.ndarray
    """bool [H, W], True = to repaint."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark folder; iterating reads one photo at a time."""

    folder: Path
    info: dict[str, Any]
    """benchmark.json."""
    captions: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of everything: equal hashes mean equal photos, masks and captions."""
        return str(self.info["sha256"])

    def __len__(self) -> int:
        return len(self.captions)

    def __iter__(self) -> Iterator[BenchmarkItem]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> BenchmarkItem:
        name = f"{index:05d}"
        image = load_photo(self.folder / "images" / f"{name}.png")
        mask_file = self.folder / "masks" / f"{name}.png"
        mask = load_photo(mask_file)[..., 0] >= 128
        if mask.shape != image.shape[:2]:
            sizes = f"{mask.shape[1]}x{mask.shape[0]}; its photo is {image.shape[1]}x{image.shape[0]}"
            raise InputError(f"{mask_file} is {sizes}")
        if not mask.any():
            raise InputError(f"{mask_file} is empty: nothing to repaint")
        return BenchmarkItem(index=index, name=name, image=image, mask=mask, caption=self.captions[index])


def load_photo(path: Path) -> np.ndarray:
    """A PNG of a benchmark or of its results as uint8 [H, W, 3]."""
    try:
        with Image.open(path) as photo:
            return np.asarray(photo.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read as a picture: {error}") from None


def rule_mask(rule: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the mask bool [H, W] of a rule such as `rectangles-40-60`: kind, least and largest per cent.

    Kinds: rectangles, strokes, border (a frame to paint outwards), center (a box in the middle).
    """
    kind, low, high = _parse_rule(rule)
    if kind != "center":
        chances = {name: float(name == kind) for name in ("rectangles", "strokes", "border", "everything", "nothing")}
        return random_mask(height, width, MaskRecipe(ratio=(low, high), **chances), rng)
    side = float(np.sqrt(rng.uniform(low, high)))  # of the photo's sides
    h, w = (max(1, round(side * n)) for n in (height, width))
    mask = np.zeros((height, width), dtype=bool)
    top, left = (height - h) // 2, (width - w) // 2
    mask[top : top + h, left : left + w] = True
    return mask


def build_benchmark(
    samples: Iterable[Sample], *, source: str, rule: str, seed: int, out: Path, limit: int | None = None
) -> Benchmark:
    """Write a benchmark folder; `out` appears only once it is complete.

    Args:
        samples: captioned photos; kept at their own size, each with its first caption.
        source: where they come from, for the record.
        rule: see `rule_mask`.
        seed: of the masks.
        out: folder that does not exist yet.
        limit: number of photos, the first ones; None for all.

    Raises:
        InputError: `out` exists, the rule is unknown, or there is no photo.
    """
    _parse_rule(rule)
    if out.exists():
        raise InputError(f"{out} exists already; name another folder or remove it")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name in ("images", "masks"):
            (part / name).mkdir(parents=True)
        _write_items(part, samples, source, rule, seed, limit)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return read_benchmark(out)


def _write_items(folder: Path, samples: Iterable[Sample], source: str, rule: str, seed: int, limit: int | None) -> None:
    items = []
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as captions:
        for index, sample in enumerate(samples):
            if index == limit:
                break
            image = np.asarray(sample.image.convert("RGB"))
            height, width = image.shape[:2]
            mask = rule_mask(rule, height, width, np.random.default_rng([seed, index]))
            caption = sample.captions[0] if sample.captions else ""
            item = BenchmarkItem(index=index, name=f"{index:05d}", image=image, mask=mask, caption=caption)
            Image.fromarray(image).save(folder / "images" / f"{item.name}.png", compress_level=1)
            as_bytes = mask.astype(np.uint8) * 255
            Image.fromarray(as_bytes).save(folder / "masks" / f"{item.name}.png", compress_level=1)
            line = {"name": item.name, "caption": caption, "captions": sample.captions, "key": sample.key}
            captions.write(json.dumps(line, ensure_ascii=False) + "\n")
            items.append(_describe(item))
    if not items:
        raise InputError(f"{source} holds no photo")
    info = {
        "format_version": FORMAT_VERSION,
        "source": source,
        "rule": rule,
        "seed": seed,
        "n": len(items),
        "sha256": _overall(items),
        "items": items,
    }
    (folder / "benchmark.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def read_benchmark(folder: Path) -> Benchmark:
    """Open a benchmark folder; its pictures are read when they are asked for."""
    info_file, captions_file = folder / "benchmark.json", folder / "captions.jsonl"
    for path in (info_file, captions_file):
        if not path.is_file():
            raise InputError(f"{folder} is not a benchmark folder: {path.name} is missing")
    try:
        info = json.loads(info_file.read_text(encoding="utf-8"))
        lines = captions_file.read_text(encoding="utf-8").splitlines()
        captions = tuple(str(json.loads(line)["caption"]) for line in lines)
        version, n = int(info["format_version"]), int(info["n"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is damaged: {error}; build it again") from None
    if version > FORMAT_VERSION:
        raise InputError(f"{info_file} has format {version}; this nuwa-lip reads up to {FORMAT_VERSION}")
    if n != len(captions):
        raise InputError(f"{folder} is damaged: {n} photos but {len(captions)} captions; build it again")
    return Benchmark(folder=folder, info=info, captions=captions)


def verify_benchmark(benchmark: Benchmark) -> None:
    """Read everything and compare with the hashes; raises InputError at the first difference."""
    items = []
    for item, expected in zip(benchmark, benchmark.info["items"], strict=True):
        found = _describe(item)
        for what in found:
            if found[what] != expected[what]:
                raise InputError(f"{benchmark.folder}: {what} of {item.name} differs from benchmark.json")
        items.append(found)
    if _overall(items) != benchmark.sha256:
        raise InputError(f"{benchmark.folder}: the sha256 in benchmark.json does not belong to its list of items")


def _describe(item: BenchmarkItem) -> dict[str, Any]:
    return {
        "name": item.name,
        "size": [item.image.shape[1], item.image.shape[0]],  # width, height
        "hole": round(float(item.mask.mean()), 4),
        "image": hashlib.sha256(item.image.tobytes()).hexdigest(),
        "mask": hashlib.sha256(np.packbits(item.mask).tobytes()).hexdigest(),
        "caption": hashlib.sha256(item.caption.encode()).hexdigest(),
    }


def _overall(items: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()


def _parse_rule(rule: str) -> tuple[str, float, float]:
    """`rectangles-40-60` → ("rectangles", 0.4, 0.6)."""
    match = re.fullmatch(rf"({'|'.join(RULES)})-(\d{{1,3}})-(\d{{1,3}})", rule)
    low, high = (int(match[2]) / 100, int(match[3]) / 100) if match else (0.0, 0.0)
    if not match or not 0 < low <= high <= 1:
        kinds = ", ".join(RULES)
        raise InputError(f"mask rule {rule!r} is not like rectangles-40-60; kinds: {kinds}")
    return match[1], low, high
