"""What rides beside the pixels: cleaned of the old hole, within what a format has room for, readable by others."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nuwa_lip.images import png
from nuwa_lip.images.files import check_kept, read_image, read_photo, save_image
from nuwa_lip.images.metadata import clean_xmp, read_metadata
from nuwa_lip.images.photo import Photo

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
PACKET = b"""<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>
<rdf:Description tiff:Orientation="6" xmpNote:HasExtendedXMP="0123456789ABCDEF">
<tiff:Orientation>8</tiff:Orientation><dc:title>A bear</dc:title>
<xmp:Thumbnails><rdf:Alt><rdf:li xmpGImg:format="JPEG"><xmpGImg:image>/9j/4AAQ</xmpGImg:image></rdf:li></rdf:Alt>
</xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>"""


def with_info(**info: object) -> Image.Image:
    image = PICTURE.copy()
    image.info |= info
    return image


def test_xmp_is_cleaned_of_orientation_and_thumbnails_and_nothing_else() -> None:
    clean = clean_xmp(PACKET)
    assert clean is not None and b"image>" not in clean and b"Thumbnails" not in clean and b"Extended" not in clean
    assert b'tiff:Orientation="1"' in clean and b"<tiff:Orientation>1</tiff:Orientation>" in clean
    assert b"<dc:title>A bear</dc:title>" in clean and clean.endswith(b"</x:xmpmeta>")
    empty = b"<x><xmp:Thumbnails/><a>1</a><xmp:Thumbnails a='b' /></x>"
    assert clean_xmp(empty) == b"<x><a>1</a></x>"
    plain = b"<x:xmpmeta><dc:title>Orientation 6</dc:title></x:xmpmeta>"
    assert clean_xmp(plain) == plain and clean_xmp(None) is None


@pytest.mark.parametrize(
    "packet",
    ["<x>é</x>".encode("utf-16"), b'<rdf:Description GImage:Data="/9j/4AAQ"/>', b"<xmp:Thumbnails>/9j/"]
    + [b"<a:Thumbnails " * 10**5, b"<a:Thumbnails>" * 10**5],  # in no time
)
def test_xmp_that_cannot_be_cleaned_is_left_out_with_a_line(packet: bytes) -> None:
    with pytest.warns(UserWarning, match="XMP cannot be cleaned"):
        assert clean_xmp(packet) is None


@pytest.mark.parametrize(
    ("ending", "key", "size"),
    [(".jpg", "exif", 70_000), (".jpg", "xmp", 70_000), (".jpg", "iptc", 70_000), (".png", "icc_profile", 2**20 + 1)],
)
def test_what_a_format_has_no_room_for_is_said_before_the_work(
    ending: str, key: str, size: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[270] = "x" * size
    image = with_info(**{key: exif.tobytes() if key == "exif" else b"x" * size})
    photo = Photo(pixels=np.asarray(image), mode=image.mode, info=dict(image.info))
    for write in (lambda path: check_kept(photo, path), lambda path: save_image(image, path)):
        with pytest.warns(UserWarning, match="has not enough room for .*left out; .*.tif"):
            write(tmp_path / f"x{ending}")
    assert key not in Image.open(tmp_path / f"x{ending}").info
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(image, tmp_path / "x.tif")
    assert key in read_photo(tmp_path / "x.tif").info


@pytest.mark.parametrize("kind", ["iCCP", "zTXt", "iTXt"])
def test_long_profiles_and_texts_do_not_make_a_picture_unreadable(kind: str, tmp_path: Path) -> None:
    long = b"x" * (2**20 + 5)
    if kind == "iCCP":
        PICTURE.save(tmp_path / "x.png", icc_profile=long)
    else:
        info = PngImagePlugin.PngInfo()
        header = {"zTXt": b"Key\0\0", "iTXt": b"Key\0\1\0de\0name\0"}[kind]
        info.add(kind.encode(), header + zlib.compress(long))
        PICTURE.save(tmp_path / "x.png", pnginfo=info)
    photo = read_photo(tmp_path / "x.png")
    for ending in (".png", ".tif"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save_image(photo.to_pil(photo.pixels), tmp_path / f"out{ending}")
        with Image.open(tmp_path / f"out{ending}") as again:  # Pillow refuses long ones that are compressed
            again.load()
            assert np.array_equal(np.asarray(again), np.asarray(PICTURE))
            if kind == "iCCP":
                assert again.info.get("icc_profile") == (long if ending == ".tif" else None)
            elif ending == ".png":
                assert again.text["Key"] == long.decode()


def test_absurd_resolutions_stop_nothing(tmp_path: Path) -> None:
    for dpi in ((1e12, 1e12), (1e-9, 1e-9), (72, 1e300)):
        for ending in (".png", ".tif", ".webp", ".jpg"):
            save_image(with_info(dpi=dpi), tmp_path / f"x{ending}")
            assert read_image(tmp_path / f"x{ending}").size == PICTURE.size


def test_what_cannot_be_written_is_left_out_alone(tmp_path: Path) -> None:
    image = with_info(exif=b"Exif\0\0torn", icc_profile=b"a profile")
    with pytest.warns(UserWarning, match="the EXIF block does not fit and was left out"):
        save_image(image, tmp_path / "x.tif")
    assert Image.open(tmp_path / "x.tif").info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("chunks", [[(b"sRGB", b"\0"), (b"gAMA", bytes(4))], [(b"gAMA", struct.pack(">I", 45455))]])
def test_srgb_is_what_others_assume_anyway(chunks: list[tuple[bytes, bytes]], tmp_path: Path) -> None:
    png.write_png(PICTURE, tmp_path / "in.png", chunks=chunks)
    image = read_image(tmp_path / "in.png")
    assert read_metadata(image)["colours"] == chunks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = read_photo(tmp_path / "in.png")
        save_image(photo.to_pil(photo.pixels), tmp_path / "x.webp")
