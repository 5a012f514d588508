"""EXIF blocks: they go wherever their photo goes, without what would be wrong there or show the old hole."""

import warnings
from typing import Literal

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
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation → what turns the stored pixels upright."""


TURNED = "turned by Pillow"
"""Key of an image's info: the orientation of a TIFF, which Pillow turns as it decodes it and then forgets."""


def decode(image: Image.Image) -> None:
    """Decode a picture that is only opened so far, whatever Pillow raises."""
    before = read_orientation(image) if image.format == "TIFF" else 1  # a PNG would be decoded for it, errors unseen
    image.load()
    if before not in (1, read_orientation(image)):
        image.info[TURNED] = before


def read_orientation(image: Image.Image) -> int:
    """Read the orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of every damaged tag
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of many kinds, from a block that cannot be read at all
        return 1
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


def turn_upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its orientation says, whatever else its EXIF block holds; the result has no such block."""
    turn = TURNS.get(read_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # it would be turned again
        turned.info.pop(name, None)
    return turned


def read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Read the orientation (1 to 8) and the EXIF block, without its thumbnail, which still shows the old hole.

    A damaged block is left out, with a warning; the orientation still counts if that can be read.
    """
    orientation = read_orientation(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of every damaged tag; the block is kept as it is
            return orientation, _read_block(image)
    except Exception as error:  # of many kinds
        warnings.warn(f"the photo's EXIF block is damaged and was left out ({error})", stacklevel=2)
        return orientation, None


def _read_block(image: Image.Image) -> bytes | None:
    tags = image.getexif()
    orientation = tags.get(ExifTags.Base.Orientation, 1)
    block = image.info.get("exif")
    stated = Image.Exif()
    if block is not None:
        if not isinstance(block, bytes):
            raise TypeError(f"it is {type(block).__name__}, not bytes")
        stated.load(block)
    if block is None or stated.get(ExifTags.Base.Orientation, 1) != orientation:
        # it stands elsewhere: in a TIFF's own tags, a text chunk, XMP
        kept = describing_tags(tags)
        return kept.tobytes() if len(kept) else None
    return without_thumbnail(block) if tags.get_ifd(ExifTags.IFD.IFD1) else block


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


def without_orientation(block: bytes) -> bytes | None:
    """Take the orientation out of an EXIF block; all else stays byte for byte. None: nothing else was in it."""
    start, order = _head(block)
    data = bytearray(block)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    first = start + number(start + 4, 4)
    count = number(first, 2)
    end = first + 2 + 12 * count + 4  # behind the entries stands the link to the next directory
    for at in range(first + 2, min(end - 4, len(data) - 11), 12):
        if number(at, 2) == ExifTags.Base.Orientation:
            data[at:end] = data[at + 12 : end] + bytes(12)  # what the other entries point to stays where it is
            data[first : first + 2] = (count - 1).to_bytes(2, order)
            empty = count == 1 and not number(first + 2, 4)
            return None if empty else without_orientation(bytes(data))  # it may stand there twice
    return block


def _head(block: bytes) -> tuple[int, Literal["little", "big"]]:
    """Where an EXIF block's numbers begin, and their order of bytes."""
    start = 6 if block.startswith(b"Exif\0\0") else 0
    return start, "little" if block[start : start + 2] == b"II" else "big"


def without_thumbnail(block: bytes) -> bytes:
    """Blank the thumbnail of an EXIF block and cut the link to it; all else stays byte for byte."""
    start, order = _head(block)
    data = bytearray(block)

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
