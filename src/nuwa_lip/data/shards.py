"""WebDataset shards of captioned photos: tars of `KEY.jpg` + `KEY.json` {"captions": [...], ...}.

Shards by img2dataset (`KEY.jpg`, `KEY.txt`, `KEY.json`) are read unchanged, and so are PNG and WebP. webdataset
opens addresses; JSON and pictures are decoded here, so that nothing in a shard is ever unpickled. What is damaged in a
shard is skipped, and one warning counts and names it; where too much is, reading ends with an error.
"""

import glob
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import braceexpand
import webdataset as wds
from PIL import Image, ImageOps, UnidentifiedImageError
from webdataset.tariterators import base_plus_ext

from nuwa_lip.data.objects import Outline
from nuwa_lip.data.order import check_weights
from nuwa_lip.data.remote import URL, check_scheme, open_shard
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.data.tars import BLOCK, Lost, members
from nuwa_lip.disk import clean, make_folder, parse_json, temporary_folder
from nuwa_lip.errors import InputError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
INTERNAL = re.compile(r"__[^/]*__($|/)")
"""Names of what webdataset says of a shard."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One captioned photo."""

    key: str
    image: Image.Image
    """RGB, upright: its EXIF orientation is applied."""
    captions: list[str]
    """The photo's captions; may be empty, because the first training stage needs photos only."""
    meta: dict[str, Any] = field(default_factory=dict)
    """The other fields of the JSON, such as source and licence."""
    objects: tuple[Outline, ...] = ()
    """The photo's annotated objects, in shares of it; shards do not keep them."""


class EncodedSample(NamedTuple):
    """A sample whose picture is still compressed: small enough to shuffle and to hand to other threads."""

    key: str
    picture: bytes
    captions: list[str]
    meta: dict[str, Any]


def expand_shards(urls: str | Path | Sequence[str | Path]) -> list[str]:
    """List the shards that paths, folders, globs, brace patterns and URLs stand for, in the order given.

    Raises:
        InputError: a local path is missing, a pattern matches nothing, or a URL would run a command.
    """
    shards: list[str] = []
    for given in [urls] if isinstance(urls, (str, Path)) else urls:
        try:
            expanded = list(braceexpand.braceexpand(str(given)))
        except ValueError as error:
            raise InputError(f"{given} is no pattern of shards: {error}") from error
        for url in expanded:
            shards.extend([url] if Path(url).is_file() else _expand(url))
    if not shards:
        raise InputError("no shards were given; name .tar files, a folder of them, or 'a pattern-*.tar'")
    return shards


def expand_sources(urls: str | Path | Sequence[str | Path], weights: Sequence[float] = ()) -> list[list[str]]:
    """List the shards of each source: of each of `urls` if they have weights, or of all of them together.

    Raises:
        InputError: see `expand_shards`; or there are not as many weights.
    """
    if not weights:
        return [expand_shards(urls)]
    given = [urls] if isinstance(urls, str | Path) else urls
    check_weights(given, weights)
    return [expand_shards(url) for url in given]


def _expand(url: str) -> list[str]:
    if scheme := URL.match(url):
        known = scheme[1] != "pipe" and (scheme[1] in wds.gopen_schemes or check_scheme(scheme[1]))
        if not known or re.search(r"['\"\s`\\]", url):
            raise InputError(f"{url} is no address that shards are read from; give a path or an https:// one")
        return [url]
    if Path(url).is_dir():
        found = sorted(str(path) for path in Path(url).glob("*.tar"))
        if not found:
            raise InputError(f"{url} holds no .tar shards; `nuwa-lip data shards` makes them")
        return found
    found = sorted(glob.glob(url))
    if not found:
        raise InputError(f"no shard at {url}; check the path")
    return found


def read_encoded(shards: Iterable[str], skipped: Skipped) -> Iterator[EncodedSample]:
    """Read shards (see `expand_shards`) one after another without decoding any picture.

    Args:
        shards: local files or URLs.
        skipped: collects the damaged shards and samples.
    """
    return (sample for sample, _, _ in read_placed(shards, skipped))


