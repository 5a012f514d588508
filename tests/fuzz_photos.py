"""Photos and masks of every format, mode, depth, orientation, metadata and damage go through `nuwa-lip inpaint`.

    python tests/fuzz_photos.py --count 2000 --seed 0

Noise is painted, so that thousands take minutes. Of each it is asked: no exception but a clear refusal, and none of
what is whole; known pixels as they were; the hole where it was meant; a result that Pillow and OpenCV read. Case 1234
alone: `--seed 0 --only 1234`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import struct
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from nuwa_lip.commands.inpaint import Options, inpaint
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import read_photo
from nuwa_lip.images.photo import Photo, upright
from nuwa_lip.images.png import write_png
from nuwa_lip.images.tiff import write_tiff
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.sampling import Sampling

HOLDS = {  # modes that each format is written in; "16" stands for 16-bit colours
    "PNG": ("1", "L", "LA", "RGB", "RGBA", "P", "I;16", "LA16", "RGB16", "RGBA16"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "P", "CMYK", "I;16", "I", "F", "RGB16", "RGBA16", "CMYK16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "RGB", "P"),
    "TGA": ("L", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16"),
}
DAMAGES = ("none", "none", "none", "cut", "end", "flip", "tail", "empty")
UNREADABLE_BY_OPENCV = {(".tif", "LA"), (".tif", "I"), (".tif", "CMYK")}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


class Painter(InpaintPipeline):
    """Paints noise."""

    resolution = 16
    device = torch.device("cpu")  # type: ignore[assignment]

    def __init__(self) -> None:
        self.sampling = Sampling()

    def _fill(self, view: Any, prompt: str, seeds: list[int], *_: Any) -> tuple[list[torch.Tensor], torch.Tensor, int]:
        generator = torch.Generator().manual_seed(seeds[0])
        noise = torch.rand(len(seeds), 1, 3, 16, 16, generator=generator) * 2 - 1
        return list(noise), torch.zeros(len(seeds)), 1


@dataclass
class Case:
    """One photo, its mask, and how they are to be repainted."""

    photo: Path
    mask: Path | None
    out: Path
    hole: np.ndarray | None
    """bool [h, w] upright; None where the mask is damaged or says something else."""
    damaged: bool
    options: dict[str, Any] = field(default_factory=dict)
    words: list[Any] = field(default_factory=list)
    """What it is, for the report."""


def pixels_of(mode: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Random pixels as they are stored."""
    if mode == "1":
        return rng.random((height, width)) > 0.5
    if mode == "F":
        return rng.random((height, width), dtype=np.float32)
    if mode == "I":
        return rng.integers(-(2**31), 2**31 - 1, (height, width), dtype=np.int32)
    deep = mode == "I;16" or mode.endswith("16")
    kind, most = (np.uint16, 2**16) if deep else (np.uint8, 256)
    channels = {"L": 1, "P": 1, "I;16": 1, "LA": 2, "LA16": 2, "RGB": 3, "RGB16": 3}.get(mode, 4)
    values = rng.integers(0, most, (height, width, channels)).astype(kind)
    if mode.startswith(("LA", "RGBA")):
        values[..., -1] |= most // 2  # opaque, so that nothing is hidden
    return values[..., 0] if channels == 1 else values


def metadata(rng: np.random.Generator, orientation: int) -> dict[str, Any]:
    """What rides beside the pixels, of every kind, often odd."""
    options: dict[str, Any] = {}
    tags = Image.Exif()
    if orientation > 1 or rng.random() < 0.3:
        tags[ExifTags.Base.Orientation] = orientation
        tags[ExifTags.Base.Make] = "ACME"
        if rng.random() < 0.1:
            tags[ExifTags.Base.ImageDescription] = "x" * 70_000
        options["exif"] = tags.tobytes()
        if orientation == 1 and rng.random() < 0.3:
            options["exif"] = options["exif"][: rng.integers(6, 40)] + rng.bytes(20)
    if rng.random() < 0.3:
        options["icc_profile"] = PROFILE if rng.random() < 0.7 else rng.bytes(rng.integers(1, 500))
    if rng.random() < 0.3:
        options["xmp"] = b'<x:xmpmeta tiff:Orientation="1"><dc:title>A bear</dc:title></x:xmpmeta>'
    if rng.random() < 0.3:
        options["dpi"] = [(72, 72), (300, 150), (0.001, 0.001), (60000, 60000)][rng.integers(4)]
    return options


