"""Readers of published data sets: captioned photos as samples for shards and benchmarks.

folder               photos, with captions in NAME.txt (one a line), or in one CSV, TSV or JSONL file
coco                 a folder of photos and captions_*.json; instances_*.json has the objects
flickr30k            a folder of photos and results.csv (`image_name| comment_number| comment`) or .token
visual-genome        folders of photos and region_descriptions.json; each region is an object, its phrase a caption
conceptual-captions  caption<TAB>path without a header; an address instead of a path stands for the photo of that
                     name in the folder: nothing is downloaded

Listing a source opens no photo. A photo that is missing or damaged is skipped, counted and named later if the photos
become a training set, and refused if they become a benchmark, which would be another one without it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlparse

import numpy as np
from PIL import Image

from nuwa_lip.data.objects import Outline, read_coco_objects
from nuwa_lip.data.shards import Sample, decode_picture, read_samples
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.disk import clean, inside, lines_of, parse_json, read_text, regular
from nuwa_lip.errors import InputError

SourceKind = Literal["folder", "coco", "flickr30k", "visual-genome", "conceptual-captions"]
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
FILE_COLUMNS = ("file", "file_name", "filename", "filepath", "path", "image", "image_name", "image_path")
CAPTION_COLUMNS = ("caption", "captions", "text", "comment", "sentence", "title")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One photo of a source, not opened yet."""

    path: Path
    key: str
    captions: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    objects: tuple[Outline, ...] = ()
    """The annotated objects, in pixels of the annotated photo."""
    size: tuple[int, int] | None = None
    """Width and height in pixels of the annotated photo; None if the annotations do not have them."""


Captioned = TypeVar("Captioned", Entry, Sample)


