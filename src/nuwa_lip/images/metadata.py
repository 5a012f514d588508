"""What rides beside the pixels: read wherever a format has it, cleaned of the old hole, kept where the next one can.

A photo's `info` holds exif (`images.exif`), icc_profile, dpi, aspect (how many pixels across are as long as how many
down, where these differ), xmp, iptc, comments (a list of bytes), and PNG's chunks: texts and colours, lists of (kind,
data).
"""

import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin

XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG = 700, 33723, 34377
IPTC_RESOURCE = 0x0404  # within a Photoshop block
PHOTOSHOP = b"Photoshop 3.0\0"
COLOUR_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB", b"mDCV", b"cLLI")
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
RAW_PROFILE = b"Raw profile type "  # ImageMagick's way to put EXIF, IPTC and XMP into texts
MOST = 2**26  # bytes of a text that is unpacked
MARKER = 65533  # bytes that a JPEG's segment holds
XMP_ROOM = MARKER - 29  # bytes of XMP that a JPEG holds
PACKED = 2**20  # bytes of a compressed profile or text of a PNG beyond which Pillow, among others, refuses the picture
ORIENTATION = re.compile(rb"""(:Orientation\s*(?:=\s*["']|>)\s*)[0-9]+(?=\s*["'<])""")
SMALL_PICTURES = re.compile(rb"<(\w+:Thumbnails)\b")
PICTURE_DATA = re.compile(rb"\b(?:GImage|GDepth|xmpGImg):(?:Data|image)\b")
EXTENDED = re.compile(rb"""\s\w+:HasExtendedXMP\s*=\s*["'][^"'<]*["']|<(\w+:HasExtendedXMP)>[^<]*</\1>""")
SRGB = {(b"gAMA", struct.pack(">I", 45455))} | {
    (b"cHRM", struct.pack(">8I", 31270, 32900, red, 33000, 30000, 60000, 15000, 6000)) for red in (64000, 63999)
}
"""Chunks that say what is meant where nothing is said."""
HOLDS = {  # what each format has a place for
    "PNG": {"exif", "icc_profile", "dpi", "aspect", "xmp", "iptc", "comments", "texts", "colours"},
    "JPEG": {"exif", "icc_profile", "dpi", "aspect", "xmp", "iptc", "comments"},
    "TIFF": {"exif", "icc_profile", "dpi", "aspect", "xmp", "iptc"},
    "WEBP": {"exif", "icc_profile", "xmp"},
}
NAMES = {
    "exif": "the EXIF block",
    "icc_profile": "the colour profile",
    "dpi": "the resolution",
    "aspect": "the shape of a pixel",
    "xmp": "XMP",
    "iptc": "IPTC",
    "comments": "the comment",
    "texts": "texts",
    "colours": "gamma and primaries",
}
SILENT = {"dpi"}
"""Nobody misses these where the format has no place for them."""


def read_metadata(image: Image.Image) -> dict[str, Any]:
    """Read what rides beside the pixels of an opened picture, all but EXIF, in the words of this module.

    Thumbnails within XMP, which still show the old hole, and the orientation that it states, which will not be true of
    the upright result, are cleaned; what cannot be cleaned is left out with a warning.
    """
    info, chunks = image.info, image.info.get("chunks", [])
    tags: Any = getattr(image, "tag_v2", {})
    comments = [data for kind, data in getattr(image, "applist", []) if kind == "COM"]
    if not comments and isinstance(comment := info.get("comment"), str | bytes):
        comments = [comment.encode() if isinstance(comment, str) else comment]
    profile = info.get("icc_profile")
    kept = {
        "icc_profile": profile if isinstance(profile, bytes) else None,
        "dpi": _resolution(info.get("dpi")),
        "aspect": _aspect(image),
        "xmp": clean_xmp(_bytes(info.get("xmp", tags.get(XMP_TAG)))),
        "iptc": _iptc(image, chunks),
        "comments": [comment for comment in comments if comment.strip(b"\0 ")],
        "texts": [(kind, data) for kind, data in chunks if kind in TEXT_CHUNKS and not _is_block(data)],
        "colours": [(kind, data) for kind, data in chunks if kind in COLOUR_CHUNKS],
    }
    if (kept["aspect"] and info.get("jfif_unit") == 0) or (image.format == "TIFF" and 282 not in tags):
        kept["dpi"] = None  # Pillow's, for want of one
    return {key: value for key, value in kept.items() if value}


