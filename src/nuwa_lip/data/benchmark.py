"""Benchmark folders: real photos, captions and frozen masks, hashed so that two figures are comparable.

    images/NNNNN.png  masks/NNNNN.png (white = repaint)  captions.jsonl  benchmark.json

`benchmark.json` holds the source, the mask rule, the seed, and hashes of pixels and captions. Pixels are hashed, not
files, because PNG files of the same picture differ between versions of the compressor. Every item that is read is
compared with its hashes, so that a figure's benchmark is the one whose hash stands beside it. Building is a pure
function of (source, rule, seed, limit, size): mask i depends on the seed, i, the photo's size and its objects only.
Folders of the official layout (see `official`) are read as well.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.Image import Resampling
from torch import Tensor

from nuwa_lip.data.masked import Masked
from nuwa_lip.data.masks import parse_rule, rule_mask
from nuwa_lip.data.objects import OBJECT_KINDS, best_phrase
from nuwa_lip.data.official import is_official, list_official, read_mask_pickle
from nuwa_lip.data.shards import Sample
from nuwa_lip.disk import clean, make_folder, parse_json, read_text, regular, write_json, written_folder
from nuwa_lip.errors import InputError
from nuwa_lip.images.png import write_png

FORMAT_VERSION = 1
MASK_OPTIONS = {"compress_level": 1, "compress_type": 3}
"""Options for Pillow: compression of type 3 is zlib's run-length encoding."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkItem:
    """One photo to repaint."""

    index: int
    name: str
    """The files' name without ending: a number with five digits."""
    image: np.ndarray
    """uint8 [H, W, 3], complete."""
    mask: np.ndarray
    """bool [H, W], True = to repaint."""
    caption: str
    license: str | None = None
    """The photo's licence, as its source states it."""
    url: str | None = None
    """Where the photo is published."""

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Give the complete photo, float32 [1, 3, H, W] in [-1, 1], and its mask, bool [1, 1, H, W]."""
        image = torch.from_numpy(self.image).permute(2, 0, 1)[None].float() / 127.5 - 1
        return image, torch.from_numpy(self.mask)[None, None]


class ItemFiles(NamedTuple):
    """The files of one item, and where its photo comes from."""

    name: str
    image: Path
    mask: Path
    license: str | None = None
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark folder. Iterating reads one photo at a time."""

    folder: Path
    info: dict[str, Any]
    """The content of benchmark.json."""
    captions: tuple[str, ...]
    files: tuple[ItemFiles, ...]

    @cached_property
    def sha256(self) -> str:
        """The hash of all items: equal hashes mean equal photos, masks and captions."""
        if "sha256" in self.info:
            return str(self.info["sha256"])
        return _overall([_describe(item) for item in self])  # the official layout has none: read all of it

    def __len__(self) -> int:
        return len(self.captions)

    def __iter__(self) -> Iterator[BenchmarkItem]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> BenchmarkItem:
        name, image_file, mask_file, licence, url = self.files[index]
        image = load_photo(image_file)
        if mask_file.suffix == ".pkl":
            mask = read_mask_pickle(mask_file)
        else:
            mask = load_photo(mask_file)[..., 0] >= 128
        if mask.shape != image.shape[:2]:
            sizes = f"{mask.shape[1]}x{mask.shape[0]}; its photo is {image.shape[1]}x{image.shape[0]}"
            raise InputError(f"{mask_file} is {sizes}")
        if not mask.any():
            raise InputError(f"{mask_file} is empty: nothing to repaint")
        item = BenchmarkItem(
            index=index,
            name=name,
            image=image,
            mask=mask,
            caption=self.captions[index],
            license=licence,
            url=url,
        )
        self._check(item)
        return item

    def _check(self, item: BenchmarkItem) -> None:
        """Compare an item with its hashes. The official layout has none."""
        if "items" not in self.info:
            return
        files, expected = self.files[item.index], self.info["items"][item.index]
        line = f"{self.folder / 'captions.jsonl'}, line {item.index + 1},"
        places = {"hole": files.mask, "mask": files.mask, "caption": line}
        for what, found in _describe(item).items():
            if found != expected.get(what):
                place = places.get(what, files.image)
                raise InputError(f"{place} differs from benchmark.json: restore it, or build the benchmark again")