@contextmanager
def _reading(file: Path, what: str) -> Iterator[None]:
    """Turn any error of a reader into one line: the file has another layout."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        why = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        raise InputError(f"{file} is not {what}: {why}") from None


def list_source(kind: SourceKind, images: Path, captions: Path | None = None) -> list[Entry]:
    """List the photos of a source with their captions.

    Args:
        kind: the layout; see the head of this module.
        images: folder of photos, searched with its subfolders.
        captions: file of the captions; may be left out for "folder" only.

    Raises:
        InputError: a path is missing, the file has another layout, or it names a photo outside of the folder.
    """
    if not images.is_dir():
        raise InputError(f"{images} is not a folder of photos")
    if captions is not None and not captions.is_file():
        raise InputError(f"no captions at {captions}")
    if captions is None:
        if kind != "folder":
            raise InputError(f"a {kind} source needs its captions file: --captions FILE")
        entries = _plain_folder(images)
    else:
        with _reading(captions, f"a captions file of the {kind} layout"):
            entries = READERS[kind](images, captions)
            # a file of captions may come from anybody: it names photos of this folder, and no other file
            entries = [replace(entry, path=inside(images, entry.path)) for entry in entries]
    if not entries:
        raise InputError(f"{captions or images} lists no photo; is it of the {kind} layout?")
    return entries


def take_split(entries: Sequence[Entry], file: Path, split: str) -> list[Entry]:
    """Choose the entries of one split of Karpathy's `dataset_*.json`.

    Args:
        entries: all entries of the source.
        file: the JSON file of splits.
        split: name of the split, such as "test".

    Raises:
        InputError: the file is missing or has another layout, there is no such split, or the entries lack a photo of
            it.
    """
    if not file.is_file():
        raise InputError(f"no splits at {file}")
    with _reading(file, "a file of splits like dataset_flickr30k.json"):
        photos = parse_json(read_text(file))["images"]
        splits = {photo["filename"]: photo["split"] for photo in photos}
    wanted = {name for name, of in splits.items() if of == split}
    if not wanted:
        raise InputError(f"{file} has no split {split!r}; it has {', '.join(sorted(set(splits.values())))}")
    chosen = [entry for entry in entries if entry.path.name in wanted]
    if lost := wanted - {entry.path.name for entry in chosen}:
        raise InputError(f"{file} has {min(lost)} in {split}, which has no captions; are both of one dataset?")
    return chosen


def add_objects(entries: Sequence[Entry], file: Path) -> list[Entry]:
    """Add the objects of `instances_*.json` to the entries of a COCO source.

    Raises:
        InputError: the file is missing, has another layout, or lists other photos.
    """
    if not file.is_file():
        raise InputError(f"no objects at {file}")
    with _reading(file, "an instances file of the coco layout"):
        objects = read_coco_objects(file)
    lost = [entry.path.name for entry in entries if entry.path.name not in objects]
    if lost:
        raise InputError(f"{file} does not list {lost[0]}, which has captions; are both of one dataset?")
    return [replace(entry, objects=objects[entry.path.name]) for entry in entries]


def with_license(photos: Iterable[Captioned], patterns: Sequence[str], source: str) -> Iterator[Captioned]:
    """Yield the photos whose stated licence contains one of the patterns, such as "/by/".

    Args:
        photos: entries or samples with the licence in `meta`.
        patterns: parts of a licence's name or address.
        source: name of the source, for the error.

    Raises:
        InputError: no photo has such a licence; known only after the last photo.
    """
    others: set[str] = set()
    found = False
    for photo in photos:
        licence = str(photo.meta.get("license") or "")
        if any(pattern in licence for pattern in patterns):
            found = True
            yield photo
        elif licence:
            others.add(licence)
    if found:
        return
    if not others:
        raise InputError(f"{source} states no licences; leave out --license, or take a source that does, such as coco")
    wanted = " or ".join(patterns)
    raise InputError(f"no photo of {source} has a licence with {wanted}; there are: {', '.join(sorted(others)[:8])}")


def load_entries(
    entries: Sequence[Entry],
    skipped: Skipped | None,
    *,
    size: int | None = None,
    least_side: int | None = None,
    workers: int = 2,
) -> Iterator[Sample]:
    """Open listed photos, in their order.

    Args:
        entries: photos listed by `list_source`.
        skipped: collects the photos that cannot be read; None makes them an error.
        size: reduce the short side to this, in pixels (never enlarge); None keeps the photo's size.
        least_side: see `decode_picture`; for callers that reduce the photo themselves.
        workers: number of threads.

    Raises:
        InputError: an annotated photo was cropped or replaced; or without `skipped`, a photo is missing or damaged.
    """

    def load(entry: Entry) -> Sample | None:
        try:
            picture = regular(entry.path).read_bytes()
            image = decode_picture(picture, least_side=size or least_side)
        except (OSError, ValueError) as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else error
            if skipped is None:
                raise InputError(f"{entry.path}: {why}; the annotations list it, get it again") from None
            skipped.add(entry.path.name, why)
            return None
        objects = _in_shares(entry, picture) if entry.objects else ()
        image = _reduce(image, size)
        return Sample(key=entry.key, image=image, captions=entry.captions, meta=entry.meta, objects=objects)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(entries), 64):  # a few at a time, because decoded photos are large
            yield from filter(None, pool.map(load, entries[start : start + 64]))


def shuffled(entries: Sequence[Entry], seed: int) -> list[Entry]:
    """Give the entries in random order, which training needs within and between shards."""
    return [entries[i] for i in np.random.default_rng(seed).permutation(len(entries))]


def open_source(source: Sequence[str | Path], least_side: int | None = None) -> Iterator[Sample]:
    """Read captioned photos at their own size from shards, or from one folder of photos with NAME.txt files.

    Args:
        source: shards (files, folders, patterns), or one folder of photos.
        least_side: see `decode_picture`.

    Raises:
        InputError: a path is missing or no photo could be read.
    """
    folder = Path(source[0]) if len(source) == 1 else None
    if folder is None or not folder.is_dir() or any(folder.glob("*.tar")):
        yield from read_samples(source, least_side)
        return
    skipped, count = Skipped(), 0
    for sample in load_entries(list_source("folder", folder), skipped, least_side=least_side):
        count += 1
        yield sample
    if not count:
        raise InputError(f"no photo in {folder} could be read: {skipped}")
    skipped.warn()


def _in_shares(entry: Entry, picture: bytes) -> tuple[Outline, ...]:
    """Give the entry's objects in shares of its photo, which may be a resized copy of the annotated one."""
    found = Image.open(io.BytesIO(picture)).size
    width, height = entry.size or found
    if abs(width * found[1] - height * found[0]) > 0.02 * width * found[1]:
        sizes = f"{found[0]}x{found[1]}, its annotations are of {width}x{height}"
        raise InputError(f"{entry.path} is {sizes}: it was cropped or is another photo; get it again")
    return tuple(outline.within(0, 0, width, height) for outline in entry.objects)


def _reduce(image: Image.Image, size: int | None) -> Image.Image:
    short = min(image.size)
    if size is None or short <= size:
        return image
    width, height = (round(side * size / short) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _photos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())


def _key(images: Path, path: Path) -> str:
    """Make a key of the path below the folder, without its ending: names may repeat between subfolders."""
    relative = path.relative_to(images) if path.is_relative_to(images) else Path(path.name)
    return relative.with_suffix("").as_posix()


def _plain_folder(images: Path) -> list[Entry]:
    entries = []
    for path in _photos(images):
        text = path.with_suffix(".txt")
        lines = lines_of(read_text(text, "utf-8-sig", "replace")) if text.is_file() else []
        captions = [line.strip() for line in lines]
        entries.append(Entry(path=path, key=_key(images, path), captions=captions, meta={"source": "folder"}))
    return entries


def _grouped(images: Path, pairs: Iterator[tuple[str, str]], source: str) -> list[Entry]:
    """Make entries from (file name, caption) pairs, each with all captions of its photo."""
    captions: dict[str, list[str]] = {}
    for name, caption in pairs:
        captions.setdefault(name.strip(), []).append(" ".join(clean(caption).split()))
    return [
        Entry(path=images / name, key=_key(images, images / name), captions=texts, meta={"source": source})
        for name, texts in captions.items()
    ]


