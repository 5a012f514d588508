"""Picture files: what is written is read again to the bit; what cannot be gives one clear line."""

import errno
import io
import os
import resource
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from nuwa_lip.errors import InputError
from nuwa_lip.images.files import FORMATS, MODES, check_fits, check_output, read_image, save_image
from nuwa_lip.images.photo import as_photo

EXACT = [
    (ending, mode)
    for ending, (name, _) in FORMATS.items()
    for mode in MODES[name]
    if name != "JPEG" and ending != ".tiff"
]


def picture(mode: str, size: tuple[int, int] = (9, 6)) -> Image.Image:
    rng = np.random.default_rng(0)
    shape = size[::-1]
    if mode == "F":
        return Image.fromarray(rng.random(shape, dtype=np.float32))
    if mode.startswith("I"):
        kind = np.uint16 if mode == "I;16" else np.int32
        return Image.fromarray(rng.integers(0, 2**16, shape).astype(kind))
    return Image.fromarray(rng.integers(0, 256, (*shape, 4), dtype=np.uint8)).convert(mode)


def with_metadata(image: Image.Image, orientation: int = 1, details: bool = True) -> Image.Image:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if details:
        exif[ExifTags.Base.Make] = "ACME"
        exif[ExifTags.Base.ImageWidth] = 12345  # as some phones state it, of a picture that was turned
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:01:01 00:00:00"
        exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    image.info |= {"exif": exif.tobytes(), "icc_profile": b"a profile" * 20, "dpi": (300.0, 300.0)}
    return image


def shown(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("ending", "mode"), EXACT)
def test_pixels_and_metadata_come_back(ending: str, mode: str, orientation: int, details: bool, tmp_path: Path) -> None:
    image = with_metadata(picture(mode), orientation, details)
    info = dict(image.info)
    path = tmp_path / f"x{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_image(image, path)
        again = read_image(path)
    assert image.info == info, "the picture is left alone"
    assert again.mode == mode and np.array_equal(shown(again), shown(image))
    assert again.info["icc_profile"] == info["icc_profile"]
    if ending != ".webp":  # which has no place for it
        assert again.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    if details:
        exif = again.getexif()
        assert exif[ExifTags.Base.Make] == "ACME"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2020:01:01 00:00:00"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16"])
def test_an_uncompressed_tiff_is_turned_as_its_tag_says(mode: str, tmp_path: Path) -> None:
    """From a path Pillow maps such a file into memory and turns it wrongly."""
    image = picture(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "x.tif", exif=exif)
    image.info["exif"] = exif.tobytes()
    assert np.array_equal(shown(read_image(tmp_path / "x.tif")), shown(image))


@pytest.mark.parametrize(
    ("mode", "ending", "result", "says"),
    [
        ("CMYK", ".png", "RGB", "PNG cannot hold CMYK and becomes RGB"),
        ("CMYK", ".webp", "RGB", "WEBP cannot hold CMYK"),
        ("I;16", ".webp", "RGB", "WEBP holds 8 bits only"),
        ("F", ".png", "L", "PNG holds 8 bits only"),
        ("I", ".jpg", "L", "JPEG holds 8 bits only"),
        ("RGBA", ".jpg", "RGB", "JPEG has no transparency"),
        ("LA", ".jpg", "L", "JPEG has no transparency"),
    ],
)
def test_what_a_format_cannot_hold_is_said(mode: str, ending: str, result: str, says: str, tmp_path: Path) -> None:
    image = with_metadata(picture(mode))
    with pytest.warns(UserWarning, match=says):
        save_image(image, tmp_path / f"x{ending}")
    again = read_image(tmp_path / f"x{ending}")
    assert again.mode == result
    # a profile is of a colour family: it goes when that changes, and only then
    assert ("icc_profile" in again.info) == (mode != "CMYK" and not (ending == ".webp"))


