"""EXIF goes along: orientation wherever it stands, tags of every kind, but no thumbnail of the old hole."""

import io
from typing import Literal

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from nuwa_lip.images.exif import (
    describing_tags,
    read_exif,
    read_orientation,
    turn_upright,
    without_orientation,
    without_thumbnail,
)
from nuwa_lip.images.hole import as_hole
from nuwa_lip.images.photo import as_photo
from nuwa_lip.images.pictures import viewable
from tests.pictures import picture

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
DATE, NORTH = ExifTags.Base.DateTimeOriginal, ExifTags.GPS.GPSLatitudeRef


def tags(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "ACME"
    exif.get_ifd(ExifTags.IFD.Exif)[DATE] = "2020:01:01 00:00:00"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[NORTH] = "N"
    return parsed(exif.tobytes())


def reopened(image: Image.Image, name: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    again = Image.open(buffer)
    again.load()
    return again


def parsed(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_a_block_stays_byte_for_byte(name: str) -> None:
    image = reopened(PICTURE, name, exif=tags().tobytes())
    orientation, block = read_exif(image)
    assert orientation == 6 and block == image.info["exif"]


def test_a_tiffs_own_tags_become_a_block_without_its_layout() -> None:
    image = reopened(PICTURE, "TIFF", exif=tags(1), dpi=(72, 72))
    orientation, block = read_exif(image)
    assert orientation == 1 and block is not None
    exif = parsed(block)
    assert exif[ExifTags.Base.Make] == "ACME" and exif.get_ifd(ExifTags.IFD.Exif)[DATE].startswith("2020")
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[NORTH] == "N"
    layout = (ExifTags.Base.ImageWidth, ExifTags.Base.StripOffsets, ExifTags.Base.BitsPerSample)
    assert not any(tag in exif for tag in layout)


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_an_orientation_that_xmp_states_is_not_lost(name: str) -> None:
    image = reopened(PICTURE, name, xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>')
    orientation, block = read_exif(image)
    assert orientation == 8 and block is not None
    assert parsed(block)[ExifTags.Base.Orientation] == 8


def with_thumbnail() -> tuple[bytes, bytes]:
    """(block, its thumbnail), as a camera writes it."""
    small = io.BytesIO()
    PICTURE.save(small, "JPEG")
    thumbnail = small.getvalue()
    entries = [(0x0103, 3, 6), (0x0201, 4, 8 + 2 + 12 + 4 + 2 + 36 + 4), (0x0202, 4, len(thumbnail))]
    first = (1).to_bytes(2, "big") + b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    second = len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        field = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        second += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + field
    head = b"MM\x00\x2a\x00\x00\x00\x08"
    link = (len(head) + len(first) + 4).to_bytes(4, "big")
    return b"Exif\0\0" + head + first + link + second + bytes(4) + thumbnail, thumbnail


def with_strips(order: Literal["little", "big"], strips: int) -> tuple[bytes, bytes]:
    """(block, its thumbnail), uncompressed, in so many strips with other content behind each."""
    thumbnail = np.random.default_rng(1).integers(1, 256, (6, 9, 3), dtype=np.uint8).tobytes()
    parts = [thumbnail[len(thumbnail) * i // strips : len(thumbnail) * (i + 1) // strips] for i in range(strips)]

    def entry(tag: int, kind: int, values: list[int], elsewhere: int = 0) -> bytes:
        size = 2 if kind == 3 else 4
        field = b"".join(value.to_bytes(size, order) for value in values)
        if len(field) > 4:
            tail[elsewhere : elsewhere + len(field)] = field
            field = elsewhere.to_bytes(4, order)
        head = tag.to_bytes(2, order) + kind.to_bytes(2, order) + len(values).to_bytes(4, order)
        return head + field.ljust(4, b"\0")

    tail = bytearray(1000)
    starts = [400 + 200 * i for i in range(strips)]
    for start, part in zip(starts, parts, strict=True):
        tail[start : start + len(part)] = part
        tail[start + len(part) : start + len(part) + 4] = b"kept"
    tail[:8] = (b"II*\0" if order == "little" else b"MM\0*") + (8).to_bytes(4, order)
    first = (1).to_bytes(2, order) + entry(0x0112, 3, [6]) + (26).to_bytes(4, order)
    second = [
        entry(0x0100, 3, [9]),
        entry(0x0101, 3, [6]),
        entry(0x0103, 3, [1]),
        entry(0x0111, 4, starts, 200),
        entry(0x0117, 3, [len(part) for part in parts], 300),
    ]
    layout = first + len(second).to_bytes(2, order) + b"".join(second) + bytes(4)
    tail[8 : 8 + len(layout)] = layout
    return b"Exif\0\0" + bytes(tail), thumbnail


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("strips", [1, 2, 3])
def test_an_uncompressed_thumbnail_is_blanked_strip_by_strip(order: Literal["little", "big"], strips: int) -> None:
    block, thumbnail = with_strips(order, strips)
    image = reopened(PICTURE, "JPEG", exif=block)
    assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[ExifTags.Base.Compression] == 1, "the fixture has a thumbnail"
    orientation, clean = read_exif(image)
    assert orientation == 6 and clean is not None and clean.count(b"kept") == strips
    changed = np.frombuffer(block, np.uint8) != np.frombuffer(clean, np.uint8)
    link = int(np.count_nonzero(np.frombuffer((26).to_bytes(4, order), np.uint8)))
    assert changed.sum() == len(thumbnail) + link
    assert not parsed(clean).get_ifd(ExifTags.IFD.IFD1) and parsed(clean)[ExifTags.Base.Orientation] == 6


def test_the_thumbnail_is_blanked_and_all_else_stays() -> None:
    block, thumbnail = with_thumbnail()
    image = reopened(PICTURE, "JPEG", exif=block)
    assert image.getexif().get_ifd(ExifTags.IFD.IFD1), "the fixture has a thumbnail"
    orientation, clean = read_exif(image)
    assert orientation == 6 and clean is not None and len(clean) == len(block)
    assert thumbnail in block and thumbnail not in clean and set(clean[-len(thumbnail) :]) == {0}
    assert not parsed(clean).get_ifd(ExifTags.IFD.IFD1) and parsed(clean)[ExifTags.Base.Orientation] == 6
    assert clean == without_thumbnail(block)


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    image = PICTURE.copy()
    image.info["exif"] = tags(orientation).tobytes()
    assert read_exif(image)[0] == 1


def test_a_damaged_block_is_left_out_with_a_warning() -> None:
    image = PICTURE.copy()
    image.info["exif"] = b"Exif\0\0torn to pieces"
    with pytest.warns(UserWarning, match="EXIF block is damaged and was left out"):
        assert read_exif(image) == (1, None)


@pytest.mark.parametrize("end", range(20, 120, 10))
def test_a_block_that_breaks_off_is_read_as_far_as_it_goes(end: int, recwarn: pytest.WarningsRecorder) -> None:
    image = PICTURE.copy()
    image.info["exif"] = tags().tobytes()[:end]
    orientation, block = read_exif(image)
    assert orientation in (1, 6) and block in (None, image.info["exif"]) and len(recwarn) <= 1


def test_describing_tags_leave_the_given_ones_alone() -> None:
    exif = tags()
    exif[ExifTags.Base.ImageWidth] = 9999
    before = exif.tobytes()
    kept = describing_tags(exif)
    assert ExifTags.Base.ImageWidth not in kept and kept.get_ifd(ExifTags.IFD.GPSInfo)[NORTH] == "N"
    assert exif.tobytes() == before


@pytest.mark.parametrize("block", [tags(), tags(3)], ids=["6", "3"])
@pytest.mark.parametrize("head", [b"Exif\0\0", b""])
def test_the_orientation_is_taken_out_and_all_else_stays(block: Image.Exif, head: bytes) -> None:
    whole = head + block.tobytes().removeprefix(b"Exif\0\0")
    left = without_orientation(whole)
    assert left is not None and len(left) == len(whole)
    before, after = parsed(whole), parsed(left)
    assert ExifTags.Base.Orientation in before and ExifTags.Base.Orientation not in after
    assert {**before} == {**after, ExifTags.Base.Orientation: before[ExifTags.Base.Orientation]}
    for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        assert after.get_ifd(part) == before.get_ifd(part) != {}
    assert without_orientation(left) == left


def test_a_block_of_nothing_but_the_orientation_is_left_out() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert without_orientation(exif.tobytes()) is None
    once = with_thumbnail()[0]  # whose first directory has nothing else, and a link to another one
    twice = without_orientation(once)
    assert twice is not None and ExifTags.Base.Orientation not in parsed(twice)
    for end in range(len(once)):
        without_orientation(once[:end])  # whatever is missing


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
def test_pictures_are_turned_once(mode: str) -> None:
    for orientation in range(1, 9):
        image = picture(mode, orientation)
        turned = turn_upright(image)
        assert np.array_equal(np.asarray(turned), np.asarray(ImageOps.exif_transpose(image)))
        assert turn_upright(turned).size == turned.size and read_orientation(turned) == 1


ODD = {
    "no header": b"Exif\0\0torn to pieces",
    "a directory far away": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "a directory in itself": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08",
    "a type that there is not": tags().tobytes().replace(b"\x01\x12\0\x03", b"\x01\x12\0\x77"),
    "text": tags().tobytes().replace(b"\x01\x12\0\x03\0\0\0\x01", b"\x01\x12\0\x02\0\0\0\x04"),
    "nothing": b"",
}


@pytest.mark.parametrize("name", ["exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"])
@pytest.mark.parametrize("block", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore:the photo's EXIF block is damaged")
def test_odd_blocks_decide_nothing_about_the_pixels(name: str, block: bytes) -> None:
    photo, mask = PICTURE.copy(), Image.new("L", PICTURE.size, 255)
    for value in (block, block.decode("latin-1"), 7):
        for image in (photo, mask):
            image.info = {name: value}
        read = as_photo(photo)
        assert read.orientation == 1 and as_hole(mask, read).mask.all()
        assert np.array_equal(np.asarray(viewable(read.to_pil(read.pixels))), np.asarray(PICTURE))


def test_the_orientation_counts_in_a_block_that_is_damaged_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    image = PICTURE.copy()
    image.info["exif"] = tags().tobytes()
    monkeypatch.setattr(Image.Exif, "get_ifd", lambda *_: {}["damaged"])
    with pytest.warns(UserWarning, match="EXIF block is damaged and was left out"):
        assert read_exif(image) == (6, None)