def _table(images: Path, captions: Path, source: str = "folder") -> list[Entry]:
    """Read a CSV, TSV or JSONL file with a column of file names and one of captions."""
    return _grouped(images, _table_pairs(captions), source)


def _table_pairs(captions: Path) -> Iterator[tuple[str, str]]:
    with open(captions, encoding="utf-8-sig", newline="") as stream:
        rows: Iterator[dict[str, Any]]
        if captions.suffix.lower() in (".jsonl", ".ndjson"):
            rows = (parse_json(line) for line in stream if line.strip())
        else:
            delimiter = "\t" if captions.suffix.lower() == ".tsv" else ","
            rows = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
        for row in rows:
            name, text = _column(row, FILE_COLUMNS, captions), _column(row, CAPTION_COLUMNS, captions)
            for caption in text if isinstance(text, list) else [text]:
                yield str(name), str(caption)


def _column(row: dict[str, Any], names: tuple[str, ...], file: Path) -> Any:
    for column, value in row.items():
        if column is not None and column.strip().lower() in names and value is not None:
            return value
    found = ", ".join(map(str, row))[:120]
    raise InputError(f"{file} has the columns {found}; one of them must be named {' or '.join(names)}")


def _coco(images: Path, captions: Path) -> list[Entry]:
    content = parse_json(read_text(captions))
    licences = {licence["id"]: licence.get("url") for licence in content.get("licenses", [])}
    texts: dict[int, list[str]] = {}
    for annotation in content["annotations"]:
        texts.setdefault(annotation["image_id"], []).append(clean(annotation["caption"]).strip())
    if lost := texts.keys() - {photo["id"] for photo in content["images"]}:
        raise ValueError(f"it has captions for photo {min(lost)}, which it does not list")
    entries = []
    for photo in content["images"]:
        name = photo["file_name"]
        meta = {"source": "coco"}
        if licence := licences.get(photo.get("license")):
            meta["license"] = licence
        if url := photo.get("flickr_url"):
            meta["url"] = url
        size = (photo["width"], photo["height"]) if "width" in photo else None
        texts_of = texts.get(photo["id"], [])
        entries.append(Entry(path=images / name, key=Path(name).stem, captions=texts_of, meta=meta, size=size))
    return entries


def _flickr30k(images: Path, captions: Path) -> list[Entry]:
    with open(captions, encoding="utf-8-sig") as stream:
        first = stream.readline()
    if "|" not in first and "#" not in first:
        return _table(images, captions, "flickr30k")
    return _grouped(images, _flickr_pairs(captions), "flickr30k")


def _flickr_pairs(captions: Path) -> Iterator[tuple[str, str]]:
    # `NAME.jpg| 0| text` (one line of the published file lacks the second bar), or `NAME.jpg#0<TAB>text`
    line_form = re.compile(r"(?P<name>[^|#]+?)\s*[|#]\s*\d+\s*[|\t ]\s*(?P<text>.*)")
    with open(captions, encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            match = line_form.fullmatch(line.strip())
            if match:
                yield match["name"], match["text"]
            elif line.strip() and number > 1:  # the first may be the header
                raise ValueError(f"line {number} is {line.strip()[:60]!r}")


def _visual_genome(images: Path, captions: Path) -> list[Entry]:
    files = {path.stem: path for path in _photos(images)}  # spread over VG_100K and VG_100K_2
    entries = []
    for photo in parse_json(read_text(captions)):
        name = str(photo.get("id", photo.get("image_id")))
        objects = []
        for region in photo["regions"]:
            left, top, phrase = region["x"], region["y"], " ".join(clean(region["phrase"]).split())
            objects.append(Outline((left, top, left + region["width"], top + region["height"]), (), phrase))
        entries.append(
            Entry(
                path=files.get(name, images / f"{name}.jpg"),
                key=name,
                captions=list(dict.fromkeys(outline.phrase for outline in objects if outline.phrase)),
                meta={"source": "visual-genome"},
                objects=tuple(objects),
            )
        )
    return entries


def _conceptual_captions(images: Path, captions: Path) -> list[Entry]:
    return _grouped(images, _conceptual_pairs(captions), "conceptual-captions")


def _conceptual_pairs(captions: Path) -> Iterator[tuple[str, str]]:
    with open(captions, encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if len(row) < 2:
                raise ValueError(f"line {number} has no tab")
            text, place = row[:2]
            if text.startswith(("http://", "https://")):  # CC12M has the columns the other way round
                text, place = place, text
            if place.startswith(("http://", "https://")):
                place = Path(unquote(urlparse(place).path)).name
            yield place, text


READERS: dict[str, Callable[[Path, Path], list[Entry]]] = {
    "folder": _table,
    "coco": _coco,
    "flickr30k": _flickr30k,
    "visual-genome": _visual_genome,
    "conceptual-captions": _conceptual_captions,
}