def load_photo(path: Path) -> np.ndarray:
    """Read a picture of a benchmark or of its results, uint8 [H, W, 3].

    Raises:
        InputError: the file is missing or cannot be read as a picture.
    """
    try:
        with Image.open(regular(path)) as photo:
            return np.asarray(photo.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read as a picture: {error}") from None


def build_benchmark(
    samples: Iterable[Sample],
    *,
    source: str,
    rule: str,
    seed: int,
    out: Path,
    limit: int | None = None,
    size: int | None = None,
) -> Benchmark:
    """Write a benchmark folder; `out` appears only once it is complete.

    Args:
        samples: captioned photos. An item's caption is the phrase of the object that its hole hides, or where objects
            have no phrases, the photo's first caption.
        source: where the photos come from, for the record.
        rule: see `rule_mask`.
        seed: seed of the masks.
        out: folder that does not exist yet.
        limit: take this many photos from the start; None takes all.
        size: side in pixels of the centre square that is cut from each photo; None keeps the photo's size.

    Raises:
        InputError: `out` exists or cannot be made, the rule is unknown, there is no photo, or no object for a rule of
            objects.
    """
    parse_rule(rule)
    items = _items(samples, source, rule, seed, limit, size)
    return _write(items, {"source": source, "rule": rule, "seed": seed, "size": size}, out)


def build_masked(
    samples: Iterable[Masked],
    *,
    source: str,
    rule: str,
    out: Path,
    limit: int | None = None,
    size: int | None = None,
) -> Benchmark:
    """Write a benchmark folder of photos that bring their masks (`masked`), as `build_benchmark` does.

    Args:
        samples: captioned photos with masks; those with nothing to repaint are left out, with a warning.
        source, out, limit, size: as for `build_benchmark`; of the masks a pixel is hole if any under it is.
        rule: what the masks are, for the record.

    Raises:
        InputError: `out` exists or cannot be made, or there is no photo with a hole.
    """
    items = _masked_items(samples, source, limit, size)
    return _write(items, {"source": source, "rule": rule, "seed": None, "size": size}, out)


def _write(items: Iterable[tuple[BenchmarkItem, Sample]], about: Mapping[str, Any], out: Path) -> Benchmark:
    """Write items, and what is to be recorded of them, into a folder that appears once it is complete."""
    if out.exists():
        raise InputError(f"{out} exists already; name another folder or remove it")
    with written_folder(out, replace=False) as part:
        make_folder(part / "images")
        make_folder(part / "masks")
        described = []
        with open(part / "captions.jsonl", "w", encoding="utf-8", errors="replace") as captions:
            for item, sample in items:
                _write_pictures(part, item)
                line = {"name": item.name, "caption": item.caption, "captions": sample.captions, "key": sample.key}
                line |= {name: value for name in ("license", "url") if (value := _stated(sample.meta, name))}
                captions.write(json.dumps(line, ensure_ascii=False) + "\n")
                described.append(_describe(item))
        info = {"format_version": FORMAT_VERSION, **about}
        info |= {"n": len(described), "sha256": _overall(described), "items": described}
        write_json(part / "benchmark.json", info, indent=1)
    return read_benchmark(out)


def _items(
    samples: Iterable[Sample], source: str, rule: str, seed: int, limit: int | None, size: int | None
) -> Iterator[tuple[BenchmarkItem, Sample]]:
    """Give photos with their masks, and warn at the end about what is not as asked."""
    kind, low, high = parse_rule(rule)
    index = without = outside = enlarged = 0
    for sample in samples:
        if size is not None:
            enlarged += min(sample.image.size) < size
            sample = _square(sample, size)
        image = np.asarray(sample.image.convert("RGB"))
        height, width = image.shape[:2]
        mask = rule_mask(rule, height, width, np.random.default_rng([seed, index]), sample.objects)
        if mask is None:
            without += 1
            continue
        outside += kind in OBJECT_KINDS and not low <= mask.mean() <= high
        caption = best_phrase(sample.objects, mask) or next(iter(sample.captions), "")
        yield BenchmarkItem(index=index, name=f"{index:05d}", image=image, mask=mask, caption=caption), sample
        index += 1
        if index == limit:
            break
    if not index and without:
        raise InputError(f"{source} has no objects for the rule {rule}; rectangles, strokes, border, centre need none")
    if not index:
        raise InputError(f"{source} holds no photo")
    for count, what in (
        (without, "photos left out, as no object in them can be hidden"),
        (outside, f"holes outside of {low:.0%} to {high:.0%}, as no object is of that size and the nearest was taken"),
        (enlarged, f"photos enlarged, as they are smaller than {size} pixels"),
    ):
        if count:
            warnings.warn(f"{what}: {count}", UserWarning, stacklevel=3)


def _masked_items(
    samples: Iterable[Masked], source: str, limit: int | None, size: int | None
) -> Iterator[tuple[BenchmarkItem, Sample]]:
    """Give photos with the masks that they bring."""
    index = empty = 0
    for sample, mask in samples:
        if size is not None:
            hole = _square(replace(sample, image=Image.fromarray(mask.astype(np.uint8) * 255)), size, Resampling.BOX)
            sample, mask = _square(sample, size), np.asarray(hole.image) > 0
        if not mask.any():
            empty += 1
            continue
        image, caption = np.asarray(sample.image.convert("RGB")), next(iter(sample.captions), "")
        yield BenchmarkItem(index=index, name=f"{index:05d}", image=image, mask=mask, caption=caption), sample
        index += 1
        if index == limit:
            break
    if not index:
        raise InputError(f"{source} holds no photo with something to repaint")
    if empty:
        warnings.warn(f"photos left out, as their masks are empty: {empty}", UserWarning, stacklevel=3)


def _square(sample: Sample, size: int, resampling: Resampling = Resampling.LANCZOS) -> Sample:
    """Cut out a photo's centre square and resize it to `size` pixels; move its objects with it."""
    width, height = sample.image.size
    side = min(width, height)
    window = ((1 - side / width) / 2, (1 - side / height) / 2, side / width, side / height)
    image = sample.image
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), resampling)
    return replace(sample, image=image, objects=tuple(outline.within(*window) for outline in sample.objects))