def read_placed(shards: Iterable[str], skipped: Skipped) -> Iterator[tuple[EncodedSample, int, int]]:
    """Read shards as `read_encoded` does, and tell at which bytes of its shard each sample begins and ends."""
    for shard in shards:
        name, lost, torn = Path(shard).name, 0, False
        skipped.shards += 1
        try:
            with closing(open_shard(shard)) as stream:
                for group in _groups(stream):
                    lost, torn = lost + group.lost, torn or group.torn
                    skipped.bytes += group.lost + sum(map(len, group.parts.values()))
                    if not group.key:
                        continue
                    try:
                        yield _parse(group), group.start, group.end
                    except ValueError as error:
                        skipped.add(f"{name}:{group.key}", error)
        except (OSError, ValueError) as error:
            skipped.failed += isinstance(error, OSError)
            skipped.add(name, getattr(error, "strerror", None) or error, sample=False)
        if torn:
            skipped.lost += lost
            skipped.add(name, f"{lost} bytes of it are noise" if lost else "it ends early", sample=False)


@dataclass
class _Group:
    """Files of one name in a row, by their lower-case endings."""

    key: str = ""
    parts: dict[str, bytes] = field(default_factory=dict)
    torn: bool = False
    """Whether something is lost right before or behind it, which may be of it."""
    lost: int = 0
    """Bytes lost before it."""
    start: int = 0
    end: int = 0
    """Where it lies in the shard, in bytes."""


def _groups(stream: BinaryIO) -> Iterator[_Group]:
    """Read a shard's files, and put those of one sample together; the last group may only tell what is lost."""
    group = _Group()
    for found in members(stream):
        if isinstance(found, Lost):
            group.torn = True
            yield group
            group = _Group(torn=True, lost=found.size)
            continue
        key, ending = base_plus_ext(found.name)
        if key is None or INTERNAL.match(found.name):
            continue
        if group.key and key != group.key:
            yield group
            group = _Group()
        if not group.key:
            group.start = found.start
        group.key, group.end = key, found.end
        group.parts.setdefault(ending.lower(), found.data)
    yield group


def parse_sample(data: bytes) -> EncodedSample:
    """Read one sample of a shard from its bytes, which `read_placed` has told.

    Raises:
        ValueError: there is no sample.
    """
    for group in _groups(io.BytesIO(data + bytes(2 * BLOCK))):  # zeros end a tar
        if group.key:
            return _parse(group)
    raise ValueError("no sample")


def _parse(group: _Group) -> EncodedSample:
    """Read one sample; of one beside damage half may be missing."""
    parts = {ending.rsplit(".", 1)[-1]: data for ending, data in group.parts.items()}
    pictures = [parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts]
    if not pictures:
        raise ValueError("no picture")
    meta = parse_json(parts["json"]) if "json" in parts else {}
    if not isinstance(meta, dict):
        raise ValueError("its JSON is not an object")
    captions = _captions(meta.pop("captions", None))
    if not captions and "txt" in parts:
        captions = _captions(parts["txt"].decode("utf-8"))
    captions = captions or _captions(meta.get("caption"))
    if group.torn and not captions:
        raise ValueError("the shard is damaged beside it")
    return EncodedSample(key=group.key, picture=pictures[0], captions=captions, meta=meta)


def _captions(value: object) -> list[str]:
    """Bring captions of any JSON type into a list without empty ones."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [text for text in (" ".join(clean(str(v)).split()) for v in values) if text]


def decode_picture(picture: bytes, least_side: int | None = None) -> Image.Image:
    """Decode a picture to upright RGB.

    Args:
        picture: a JPEG, PNG or WebP file.
        least_side: a JPEG may be decoded at a reduced size, for speed, with no side shorter than this, in pixels.

    Raises:
        ValueError: the file is damaged, not a picture, or far too large.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(picture))
        if least_side is not None:
            image.draft("RGB", (least_side, least_side))
        return upright_rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError("not a picture of a known format") from error
    except Exception as error:  # decoders of damaged files raise anything
        raise ValueError(str(error) or type(error).__name__) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation and convert to RGB; scale 16-bit greys, and put transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = image.convert("F").point(lambda value: value / 257.0).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy already


