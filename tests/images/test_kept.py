"""What rides beside the pixels is kept where the result's format can, and said where it cannot: docs/kept.md.

`python tests/images/test_kept.py` writes the table anew.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from nuwa_lip.images import png
from nuwa_lip.images.files import read_photo, save_image
from nuwa_lip.images.photo import Photo, upright
from nuwa_lip.images.tiff import write_tiff

DOCUMENT = Path(__file__).parents[2] / "docs/kept.md"
START, END = "<!-- table: python tests/images/test_kept.py -->\n", "<!-- end of table -->\n"
ENDINGS = (".png", ".tif", ".webp", ".jpg")
RNG = np.random.default_rng(0)
COLOURS = Image.fromarray(RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8))
PROFILE = b"a profile" * 20
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><dc:title>A bear</dc:title></rdf:RDF></x:xmpmeta>'
IPTC = b"\x1c\x02\x78\x00\x06A bear"
RESOURCE = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(IPTC)) + IPTC + bytes(len(IPTC) % 2)


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Make] = "ACME"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return tags.tobytes()


def saved(name: str, picture: Image.Image = COLOURS, **options: Any) -> Callable[[Path], None]:
    return lambda path: picture.save(path, name, **options)


def png_with(*chunks: tuple[bytes, bytes]) -> Callable[[Path], None]:
    info = PngImagePlugin.PngInfo()
    for kind, data in chunks:
        info.add(kind, data)
    return saved("PNG", pnginfo=info)


def tiff_with(tag: int, kind: int, value: Any) -> Callable[[Path], None]:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[tag] = kind
    tags[tag] = value
    return saved("TIFF", tiffinfo=tags)


def jpeg_with_aspect(path: Path) -> None:
    COLOURS.save(path, "JPEG")
    content = bytearray(path.read_bytes())
    content[13:18] = struct.pack(">BHH", 0, 2, 1)
    path.write_bytes(content)


def deep(channels: int) -> Callable[[Path], None]:
    return lambda path: png.write_png(RNG.integers(0, 2**16, (16, 24, channels), dtype=np.uint16), path)


def deep_tiff(path: Path) -> None:
    write_tiff(RNG.integers(0, 2**16, (16, 24, 3), dtype=np.uint16), "RGB", path, {})


def clear_deep(mode: str) -> Callable[[Path], None]:
    """16 bits with one colour that stands for what is transparent."""

    def write(path: Path) -> None:
        values = RNG.integers(0, 2**16, (16, 24, 3), dtype=np.uint16)
        if mode == "L":
            Image.fromarray(values[..., 0]).save(path, "PNG", transparency=int(values[0, 0, 0]))
        else:
            png.write_png(values, path, chunks=[(b"tRNS", struct.pack(">3H", *values[0, 0]))])

    return write


def private(path: Path) -> None:
    COLOURS.save(path, "PNG")
    path.chmod(0o600)


def info(key: str) -> Callable[[Photo, Path], Any]:
    return lambda photo, path: photo.info.get(key)


def tags_of(photo: Photo, path: Path) -> Any:
    tags = Image.Exif()
    tags.load(photo.info.get("exif", b""))
    return tags.get(ExifTags.Base.Make), tags.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitudeRef)


def shown(photo: Photo, path: Path) -> Any:
    return upright(photo.pixels, photo.orientation).shape[:2]


def pixels(photo: Photo, path: Path) -> Any:
    """Every pixel: of 16-bit grey with alpha as colours, which TIFF makes of it."""
    values = photo.pixels
    if values.dtype == np.uint16 and values.shape[2] == 2:
        values = values[..., [0, 0, 0, 1]]
    return values.tobytes()


def alpha(photo: Photo, path: Path) -> Any:
    return None if photo.alpha is None else photo.alpha.tobytes()


def mode_bits(photo: Photo, path: Path) -> Any:
    return stat.S_IMODE(path.stat().st_mode)


def resolution(photo: Photo, path: Path) -> Any:
    return np.round(photo.info.get("dpi", (0, 0))).tolist()


def texts(photo: Photo, path: Path) -> Any:
    return photo.info.get("texts")


Probe = Callable[[Photo, Path], Any]
PROPERTIES: dict[str, tuple[Probe, list[Callable[[Path], None]]]] = {
    "orientation": (shown, [saved(name, exif=exif(6)) for name in ("JPEG", "PNG", "WEBP", "TIFF")]),
    "profile": (info("icc_profile"), [saved(n, icc_profile=PROFILE) for n in ("JPEG", "PNG", "WEBP", "TIFF")]),
    "EXIF": (tags_of, [saved(name, exif=exif()) for name in ("JPEG", "PNG", "WEBP", "TIFF")]),
    "XMP": (
        info("xmp"),
        [saved("JPEG", xmp=XMP), saved("WEBP", xmp=XMP), png_with((b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP))]
        + [tiff_with(700, 1, XMP)],
    ),
    "IPTC": (
        info("iptc"),
        [
            saved("JPEG", extra=b"\xff\xed" + struct.pack(">H", 16 + len(RESOURCE)) + b"Photoshop 3.0\0" + RESOURCE),
            tiff_with(33723, 7, IPTC),
            tiff_with(34377, 7, RESOURCE),
            png_with((b"tEXt", b"Raw profile type iptc\0\niptc\n%8d\n%s\n" % (len(RESOURCE), RESOURCE.hex().encode()))),
        ],
    ),
    "comment": (
        lambda photo, path: photo.info.get("comments") or [c[1].split(b"\0")[1] for c in photo.info.get("texts", [])],
        [saved("JPEG", comment=b"A bear"), saved("GIF", comment=b"A bear"), png_with((b"tEXt", b"Comment\0A bear"))],
    ),
    "texts": (
        texts,
        [png_with((b"tEXt", b"Author\0Me"), (b"iTXt", b"Title\0\0\0de\0Titel\0B\xc3\xa4r"), (b"tEXt", b"Author\0You"))],
    ),
    "colour chunks": (
        info("colours"),
        [
            png_with((b"gAMA", struct.pack(">I", 100000)), (b"cHRM", struct.pack(">8I", *range(1, 9)))),
            png_with((b"cICP", bytes([9, 16, 0, 1]))),
        ],
    ),
    "resolution": (resolution, [saved(name, dpi=(300, 150)) for name in ("JPEG", "PNG", "TIFF")]),
    "pixel aspect": (
        info("aspect"),
        [
            lambda path: png.write_png(COLOURS, path, chunks=[(b"pHYs", struct.pack(">IIB", 2, 1, 0))]),
            lambda path: write_tiff(np.asarray(COLOURS), "RGB", path, {"aspect": (2, 1)}),
            jpeg_with_aspect,
        ],
    ),
    "16-bit grey": (pixels, [saved("PNG", Image.fromarray(RNG.integers(0, 2**16, (16, 24), dtype=np.uint16)))]),
    "16-bit colours": (pixels, [deep(3), deep(4), deep(2), deep_tiff]),
    "16-bit tRNS": (pixels, [clear_deep("L"), clear_deep("RGB")]),
    "CMYK": (lambda photo, path: photo.mode, [saved(name, COLOURS.convert("CMYK")) for name in ("TIFF", "JPEG")]),
    "alpha": (alpha, [saved("PNG", Image.fromarray(RNG.integers(0, 256, (16, 24, 4), dtype=np.uint8)))]),
    "mode bits": (mode_bits, [private]),
}
UNMISSED = {("resolution", ".webp")}
"""What is left out without a word, because nobody misses it."""


def outcome(name: str, ending: str, write: Callable[[Path], None], folder: Path) -> str:
    """How a property of one source file fares: kept, said (left out, with a warning), or lost."""
    probe, _ = PROPERTIES[name]
    source, result = folder / "source.png", folder / f"result{ending}"
    write(source)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        photo = read_photo(source)
        if name == "mode bits":  # of a file that is replaced
            result.touch()
            result.chmod(source.stat().st_mode)
        save_image(photo.shown(photo.pixels), result)
    assert probe(photo, source), "the source has it"
    again = read_photo(result)
    with Image.open(result) as image:  # any other program reads it too
        image.load()
    if probe(again, result) == probe(photo, source):
        return "kept"
    return "said" if said else "lost"


def row(name: str, folder: Path) -> list[str]:
    cells = []
    for ending in ENDINGS:
        found = {outcome(name, ending, write, folder) for write in PROPERTIES[name][1]}
        cells.append("/".join(sorted(found)))
        for path in folder.iterdir():
            os.unlink(path)
    return cells


def table_row(name: str, folder: Path) -> str:
    words = {"kept": "kept", "said": "left out, said", "lost": "left out"}
    return f"| {name} | {' | '.join(words[cell] for cell in row(name, folder))} |"


@pytest.mark.parametrize("name", PROPERTIES)
def test_nothing_is_lost_in_silence(name: str, tmp_path: Path) -> None:
    """The table in the document is right; what a source's format is does not matter."""
    line = table_row(name, tmp_path)
    lost = {(name, ending) for ending, cell in zip(ENDINGS, line.split(" | ")[1:], strict=True) if "out" == cell[-3:]}
    assert lost <= UNMISSED
    assert line in DOCUMENT.read_text().splitlines(), "python tests/images/test_kept.py writes the table anew"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        text = DOCUMENT.read_text()
        head, rest = text.split(START)
        lines = ["", *(table_row(name, Path(made)) for name in PROPERTIES), ""]
        top = "| | " + " | ".join(ENDINGS) + " |\n|---|" + "---|" * len(ENDINGS)
        DOCUMENT.write_text(head + START + top + "\n".join(lines) + END + rest.split(END)[1])