def write(path: Path, name: str, mode: str, pixels: np.ndarray, options: dict[str, Any]) -> None:
    """Write a source photo, whatever can be written of its metadata."""
    if mode.endswith("16") and mode != "I;16":
        kept = {key: value for key, value in options.items() if key in ("icc_profile", "dpi", "exif")}
        if name == "TIFF":
            exif = Image.Exif()
            with contextlib.suppress(Exception):
                exif.load(kept.pop("exif", b""))
            write_tiff(pixels, mode.removesuffix("16"), path, kept | {"exif": exif})
        else:
            write_png(pixels, path, **kept)
        return
    if mode == "P":
        image = Image.fromarray(pixels).convert("P")
    elif mode == "CMYK":
        image = Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes())
    else:
        image = Image.fromarray(pixels)
    options = dict(options)
    if name == "PNG":
        info = PngImagePlugin.PngInfo()
        if "xmp" in options:
            info.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        info.add_text("Author", "Me")
        info.add(b"gAMA", struct.pack(">I", 45455))
        options["pnginfo"] = info
    if name == "WEBP":
        options |= {"lossless": True, "exact": True}
    if name == "TIFF":
        options.pop("xmp", None)
    if name in ("GIF", "BMP", "TGA", "PPM"):
        options = {}
    try:
        image.save(path, name, **options)
    except Exception:  # metadata that Pillow does not write there
        image.save(path, name, **{key: options[key] for key in ("lossless", "exact") if key in options})