def read_samples(urls: str | Path | Sequence[str | Path], least_side: int | None = None) -> Iterator[Sample]:
    """Read captioned photos from shards, in the order of the shards.

    Args:
        urls: files, folders, globs, brace patterns (`set-{000000..000003}.tar`) or URLs.
        least_side: see `decode_picture`.

    Raises:
        InputError: a path is missing or no photo could be read.
    """
    shards, skipped, count = expand_shards(urls), Skipped(), 0
    for key, picture, captions, meta in read_encoded(shards, skipped):
        try:
            image = decode_picture(picture, least_side)
            sample = Sample(key=key, image=image, captions=captions, meta=meta)
        except ValueError as error:
            skipped.add(key, error)
            continue
        count += 1
        yield sample
    if not count:
        raise nothing_read(shards, skipped)
    skipped.warn(count)


def nothing_read(shards: Sequence[str], skipped: Skipped) -> InputError:
    """Make the error for shards without any readable photo."""
    why = f": {skipped}" if len(skipped) else ""
    return InputError(f"no photo could be read from {', '.join(shards[:3])}{why}")


def write_shards(
    samples: Iterable[Sample],
    folder: Path,
    *,
    prefix: str = "photos",
    image_format: str = "jpg",
    quality: int = 90,
    max_bytes: int = 48 * 2**20,
    overwrite: bool = False,
) -> list[Path]:
    """Write shards `PREFIX-000000.tar`, ...; the same samples give the same bytes.

    The shards get their names only when all of them are complete.

    Args:
        samples: captioned photos. Their keys are made unique, with dots and slashes replaced.
        folder: folder of the shards, made if missing.
        prefix: beginning of the file names.
        image_format: "jpg" or "png" (lossless).
        quality: JPEG's quality, 1..95.
        max_bytes: size in bytes from which on a shard is closed.
        overwrite: replace shards of the same prefix.

    Returns:
        The shards' paths.

    Raises:
        InputError: shards of this prefix exist, there is no sample, the folder cannot be written, or the format or
            prefix is not possible.
    """
    if image_format not in ("jpg", "png"):
        raise InputError(f"image format {image_format!r} is not jpg or png")
    if Path(prefix).name != prefix:
        raise InputError(f"prefix {prefix!r} cannot begin a file name: leave out the folder")
    _shards_there(folder, prefix, overwrite)
    with temporary_folder(folder / prefix) as part:
        written = _write(samples, part / prefix, image_format, quality, max_bytes)
        if not written:
            raise InputError("there was no photo to write")
        make_folder(folder)
        for path in _shards_there(folder, prefix, overwrite):
            path.unlink()
        return [path.rename(folder / path.name) for path in written]


def _shards_there(folder: Path, prefix: str, overwrite: bool) -> list[Path]:
    """Find the shards of a prefix, which must not be there unless they may be replaced."""
    old = sorted(folder.glob(f"{glob.escape(prefix)}-[0-9][0-9][0-9][0-9][0-9][0-9].tar"))
    if old and not overwrite:
        raise InputError(f"{old[0]} exists already; name another folder or give --overwrite")
    return old


def _write(samples: Iterable[Sample], start: Path, image_format: str, quality: int, max_bytes: int) -> list[Path]:
    """Write shards whose paths begin with `start`, and return them."""
    shards: list[Path] = []
    writer, size, seen = None, 0, set[str]()
    try:
        for sample in samples:
            if writer is None or size >= max_bytes:
                if writer is not None:
                    writer.close()
                shards.append(start.with_name(f"{start.name}-{len(shards):06d}.tar"))
                # fixed times and owners make the bytes a function of the samples alone
                writer, size = wds.TarWriter(str(shards[-1]), encoder=False, mtime=0, user="", group=""), 0
            key = _unique(re.sub(r"[^\w-]+", "_", sample.key, flags=re.ASCII)[:80], seen)
            text = json.dumps({"captions": sample.captions, **sample.meta}, ensure_ascii=False)
            picture = _encode(sample.image, image_format, quality)
            writer.write({"__key__": key, image_format: picture, "json": text.encode("utf-8", "replace")})
            size += len(picture) + len(text) + 2048  # two headers, padding
    finally:
        if writer is not None:
            writer.close()
    return shards


def _encode(image: Image.Image, image_format: str, quality: int) -> bytes:
    stream = io.BytesIO()
    if image_format == "png":
        image.save(stream, format="PNG", compress_level=6)
    else:
        image.save(stream, format="JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
    return stream.getvalue()


def _unique(key: str, seen: set[str]) -> str:
    number, candidate = 2, key
    while candidate in seen:
        number, candidate = number + 1, f"{key}-{number}"
    seen.add(candidate)
    return candidate