def read_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Give (kind, data) of the chunks of an open PNG file that say what its colours mean, and of its texts."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in COLOUR_CHUNKS or kind in TEXT_CHUNKS:
            data, check = file.read(length), file.read(4)
            if len(data) == length and check == struct.pack(">I", zlib.crc32(kind + data)):
                yield kind, data
        else:
            file.seek(length + 4, 1)


def fitting(info: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Keep what a format (Pillow's name) can hold of a photo's `info`; a warning names what it cannot.

    Args:
        info: as `read_metadata` gives it, with `exif`.
        name: the format.
        path: the file to be written, for the warning.
    """
    given = {key: info[key] for key in NAMES if info.get(key)}
    if given.get("comments") is None and name == "JPEG" and (comments := _comments(given.get("texts", []))):
        given["comments"] = comments
        given["texts"] = [chunk for chunk in given["texts"] if not _is_comment(chunk[1])]
    kept = {key: value for key, value in given.items() if key in HOLDS[name] and _fits(key, value, name)}
    if isinstance(kept.get("aspect"), tuple) and "dpi" in kept:
        del kept["aspect"]  # two resolutions say the same
    lost = [key for key, value in given.items() if key not in kept and value and key not in SILENT]
    if "colours" in lost and _is_srgb(given["colours"]):
        lost.remove("colours")
    if "aspect" in lost and "dpi" in kept:
        lost.remove("aspect")
    for big in (True, False):
        words = [NAMES[key] for key in lost if (key in HOLDS[name]) == big]
        if words:
            listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
            why = "has not enough room for" if big else "has no place for"
            warnings.warn(f"{path}: {name} {why} {listed}, left out; {_better(lost, name)}", stacklevel=4)
    return kept


def _is_srgb(chunks: list[tuple[bytes, bytes]]) -> bool:
    """Whether chunks say what is meant where nothing is said; beside sRGB, gAMA and cHRM are for old programs."""
    kinds = {kind for kind, _ in chunks}
    return all(chunk in SRGB for chunk in chunks) or (b"sRGB" in kinds and kinds <= {b"sRGB", b"gAMA", b"cHRM"})


def _better(lost: list[str], name: str) -> str:
    """Name the endings that keep what is lost."""
    endings = {"PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "JPEG": ".jpg"}
    able = [endings[other] for other, held in HOLDS.items() if other != name and set(lost) <= held]
    return f"{' and '.join(able[:2])} can keep it" if able else "no other format keeps it all"


def _fits(key: str, value: Any, name: str) -> bool:
    """Whether a format that has a place for something has room for it."""
    if name == "JPEG":
        room = {"exif": MARKER - 6, "xmp": XMP_ROOM, "iptc": MARKER - 26, "icc_profile": 255 * (MARKER - 14)}
        if key == "comments":
            return all(len(one) <= MARKER for one in value)
        if key == "dpi":
            return all(0.5 <= one <= 65535 for one in value)
        return key not in room or len(value) <= room[key]
    if name == "PNG":
        if key == "icc_profile":
            return len(value) <= PACKED
        if key == "dpi":
            return all(1 <= one / 0.0254 < 2**31 for one in value)
    if name == "TIFF" and key == "dpi":
        return all(1e-3 <= one < 2**31 for one in value)
    return True


def png_options(kept: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[bytes, bytes]]]:
    """Turn what `fitting` keeps into Pillow's options for PNG, and chunks that Pillow does not write."""
    info = PngImagePlugin.PngInfo()
    for kind, data in kept.get("colours", []):
        if kind in (b"cHRM", b"cICP", b"gAMA", b"sRGB"):
            info.add(kind, data)
    extra = [(kind, data) for kind, data in kept.get("colours", []) if kind in (b"mDCV", b"cLLI")]
    if "aspect" in kept:
        extra.append((b"pHYs", struct.pack(">IIB", *kept["aspect"], 0)))
    for kind, data in kept.get("texts", []):
        info.add(*_unpacked(kind, data))
    for comment in kept.get("comments", []):
        info.add(*_text_chunk(b"Comment", comment))
    if "xmp" in kept:
        info.add(b"iTXt", XMP_KEYWORD + bytes(5) + kept["xmp"])
    if "iptc" in kept:
        block = _resource(kept["iptc"])
        lines = re.sub(r"(.{72})", r"\1\n", block.hex())
        info.add(b"tEXt", RAW_PROFILE + b"iptc\0" + f"\niptc\n{len(block):8}\n{lines}\n".encode())
    return {key: kept[key] for key in ("exif", "dpi") if key in kept} | {"pnginfo": info}, extra


def jpeg_options(kept: dict[str, Any]) -> dict[str, Any]:
    """Turn what `fitting` keeps into Pillow's options for JPEG; the shape of a pixel is not among them."""
    extra = b"".join(_segment(0xFE, comment) for comment in kept.get("comments", []))
    if "iptc" in kept:
        extra += _segment(0xED, PHOTOSHOP + _resource(kept["iptc"]))
    return {key: kept[key] for key in ("exif", "dpi", "xmp") if key in kept} | {"extra": extra, "comment": b""}


def state_aspect(path: Path, aspect: tuple[int, int]) -> None:
    """Write the shape of a pixel into the header of a JPEG file, which Pillow leaves to resolutions."""
    with open(path, "r+b") as file:
        if file.read(11)[6:] == b"JFIF\0":
            file.seek(13)
            file.write(struct.pack(">BHH", 0, *aspect))


def clean_xmp(packet: bytes | None) -> bytes | None:
    """Clean XMP of what would be wrong beside the upright result: the orientation, and pictures of the old hole.

    None stands for no XMP. A packet that cannot be cleaned gives None, with a warning.
    """
    if not packet:
        return None
    clean = _without_small_pictures(packet)
    # of another encoding, torn, or with pictures elsewhere than is usual
    if clean is None or b"\0" in clean.strip(b"\0") or PICTURE_DATA.search(clean):
        warnings.warn("the photo's XMP cannot be cleaned of pictures of the old hole, and was left out", stacklevel=2)
        return None
    return ORIENTATION.sub(rb"\g<1>1", EXTENDED.sub(b"", clean))


def _without_small_pictures(packet: bytes) -> bytes | None:
    """Cut thumbnails out of XMP; None if one of them has no end."""
    parts, at = [], 0
    while (start := SMALL_PICTURES.search(packet, at)) is not None:
        parts.append(packet[at : start.start()])
        at = packet.find(b">", start.end()) + 1
        if at and packet[at - 2 : at] != b"/>":
            end = packet.find(b"</" + start[1], at)
            at = packet.find(b">", end) + 1 if end >= 0 else 0
        if not at:
            return None
    return b"".join([*parts, packet[at:]])


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, tuple):
        if all(isinstance(one, bytes) for one in value):
            return b"".join(value)
        return bytes(value) if all(isinstance(one, int) and 0 <= one < 256 for one in value) else None
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None


def _resolution(dpi: Any) -> tuple[float, float] | None:
    """Read the dots per inch; None where the file gives none that another file could hold."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (across, down) if 0 < across < math.inf and 0 < down < math.inf else None


def _aspect(image: Image.Image) -> tuple[int, int] | None:
    """Read how many pixels across are as long as how many down, where these differ and no resolution says it."""
    info = image.info
    pair = info.get("jfif_density") if info.get("jfif_unit") == 0 else info.get("aspect")
    if pair is None and image.format == "TIFF" and getattr(image, "tag_v2", {}).get(296) == 1:
        pair = info.get("resolution")
    try:
        across, down = (float(value) for value in pair)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if across == down or not (0 < across < 65536 and 0 < down < 65536):
        return None
    scale = 1 if across.is_integer() and down.is_integer() else 1000 / max(across, down)
    return max(1, round(across * scale)), max(1, round(down * scale))


def _iptc(image: Image.Image, chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    """Read the IPTC data of a JPEG, a TIFF or a PNG."""
    photoshop, tags = image.info.get("photoshop"), getattr(image, "tag_v2", {})
    if isinstance(photoshop, dict):
        return _bytes(photoshop.get(IPTC_RESOURCE))
    if IPTC_TAG in tags:
        value = tags[IPTC_TAG]
        if isinstance(value, tuple) and value and getattr(tags, "tagtype", {}).get(IPTC_TAG) == 4:  # as longs
            order = getattr(tags, "_endian", "<")
            return struct.pack(f"{order}{len(value)}I", *value).rstrip(b"\0") or None
        return _bytes(value)
    if PHOTOSHOP_TAG in tags:
        return _found(_bytes(tags[PHOTOSHOP_TAG]) or b"")
    for kind, data in chunks:
        if data.startswith(RAW_PROFILE + b"iptc\0"):
            try:
                block = bytes.fromhex("".join(_text(kind, data).decode("ascii").split()[2:]))
            except ValueError:
                continue
            return _found(block) if block.startswith(b"8BIM") else block
    return None


def _found(block: bytes) -> bytes | None:
    """Find the IPTC data in a Photoshop block."""
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        kind, name = struct.unpack_from(">HB", block, at + 4)
        at += 6 + 1 + name + (1 + name) % 2
        if at + 4 > len(block):
            return None
        (size,) = struct.unpack_from(">I", block, at)
        if kind == IPTC_RESOURCE:
            return block[at + 4 : at + 4 + size] or None
        at += 4 + size + size % 2
    return None


def _resource(iptc: bytes) -> bytes:
    """Wrap IPTC data as Photoshop does."""
    return b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _is_block(data: bytes) -> bool:
    """Whether a text is a block of XMP, EXIF, IPTC or a profile in disguise."""
    return data.startswith((XMP_KEYWORD + b"\0", RAW_PROFILE))


def _is_comment(data: bytes) -> bool:
    return data.split(b"\0", 1)[0].lower() == b"comment"


def _comments(texts: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Give the texts that are called Comment, as UTF-8."""
    found = []
    for kind, data in texts:
        if _is_comment(data):
            text = _text(kind, data)
            found.append(text if kind == b"iTXt" else text.decode("latin-1").encode())
    return found


def _text_chunk(keyword: bytes, text: bytes) -> tuple[bytes, bytes]:
    """Write a text as PNG does: Latin-1 if that is enough."""
    text = text.rstrip(b"\0")
    try:
        plain = text.decode("utf-8")
    except UnicodeDecodeError:
        plain = text.decode("latin-1")
    try:
        return b"tEXt", keyword + b"\0" + plain.replace("\0", " ").encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", keyword + bytes(5) + plain.encode()


def _unpacked(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Leave a chunk as it is, unless its compressed text is so long that Pillow would refuse the whole picture."""
    text = _text(kind, data)
    if kind == b"tEXt" or len(text) <= PACKED:
        return kind, data
    keyword, rest = data.split(b"\0", 1)
    if kind == b"zTXt":
        return b"tEXt", keyword + b"\0" + text
    language, name, _ = rest[2:].split(b"\0", 2)
    return kind, b"\0".join((keyword, b"\0" + language, name, text))


def _text(kind: bytes, data: bytes) -> bytes:
    """Return the text of a chunk, empty for one that is damaged; Latin-1, or UTF-8 in iTXt."""
    try:
        rest = data.split(b"\0", 1)[1]
        if kind == b"iTXt":
            text = rest[2:].split(b"\0", 2)[2]
            return _inflated(text) if rest[0] else text
        return _inflated(rest[1:]) if kind == b"zTXt" else rest
    except (IndexError, zlib.error):
        return b""


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, MOST)