def damage(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Damage a file."""
    if kind == "cut":
        return content[: rng.integers(1, len(content))]
    if kind == "end":
        return content[: -int(rng.integers(1, 9))]
    if kind == "flip":
        changed = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 8)):
            changed[at] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == "tail":
        return content + rng.bytes(100)
    return b"" if kind == "empty" and rng.random() < 0.2 else content


def make(folder: Path, rng: np.random.Generator) -> Case:
    """Make a case."""
    name = str(rng.choice(list(HOLDS)))
    mode = str(rng.choice(HOLDS[name]))
    height, width = (int(rng.integers(2, 40)) for _ in range(2))
    turns = name in ("PNG", "JPEG", "WEBP", "TIFF") and rng.random() < 0.4
    orientation = int(rng.integers(2, 9)) if turns else 1
    options = metadata(rng, orientation)
    photo = folder / f"photo.{ {'JPEG': 'jpg', 'TIFF': 'tif'}.get(name, name.lower()) }"
    write(photo, name, mode, pixels_of(mode, height, width, rng), options)
    with Image.open(photo) as image:  # metadata of some modes could not be written
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) if turns else 1
    broken = str(rng.choice(DAMAGES))
    content = photo.read_bytes()
    changed = damage(content, broken, rng)
    photo.write_bytes(changed)

    stored = np.zeros((height, width), bool)
    shown = upright(stored, turned)
    hole = np.zeros(shown.shape, bool)
    top, left = int(rng.integers(hole.shape[0])), int(rng.integers(hole.shape[1]))
    hole[top : top + int(rng.integers(1, 20)), left : left + int(rng.integers(1, 20))] = True
    invert = bool(rng.random() < 0.1) and not hole.all()
    ending = str(rng.choice([".png", ".tif", ".webp", ".jpg"]))
    kind = str(rng.choice(["L", "1", "RGB", "LA", "box"]))
    case = Case(photo, None, folder / f"out{ending}", hole ^ invert, changed != content and broken != "tail")
    case.options = {
        "invert": invert,
        "seed": int(rng.integers(2**31)),
        "save_mask": True,
        "grid": bool(rng.random() < 0.05),
    }
    case.words = [
        name,
        mode,
        f"{width}x{height}",
        f"orientation {turned}",
        broken,
        f"mask {kind}",
        ending,
        options.keys(),
    ]
    if kind == "box":
        rows, columns = hole.nonzero()
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        case.options["box"] = (tuple(int(number) for number in box),)
        return case
    case.mask = folder / "mask.png"
    picture = Image.fromarray(hole).convert("RGB" if kind == "LA" else kind)
    if kind == "LA":  # drawn on a transparent layer
        picture = Image.merge("LA", (Image.fromarray(hole).convert("L"), Image.fromarray(hole).convert("L")))
    odd = {"exif": b"Exif\0\0" + rng.bytes(30)} if rng.random() < 0.1 else {}
    picture.save(case.mask, **odd)
    return case


def problem(case: Case) -> str | None:
    """Repaint a case; None if all is well, "refused: ..." for what is refused in a clear line, else what is wrong."""
    text = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(text):
            warnings.simplefilter("ignore")
            before = read_photo(case.photo)
            inpaint(case.photo, prompt="", out=case.out, mask=case.mask, more=Options(**case.options))
    except InputError as error:
        left = sorted(path.name for path in case.out.parent.iterdir() if path not in (case.photo, case.mask))
        if left:
            return f"it was refused ({error}), but left {left}"
        return f"refused: {error}" if case.damaged else f"it is whole, but was refused: {error}"
    except Exception:
        return traceback.format_exc()
    if case.options["grid"]:
        case.out = case.out.with_stem(f"{case.out.stem}-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = read_photo(case.out)
        saved = np.asarray(Image.open(case.photo.with_name("out-mask.png")))
    if case.hole is not None and not case.damaged and not np.array_equal(saved > 0, case.hole):
        return "the hole is not where it was meant"
    return known_pixels(before, after, saved > 0, case.out.suffix) or readable(case.out)


def known_pixels(before: Photo, after: Photo, hole: np.ndarray, ending: str) -> str | None:
    """Compare what is known, upright."""
    old, new = (upright(photo.pixels, photo.orientation) for photo in (before, after))
    if old.shape[:2] != new.shape[:2]:
        return f"the result has the shape {new.shape}, the photo {old.shape}"
    if ending == ".jpg" or (before.mode == "CMYK") != (after.mode == "CMYK"):
        return None
    if before.mode == after.mode and old.dtype == new.dtype:
        same = (old[~hole] == new[~hole]).all()
    else:
        nothing = np.zeros(hole.shape, bool)
        everything = np.s_[0 : hole.shape[0], 0 : hole.shape[1]]
        far = np.abs(before.rgb(everything, nothing) - after.rgb(everything, nothing))[~hole]
        # to 8 bits or from numbers beyond 16
        same = before.mode == "I" or (far <= (1e-6 if old.dtype == new.dtype else 1 / 250)).all()
    return None if same else f"known pixels differ ({before.mode} {old.dtype}, {after.mode} {new.dtype})"


def readable(path: Path) -> str | None:
    """Read a result as others do."""
    with Image.open(path) as image:
        image.load()
        mode, size = image.mode, image.size
    if (path.suffix, mode) in UNREADABLE_BY_OPENCV:
        return None
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if read is None:
        return f"OpenCV cannot read {path.suffix} of mode {mode}"
    return None if sorted(read.shape[:2]) == sorted(size) else f"OpenCV reads {read.shape}, Pillow {size}"


def run(numbers: range, seed: int) -> tuple[list[str], Counter[str]]:
    """Try cases; returns what is wrong, and how many were repainted and refused."""
    wrong, counts = [], Counter[str]()
    with mock.patch.object(InpaintPipeline, "from_pretrained", lambda *_: SimpleNamespace(to=lambda _: Painter())):
        for number in numbers:
            with tempfile.TemporaryDirectory() as folder:
                case = make(Path(folder), np.random.default_rng([seed, number]))
                found = problem(case)
            refused = found is not None and found.startswith("refused: ")
            counts["refused" if refused else "repainted" if found is None else "wrong"] += 1
            if found is not None and not refused:
                wrong.append(f"case {number}, {' '.join(map(str, case.words))}: {found}")
    return wrong, counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    chosen = range(given.count) if given.only is None else range(given.only, given.only + 1)
    mistakes, numbers_of = run(chosen, given.seed)
    print("\n".join(mistakes))
    print(dict(numbers_of))
    raise SystemExit(bool(mistakes))
