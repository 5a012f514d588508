"""EXIF blocks: they go wherever their photo goes, without what would be wrong there or show the old hole."""

from __future__ import annotations

import warnings
from typing import Any

from PIL import ExifTags, Image

SUB_BLOCKS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
TIFF_STRUCTURE = frozenset(
    # size, compression, strips, tiles, colour map, sub-images, tables of JPEG; profile and editors' blocks
    [*range(254, 260), 262, 266, 273, *range(277, 282), 284, 292, 293, 317, *range(320, 326), 330, 338, 339]
    + [347, *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675]
)
"""Tags that describe the layout of a TIFF file, and are wrong in another picture's file."""
THUMBNAILS = {0x0111: 0x0117, 0x0201: 0x0202}
"""Tag of a thumbnail's place, in strips or as a JPEG → tag of its lengths."""


def read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Read the orientation (1 to 8) and the EXIF block, without its thumbnail, which still shows the old hole.

    A damaged block is left out, with a warning.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of every damaged tag; the block is kept as it is
            orientation, block = _read(image)
    except Exception as error:  # of many kinds, from a block that cannot be read at all
        warnings.warn(f"the photo's EXIF block is damaged and was left out ({error})", stacklevel=2)
        return 1, None
    return orientation if orientation in range(1, 9) else 1, block


def _read(image: Image.Image) -> tuple[int, bytes | None]:
    tags = image.getexif()
    orientation = tags.get(ExifTags.Base.Orientation, 1)
    block = image.info.get("exif")
    stated = Image.Exif()
    if block is not None:
        stated.load(block)
    if block is None or stated.get(ExifTags.Base.Orientation, 1) != orientation:
        # it stands elsewhere: in a TIFF's own tags, a text chunk, XMP
        kept = describing_tags(tags)
        return orientation, kept.tobytes() if len(kept) else None
    return orientation, without_thumbnail(block) if tags.get_ifd(ExifTags.IFD.IFD1) else block


def describing_tags(tags: Image.Exif) -> Image.Exif:
    """Copy the tags that describe the photo; those of a TIFF file's layout, and the thumbnail, are left out."""
    kept = Image.Exif()
    for tag in tags:
        if tag not in TIFF_STRUCTURE and tag not in SUB_BLOCKS:
            kept[tag] = tags[tag]
    for tag in SUB_BLOCKS:
        block = {key: value for key, value in tags.get_ifd(tag).items() if key != ExifTags.IFD.Interop}
        if block:
            kept.get_ifd(tag).update(block)
            kept[tag] = 0  # makes it known; the offset is found when it is written
    return kept


def without_thumbnail(block: bytes) -> bytes:
    """Blank the thumbnail of an EXIF block and cut the link to it; all else stays byte for byte."""
    start = 6 if block.startswith(b"Exif\0\0") else 0
    data = bytearray(block)
    order: Any = "little" if data[start : start + 2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[start + at : start + at + size], order)

    def values(entry: int) -> list[int]:
        size, count = (2 if number(entry + 2, 2) == 3 else 4), number(entry + 4, 4)  # type 3 is a short
        at = entry + 8 if size * count <= 4 else number(entry + 8, 4)  # in the entry itself if they fit
        return [number(at + size * i, size) for i in range(min(count, len(data) // size))]

    first = number(4, 4)
    link = first + 2 + 12 * number(first, 2)
    second = number(link, 4)
    entries = {number(at, 2): at for at in range(second + 2, second + 2 + 12 * number(second, 2), 12)}
    places: list[tuple[int, int]] = []
    for offsets, lengths in THUMBNAILS.items():
        if offsets in entries and lengths in entries:
            places += zip(values(entries[offsets]), values(entries[lengths]), strict=False)
    for offset, length in places:
        length = max(0, min(length, len(data) - start - offset))
        data[start + offset : start + offset + length] = bytes(length)
    data[start + link : start + link + 4] = bytes(4)
    return bytes(data)
