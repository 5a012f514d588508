"""16-bit colours: every bit comes out as it went in, from every layout that Pillow opens."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from nuwa_lip.images.files import read_image, read_photo, save_image
from nuwa_lip.images.hole import as_hole
from nuwa_lip.images.photo import Patch, as_photo, upright
from nuwa_lip.images.png import write_png
from nuwa_lip.images.tiff import write_tiff


@pytest.mark.parametrize(("mode", "ending"), [("LA", "png"), ("RGB", "png"), ("RGBA", "png")])
@pytest.mark.parametrize("result", ["png", "tif"])
def test_known_pixels_keep_all_bits(mode: str, ending: str, result: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (6, 9, len(mode)), dtype=np.uint16)
    write_png(values, tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    assert photo.mode == mode and photo.scale == 65535 and (photo.pixels == values).all()
    mask = np.zeros((6, 9), bool)
    mask[2:4, 3:6] = True
    box = (slice(0, 6), slice(0, 9))
    painted = photo.repainted([Patch(box, mask, np.full((6, 9, 3), 0.5, np.float32))])
    save_image(photo.to_pil(painted), tmp_path / f"out.{result}")
    again = read_photo(tmp_path / f"out.{result}").pixels
    known = again[~mask][:, [0, 3]] if mode == "LA" and result == "tif" else again[~mask]
    assert again.dtype == np.uint16 and (known == values[~mask]).all()
    assert (again[mask][:, 0] == 32768).all()


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("CMYK", 4)])
def test_tiff_layouts(mode: str, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (6, 9, channels), dtype=np.uint16)
    write_tiff(values, mode, tmp_path / "in.tif", {})
    photo = read_photo(tmp_path / "in.tif")
    assert photo.mode == mode and (photo.pixels == values).all()
    with pytest.warns(UserWarning, match="16-bit colours; they are read with 8 bits"):
        assert (np.asarray(read_image(tmp_path / "in.tif")) == values >> 8).all()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_turned_tiff_is_held_as_it_is_stored(kind: type, orientation: int, tmp_path: Path) -> None:
    """Pillow turns it as it reads it, and forgets how; a mask of the stored pixels would not fit any more."""
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 9, 3), dtype=kind)
    write_tiff(values, "RGB", tmp_path / "in.tif", {"exif": {ExifTags.Base.Orientation: orientation}, "dpi": (72, 144)})
    photo = read_photo(tmp_path / "in.tif")
    assert photo.orientation == orientation and (photo.pixels == values).all()
    stored = np.zeros((6, 9), bool)
    stored[1:3, 2:4] = True
    Image.fromarray(stored).save(tmp_path / "mask.tif", tiffinfo={ExifTags.Base.Orientation: orientation})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that it fits both ways
        tagged = read_image(tmp_path / "mask.tif")
        for mask, how in ((stored, "stored"), (tagged, "stored"), (tagged, None)):
            assert (as_hole(mask, photo, orientation=how).mask == upright(stored, orientation)).all()
    save_image(photo.shown(photo.pixels), tmp_path / "out.tif")
    again = read_photo(tmp_path / "out.tif")
    assert again.orientation == 1 and (again.pixels == upright(values, orientation)).all()
    assert tuple(map(round, again.info["dpi"])) == ((144, 72) if orientation >= 5 else (72, 144))
    with Image.open(tmp_path / "in.tif") as opened:
        assert as_photo(opened).orientation == orientation


@pytest.mark.parametrize(("ending", "bits"), [("avif", 10), ("avif", 12), ("avif", 8), ("jp2", 16), ("jp2", 8)])
def test_bits_that_pillow_cuts_are_named(ending: str, bits: int, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(0, 2**bits, (60, 90, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    words = [cv2.IMWRITE_AVIF_DEPTH, bits] if ending == "avif" else []
    assert cv2.imwrite(str(tmp_path / f"in.{ending}"), values, words)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read_photo(tmp_path / f"in.{ending}").pixels.dtype == np.uint8
    said = [str(warning.message).split("; ")[0].split(" has ")[1] for warning in caught]
    assert said == ([] if bits == 8 else [f"{bits}-bit colours"])


def test_a_tiff_of_the_other_byte_order(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(0, 2**16, (6, 9, 3), dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / "in.tif"), values[..., ::-1])
    assert (read_photo(tmp_path / "in.tif").pixels == values).all()