def test_modes_that_change_without_loss_do_so_silently(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode, ending in (("I", ".png"), ("1", ".webp"), ("L", ".webp"), ("LA", ".webp")):
            image = picture(mode)
            save_image(image, tmp_path / f"x{ending}")
            again = read_image(tmp_path / f"x{ending}")
            same = np.asarray(image) if mode == "I" else np.asarray(image.convert(again.mode))
            assert np.array_equal(np.asarray(again), same)
    image = Image.fromarray(np.array([[-1, 70000]], np.int32))
    with pytest.warns(UserWarning, match="PNG holds 16 bits, what is beyond is cut"):
        save_image(image, tmp_path / "x.png")


def test_exif_that_does_not_fit_into_tiff_is_left_out(tmp_path: Path) -> None:
    image = picture("RGB")
    image.info["exif"] = b"Exif\0\0torn to pieces"
    with pytest.warns(UserWarning, match="EXIF block does not fit and was left out"):
        save_image(image, tmp_path / "x.tif")
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.tif")), np.asarray(image))


def bomb() -> bytes:
    """A PNG file that claims 30000 x 30000 pixels."""
    buffer = io.BytesIO()
    picture("L").save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def saved(name: str) -> bytes:
    buffer = io.BytesIO()
    picture("RGB", (64, 64)).save(buffer, name)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a picture of a known format"),
        (b"some text", "is not a picture of a known format"),
        (saved("PNG")[:5000], "is damaged: "),
        (saved("JPEG")[:500], "is damaged: "),
        (saved("WEBP")[:500], "is damaged: |not a picture"),
        (saved("TIFF")[:500], "is damaged: |not a picture"),
        (saved("GIF")[:300], "is damaged: |not a picture"),
        (saved("EPS"), "is not a picture of a known format"),
        (bomb(), "has over 179 megapixels"),
    ],
    ids=["empty", "text", "png", "jpeg", "webp", "tiff", "gif", "program", "bomb"],
)
def test_what_is_no_picture_gives_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file .*nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is a folder, not a picture"):
        read_image(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be read: not a directory"):
        read_image(tmp_path / "file" / "x.png")
    with pytest.raises(InputError, match="cannot be read: file name too long"):
        read_image(tmp_path / ("x" * 300))


def test_of_an_animation_the_first_frame_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("x.gif", "x.png", "x.webp", "x.tif"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if "w" in name else {}))
        with pytest.warns(UserWarning, match="several frames; only the first is used"):
            image = read_image(path)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_16_bit_colours_are_read_with_8_and_said_so(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8000, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    (tmp_path / "x.png").write_bytes(content + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b""))
    with pytest.warns(UserWarning, match="16-bit colours"):
        assert read_image(tmp_path / "x.png").getpixel((0, 0)) == (255, 128, 0)


def test_a_large_photo_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    picture("L").save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "x.png").size == (9, 6)


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    bad = {
        "x.bmp": "the ending must be one of .png",
        "x": "the ending must be one of",
        "old.png": "old.png exists; give --overwrite",
        "folder.png": "is a folder; name a file",
        "nowhere/x.png": "there is no folder .*nowhere",
        "old.png/x.png": "not a directory",
        "x" * 300 + ".png": "file name too long",
    }
    for name, says in bad.items():
        with pytest.raises(InputError, match=says):
            check_output(tmp_path / name, overwrite=False)
    check_output(tmp_path / "old.png", overwrite=True)
    check_output(tmp_path / "new.PNG", overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_formats_have_a_largest_size(tmp_path: Path) -> None:
    for name, side in (("x.webp", 16383), ("x.jpg", 65500), ("x.png", 10**6), ("x.tif", 10**6)):
        check_fits(tmp_path / name, (side, side))
    for name, size in (("x.webp", (3, 16384)), ("x.jpeg", (65501, 3))):
        with pytest.raises(InputError, match=f"cannot write .*{name}: .* pixels a side; .png and .tif more"):
            check_fits(tmp_path / name, size)


def test_jpeg_is_announced_as_inexact(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="JPEG cannot keep known pixels exact"):
        check_output(tmp_path / "x.jpg", overwrite=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_output(tmp_path / "x.jpg", overwrite=False, exact=False)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("ending", FORMATS)
def test_exif_goes_from_any_format_to_jpeg(ending: str, orientation: int, tmp_path: Path) -> None:
    save_image(with_metadata(picture("RGB"), orientation), tmp_path / f"x{ending}")
    image = read_image(tmp_path / f"x{ending}")
    photo = as_photo(image)
    save_image(photo.to_pil(photo.pixels), tmp_path / "result.jpg")
    result = read_image(tmp_path / "result.jpg")
    assert result.getexif()[ExifTags.Base.Make] == "ACME" and shown(result).shape == shown(image).shape


@pytest.mark.parametrize("ending", FORMATS)
def test_a_disk_that_fills_is_no_bad_input(ending: str, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # stands for the space that is left
    try:
        with pytest.raises(OSError, match="too large") as caught:
            save_image(picture("RGB", (200, 200)), tmp_path / f"x{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG and os.listdir(tmp_path) == []


@pytest.fixture
def failing_save(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Makes writing fail, after half of it is done, with the error that is put in."""
    errors: list[BaseException] = []

    def save(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise errors[0]

    monkeypatch.setattr(Image.Image, "save", save)
    yield errors


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (OSError(28, "No space left on device"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("too wide for the format"), InputError),
        (OSError("encoder error -2"), InputError),
    ],
)
def test_nothing_half_written_is_left(
    error: BaseException, becomes: type[BaseException], failing_save: list[BaseException], tmp_path: Path
) -> None:
    failing_save.append(error)
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    with pytest.raises(becomes) as caught:
        save_image(Image.new("L", (2, 2)), path)
    assert type(caught.value) is becomes
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.png"]


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "original.png").write_bytes(b"old")
    (tmp_path / "x.png").symlink_to(tmp_path / "original.png")
    save_image(Image.new("L", (2, 2)), tmp_path / "x.png")
    assert (tmp_path / "original.png").read_bytes() == b"old" and not (tmp_path / "x.png").is_symlink()
