"""EXIF goes along: orientation wherever it stands, tags of every kind, but no thumbnail of the old hole."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from nuwa_lip.exif import describing_tags, read_exif, without_thumbnail

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