def _stated(meta: Mapping[str, Any], name: str) -> str | None:
    return str(meta[name]) if meta.get(name) else None


def _write_pictures(folder: Path, item: BenchmarkItem) -> None:
    write_png(Image.fromarray(item.image), folder / "images" / f"{item.name}.png")
    mask = Image.fromarray(item.mask.astype(np.uint8) * 255)
    mask.save(folder / "masks" / f"{item.name}.png", "PNG", **MASK_OPTIONS)


def read_benchmark(folder: Path) -> Benchmark:
    """Open a benchmark folder, or one of the official layout. Pictures are read later, when an item is asked for.

    Raises:
        InputError: the folder is not a benchmark, is damaged, or has a newer format.
    """
    info_file, captions_file = folder / "benchmark.json", folder / "captions.jsonl"
    if not info_file.is_file() and is_official(folder):
        return _read_official(folder)
    for path in (info_file, captions_file):
        if not path.is_file():
            raise InputError(f"{folder} is not a benchmark folder: {path.name} is missing")
    try:
        info = parse_json(read_text(info_file))
        lines = read_text(captions_file).split("\n")[:-1]
        about = [parse_json(line) for line in lines]
        captions = tuple(clean(str(line["caption"])) for line in about)
        version, n, items = int(info["format_version"]), int(info["n"]), len(info["items"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is damaged: {error}; build it again") from None
    if version > FORMAT_VERSION:
        raise InputError(f"{info_file} has format {version}; this nuwa-lip reads up to {FORMAT_VERSION}")
    if not n == items == len(captions):
        counts = f"{n} photos, {items} hashes, {len(captions)} captions"
        raise InputError(f"{folder} is damaged: {counts}; build it again")
    if _overall(info["items"]) != info.get("sha256"):
        raise InputError(f"{info_file} is damaged: its sha256 does not belong to its items; build it again")
    files = tuple(_item_files(folder, f"{i:05d}", line) for i, line in enumerate(about))
    return Benchmark(folder=folder, info=info, captions=captions, files=files)


def _item_files(folder: Path, name: str, line: Mapping[str, Any]) -> ItemFiles:
    image, mask = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
    return ItemFiles(name, image, mask, _stated(line, "license"), _stated(line, "url"))


def _read_official(folder: Path) -> Benchmark:
    items = list_official(folder)
    return Benchmark(
        folder=folder,
        info={"source": folder.name, "layout": "official", "n": len(items)},
        captions=tuple(item.caption for item in items),
        files=tuple(ItemFiles(item.name, item.photo, item.mask) for item in items),
    )


def verify_benchmark(benchmark: Benchmark) -> None:
    """Read every item, which compares it with its hashes.

    Raises:
        InputError: a file differs (the line names the first that does), or the folder holds no hashes.
    """
    if "items" not in benchmark.info:
        raise InputError(f"{benchmark.folder} has the official layout, which holds no hashes to check")
    for _ in benchmark:
        pass


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
