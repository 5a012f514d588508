"""`nuwa-lip inpaint`: exact files, and for bad input one line, the right exit code, and nothing written."""

import json
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from nuwa_lip.commands import inpaint as command
from nuwa_lip.commands.inpaint import Options
from nuwa_lip.fast.quantise import LAYERS, is_quantised
from nuwa_lip.images.files import read_image, save_image
from nuwa_lip.models.groups import SCHEDULES
from nuwa_lip.models.orders import ORDERS
from nuwa_lip.pipeline import InpaintPipeline
from tests.folders import contents

Run = Callable[..., Any]


@pytest.fixture
def inpaint(nuwa_lip: Run, tiny_model: Path) -> Run:
    """Run `nuwa-lip inpaint` with the tiny model, a caption and a seed, unless others are given."""

    def run(*words: object) -> Any:
        for name, value in (("--model", tiny_model), ("--prompt", "a bear"), ("--seed", 0)):
            if name not in words:
                words = (*words, name, value)
        return nuwa_lip("inpaint", *words)

    return run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(read_image(path)))


def test_one_photo(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = inpaint(photo_file, "--mask", mask_file, "-o", out)
    assert done.code == 0 and done.err == ""
    assert "60x40 RGB, hole 8.33 % (white = repaint), seed 0" in done.out and f"{out}: " in done.out
    hole = pixels(mask_file) > 0
    assert (pixels(out)[~hole] == pixels(photo_file)[~hole]).all()
    assert (pixels(out)[hole] != pixels(photo_file)[hole]).mean() > 0.5
    assert set(contents(tmp_path)) == {"photo.png", "mask.png", "out.png"}


@pytest.mark.parametrize("size", [(427, 640), (33, 500), (1600, 1200)])
def test_the_file_does_not_depend_on_what_stands_in_the_hole(
    size: tuple[int, int], inpaint: Run, tmp_path: Path
) -> None:
    height, width = size
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    photo = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC))
    mask = np.zeros(size, bool)
    mask[height // 4 : height // 2, width // 3 : width // 2] = True
    mask[-height // 8 :, -width // 10 :] = True  # a second window, at the border
    if size == (427, 640):
        mask[rng.random(size) < 0.0001] = True  # so many that some share a window, and some windows overlap
    Image.fromarray(mask).save(tmp_path / "mask.png")
    files = []
    for name, content in (
        ("photo", photo[mask]),
        ("black", 0),
        ("noise", rng.integers(0, 256, (mask.sum(), 3), dtype=np.uint8)),
    ):
        filled = photo.copy()
        filled[mask] = content
        Image.fromarray(filled).save(tmp_path / f"{name}.png", compress_level=1)
        out = tmp_path / f"out-{name}.png"
        done = inpaint(tmp_path / f"{name}.png", "--mask", tmp_path / "mask.png", "-o", out)
        assert done.code == 0, done.err
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]
    result = pixels(out)
    assert (result[~mask] == photo[~mask]).all() and (result[mask] != photo[mask]).mean() > 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "ending"), [("RGB", "png"), ("LA", "png"), ("I;16", "png"), ("CMYK", "tif")])
def test_files_keep_mode_and_profile_and_are_upright(
    mode: str, ending: str, orientation: int, inpaint: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (40, 60), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (40, 60, 4), dtype=np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo, out = tmp_path / f"photo.{ending}", tmp_path / f"out.{ending}"
    image.save(photo, exif=exif, icc_profile=b"a profile")
    before = pixels(photo)
    hole = np.zeros(before.shape[:2], bool)
    hole[5:15, 20:30] = True
    Image.fromarray(hole).save(tmp_path / "mask.png")
    done = inpaint(photo, "--mask", tmp_path / "mask.png", "-o", out)
    assert done.code == 0 and ("the mask fits both ways" in done.err) == (orientation in (2, 3, 4))
    after = pixels(out)
    assert (after[~hole] == before[~hole]).all() and (after[hole] != before[hole]).any()
    written = Image.open(out)
    assert written.mode == mode and written.info["icc_profile"] == b"a profile"
    assert written.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert written.size == (image.size if orientation < 5 else image.size[::-1])


def test_a_mask_may_lie_as_a_turned_photo_is_stored(inpaint: Run, mask_file: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 2
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.png", exif=exif)
    mask = Image.open(mask_file)
    mask.paste(255, (0, 0, 5, 5))
    mask.save(mask_file)
    words = (tmp_path / "photo.png", "--mask", mask_file, "-o", tmp_path / "out.png", "--save-mask", "--overwrite")
    for given, seen, told in (("displayed", mask, False), ("stored", ImageOps.mirror(mask), False), (None, mask, True)):
        done = inpaint(*words, *(("--mask-orientation", given) if given else ()))
        assert done.code == 0 and ("fits both ways" in done.err) == told
        assert (pixels(tmp_path / "out-mask.png") == (np.asarray(seen) > 0)).all()


def test_a_palette_photo_becomes_rgb_and_says_so(inpaint: Run, mask_file: Path, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).quantize(8)
    image.save(tmp_path / "photo.gif")
    done = inpaint(tmp_path / "photo.gif", "--mask", mask_file, "-o", tmp_path / "out.png")
    assert done.code == 0 and done.err.count("\n") == 1
    assert "warning: the photo has a palette" in done.err and "becomes RGB" in done.err
    known = pixels(mask_file) == 0
    assert (pixels(tmp_path / "out.png")[known] == np.asarray(image.convert("RGB"))[known]).all()


def test_a_photo_of_wide_numbers_that_are_bytes(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    image, hole = Image.open(photo_file).convert("L"), pixels(mask_file) > 0
    image.save(tmp_path / "bytes.png")
    Image.fromarray(np.where(hole, -(2**31), np.asarray(image, np.int32))).save(tmp_path / "wide.tif")
    results = []
    for name in ("bytes.png", "wide.tif"):
        done = inpaint(tmp_path / name, "--mask", mask_file, "-o", tmp_path / "out.png", "--overwrite")
        assert done.code == 0 and done.err == ""
        results.append(read_image(tmp_path / "out.png"))
    assert results[0].mode == results[1].mode == "L" and results[0].tobytes() == results[1].tobytes()


def test_a_mask_over_what_is_transparent_is_announced(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    image = Image.open(photo_file).convert("RGBA")
    image.putalpha(Image.open(mask_file).point(lambda value: 255 - value))
    image.save(tmp_path / "cut.png")
    out = tmp_path / "out.png"
    done = inpaint(tmp_path / "cut.png", "--mask", mask_file, "-o", out, "--dilate", 5)
    assert done.code == 0 and done.err.count("\n") == 1
    assert "warning: 33.3 % of the hole is fully transparent in the photo, and stays invisible: " in done.err
    assert inpaint(tmp_path / "cut.png", "-o", out, "--overwrite").err == ""


def test_numbers_out_of_range_far_from_the_hole_are_refused_before_the_work(
    inpaint: Run, mask_file: Path, tmp_path: Path
) -> None:
    values = np.full((40, 60), 0.5, np.float32)
    values[10:30, 15:45] = np.nan
    Image.fromarray(values).save(tmp_path / "x.tif")
    words = (tmp_path / "x.tif", "--mask", mask_file, "-o", tmp_path / "out.tif")
    done = inpaint(*words, "--padding-mask-crop", 2)
    assert (done.code, done.out) == (2, "") and "x.tif: the photo's floating-point numbers, NaN among them" in done.err
    assert inpaint(*words, "--dilate", 5).code == 0, "what the hole has grown over is not looked at"


def test_the_transparent_part_without_a_mask(inpaint: Run, photo_file: Path, tmp_path: Path) -> None:
    image = Image.open(photo_file).convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (10, 10, 30, 20))
    image.putalpha(alpha)
    image.save(tmp_path / "cut.png")
    done = inpaint(tmp_path / "cut.png", "-o", tmp_path / "out.png")
    assert done.code == 0 and "transparent = repaint" in done.out
    result = pixels(tmp_path / "out.png")
    assert (result[..., 3] == 255).all()
    known = np.asarray(alpha) == 255
    assert (result[known] == pixels(tmp_path / "cut.png")[known]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_a_full_mask_and_photos_of_a_pixel(size: tuple[int, int], inpaint: Run, tmp_path: Path) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "photo.png")
    Image.new("L", size, 255).save(tmp_path / "mask.png")
    done = inpaint(tmp_path / "photo.png", "--mask", tmp_path / "mask.png", "-o", tmp_path / "out.png")
    assert done.code == 0 and "hole 100 %" in done.out and Image.open(tmp_path / "out.png").size == size


def test_prompts_may_be_empty_and_are_cut_with_a_warning(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    words = (photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--overwrite")
    assert inpaint(*words, "--prompt", "").code == 0
    done = inpaint(*words, "--prompt", "zebra " * 300)
    assert done.code == 0 and done.err.count("\n") == 1
    assert "nuwa-lip: warning: the prompt is longer than" in done.err and "cut after '... " in done.err


def test_candidates_are_numbered_best_first_and_each_can_be_had_again(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    words = (photo_file, "--mask", mask_file, "-o", tmp_path / "out.png")
    done = inpaint(*words, "-n", 3, "--seed", 7)
    lines = [line for line in done.out.splitlines() if "score" in line]
    scores = [float(line.split("score ")[1].split(",")[0]) for line in lines]
    seeds = [int(line.rsplit("seed ")[1]) for line in lines]
    assert scores == sorted(scores, reverse=True) and sorted(seeds) == [7, 8, 9]
    names = {f"out-{i}.png" for i in (1, 2, 3)}
    assert set(contents(tmp_path)) == names | {"photo.png", "mask.png"}
    assert inpaint(*words, "--seed", seeds[1]).code == 0
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "out-2.png").read_bytes()
    sheet = tmp_path / "sheet.png"
    done = inpaint(photo_file, "--mask", mask_file, "-o", sheet, "-n", 5, "--grid", "--save-mask", "--seed", 7)
    assert done.code == 0 and Image.open(sheet).width > 4 * 256
    assert (pixels(tmp_path / "sheet-mask.png") == (pixels(mask_file) > 0)).all()
    beside = {f"sheet-{i}.png" for i in (1, 2, 3, 4, 5)} | {"sheet.png", "sheet-mask.png"}
    assert set(contents(tmp_path)) == names | beside | {"photo.png", "mask.png", "out.png"}
    same = [
        path for path in tmp_path.glob("sheet-[1-5].png") if path.read_bytes() == (tmp_path / "out.png").read_bytes()
    ]
    assert len(same) == 1, "the pictures beside the sheet are those that single runs give"


def test_the_seed_that_was_drawn_is_printed(
    inpaint: Run, nuwa_lip: Run, photo_file: Path, mask_file: Path, tmp_path: Path, tiny_model: Path
) -> None:
    words = (photo_file, "--mask", mask_file, "--prompt", "x", "--model", tiny_model, "-o")
    first = nuwa_lip("inpaint", *words, tmp_path / "a.png")
    seed = first.out.rsplit("seed ")[-1].strip()
    assert nuwa_lip("inpaint", *words, tmp_path / "b.png", "--seed", seed).code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_options_reach_the_pipeline(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    call = InpaintPipeline.__call__
    monkeypatch.setattr(
        InpaintPipeline, "__call__", lambda self, **options: given.update(options) or call(self, **options)
    )
    words = "--guidance-scale 2 --temperature 0.5 --top-k 9 --top-p 0.8 --order border --steps 3".split()
    words += "--schedule constant --padding-mask-crop 4 --dtype bfloat16 --device cpu".split()
    assert inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", *words).code == 0
    names = "guidance_scale temperature top_k top_p order num_inference_steps schedule".split()
    names += "padding_mask_crop rank".split()
    assert [given[name] for name in names] == [2.0, 0.5, 9, 0.8, "border", 3, "constant", 4, "likelihood"]
    for name, all_names in (("order", ORDERS), ("schedule", SCHEDULES)):
        assert set(get_args(get_args(get_type_hints(Options)[name])[0])) == set(all_names)


def test_weights_of_another_form_reach_the_model(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []
    call = InpaintPipeline.__call__
    monkeypatch.setattr(
        InpaintPipeline, "__call__", lambda self, **o: used.append(is_quantised(self.mps2s)) or call(self, **o)
    )
    words = (photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--overwrite")
    assert inpaint(*words, "--weights", "int8-weights", "--device", "cpu").code == 0
    few, hole = pixels(tmp_path / "out.png"), pixels(mask_file) > 0
    assert inpaint(*words).code == 0
    assert used == [True, False]
    assert (few[~hole] == pixels(photo_file)[~hole]).all() and (few[hole] != pixels(photo_file)[hole]).any()
    assert set(get_args(get_args(get_type_hints(Options)["weights"])[0])) == set(LAYERS)


def test_weights_that_cannot_be_used_are_one_line(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--weights", "int8")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    done = inpaint(*words)
    assert done.code == 2 and done.err.count("\n") == 1 and "take int8-weights or int4" in done.err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # which is not taken for them
    done = inpaint(*words)
    assert done.code == 2 and "take int8-weights or int4" in done.err
    done = inpaint(*words, "--device", "cuda")
    assert done.code == 2 and "--weights int8 is for the CPU, not for cuda: add --device cpu" in done.err
    assert not (tmp_path / "out.png").exists()


def test_dilate_and_invert(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    words = (photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--save-mask", "--overwrite")
    hole = pixels(mask_file) > 0
    assert inpaint(*words, "--dilate", 2).code == 0
    wide = np.zeros_like(hole)
    wide[13:27, 18:42] = True
    assert (pixels(tmp_path / "out-mask.png") == wide).all()
    done = inpaint(*words, "--invert")
    assert done.code == 0 and "inverted" in done.out
    assert (pixels(tmp_path / "out-mask.png") == ~hole).all()
    assert (pixels(tmp_path / "out.png")[hole] == pixels(photo_file)[hole]).all()
    Image.new("L", (60, 40)).save(tmp_path / "black.png")
    assert inpaint(photo_file, "--mask", tmp_path / "black.png", "-o", tmp_path / "all.png", "--invert").code == 0


def test_a_photo_may_be_replaced_by_its_result(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    before = pixels(photo_file)
    assert inpaint(photo_file, "--mask", mask_file, "-o", photo_file, "--overwrite").code == 0
    hole = pixels(mask_file) > 0
    assert (pixels(photo_file)[~hole] == before[~hole]).all() and (pixels(photo_file) != before).any()


def test_jpeg_is_written_with_a_warning(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    done = inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.jpg")
    assert done.code == 0 and "JPEG cannot keep known pixels exact" in done.err


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no photo": (("nowhere.png", "--mask", "mask.png"), "there is no file nowhere.png"),
    "no mask": (("photo.png", "--mask", "nowhere.png"), "there is no file nowhere.png"),
    "text": (("text.png", "--mask", "mask.png"), "text.png is not a picture of a known format"),
    "torn": (("torn.png", "--mask", "mask.png"), "torn.png is damaged"),
    "bomb": (("bomb.png", "--mask", "mask.png"), "bomb.png has over"),
    "text as mask": (("photo.png", "--mask", "text.png"), "text.png is not a picture"),
    "a folder as mask": (("photo.png", "--mask", "empty"), "empty is a folder, not a picture"),
    "another size": (("photo.png", "--mask", "large.png"), "large.png: the mask is 61x40, the photo 60x40"),
    "empty mask": (("photo.png", "--mask", "black.png"), "black.png: nothing to repaint: the mask is empty"),
    "full mask inverted": (("photo.png", "--mask", "white.png", "--invert"), "white.png: nothing to repaint"),
    "opaque, without a mask": (("photo.png",), "photo.png: there is no mask, and the photo has no alpha"),
    "nothing transparent": (("opaque.png",), "opaque.png: nothing to repaint: there is no mask"),
    "no mask to invert": (("opaque.png", "--invert"), "opaque.png: there is no mask to invert"),
    "existing": (("photo.png", "--mask", "mask.png", "-o", "old.png"), "old.png exists; give --overwrite"),
    "existing candidate": (
        ("photo.png", "--mask", "mask.png", "-o", "old.png", "-n", "2"),
        "old-2.png exists; give --overwrite",
    ),
    "existing mask": (
        ("photo.png", "--mask", "mask.png", "-o", "new.png", "--save-mask"),
        "new-mask.png exists; give --overwrite",
    ),
    "a folder as result": (("photo.png", "--mask", "mask.png", "-o", "empty.png"), "empty.png is a folder"),
    "unwritable": (("photo.png", "--mask", "mask.png", "-o", "text.png/out.png"), "not a directory"),
    "unknown ending": (
        ("photo.png", "--mask", "mask.png", "-o", "out.bmp"),
        "the ending must be one of .png",
    ),
    "unknown model": (
        ("photo.png", "--mask", "mask.png", "--model", "mimi"),
        "no model 'mimi': .*nuwa-lip-mini",
    ),
    "half a model": (("photo.png", "--mask", "mask.png", "--model", "empty"), "config.json is missing"),
    "newer model": (
        ("photo.png", "--mask", "mask.png", "--model", "newer"),
        "format_version 2.*update nuwa-lip",
    ),
    "device": (("photo.png", "--mask", "mask.png", "--device", "abacus"), "--device abacus cannot be used"),
    "weights on another device": (
        ("photo.png", "--mask", "mask.png", "--weights", "int4", "--device", "cuda:1"),
        "--weights int4 is for the CPU, not for cuda:1",
    ),
    "no name to make others from": (
        ("photo.png", "--mask", "mask.png", "-o", ".", "--save-mask"),
        "^nuwa-lip: cannot write .: it is a folder; name a file in it$",
    ),
    "mask over the given mask": (
        ("photo.png", "--mask", "new-mask.png", "-o", "new.png", "--save-mask", "--overwrite"),
        "^nuwa-lip: new-mask.png, to be written for photo.png, is an input; rename it, or choose another -o$",
    ),
    "mask over the photo": (
        ("new-mask.png", "--mask", "mask.png", "-o", "empty/../new.png", "--save-mask", "--overwrite"),
        "new-mask.png, to be written for new-mask.png, is an input",
    ),
    "candidate over the photo": (
        ("old-2.png", "--mask", "mask.png", "-o", "old.png", "-n", "2", "--overwrite"),
        "old-2.png, to be written for old-2.png, is an input",
    ),
    "mask over another result": (
        ("twins", "--mask", "mask.png", "-o", "out", "--save-mask"),
        "^nuwa-lip: out/a-mask.png would be written for twins/a-mask.png and for twins/a.png; rename one of them$",
    ),
    "mask over another photo": (
        ("twins", "--mask", "mask.png", "-o", "twins", "--save-mask", "--overwrite"),
        "twins/a-mask.png, to be written for twins/a.png, is an input",
    ),
    "candidate over another photo": (
        ("twins", "--mask", "mask.png", "-o", "twins", "-n", "2", "--overwrite"),
        "twins/b-2.png, to be written for twins/b.png, is an input",
    ),
    "result over the mask of all": (
        ("photos", "--mask", "photos/mask.png", "-o", "photos", "--overwrite"),
        "photos/mask.png, to be written for photos/mask.png, is an input",
    ),
    "too wide": (("wide.png", "--mask", "wide.png", "-o", "out.webp"), "WEBP holds 16383 pixels a side"),
    "no candidates": (("photo.png", "--mask", "mask.png", "-n", "0"), "--num 0 is too small: 1 at least"),
    "steps": (("photo.png", "--mask", "mask.png", "--steps", "0"), "--steps 0 is too small"),
    "seed": (("photo.png", "--mask", "mask.png", "--seed", "-1"), "--seed -1 is too small"),
    "huge seed": (("photo.png", "--mask", "mask.png", "--seed", "9" * 20), "--seed 9+ is too large"),
    "temperature": (("photo.png", "--mask", "mask.png", "--temperature", "nan"), "--temperature nan"),
    "top p": (("photo.png", "--mask", "mask.png", "--top-p", "2"), "--top-p 2.0 is not above 0 and at most 1"),
    "no captions file": (
        ("photo.png", "--mask", "mask.png", "--prompt", "c.json"),
        "no captions file c.json",
    ),
    "no caption": (
        ("photo.png", "--mask", "mask.png", "--prompt", "captions.json"),
        "photo.png: there is no caption for it in captions.json",
    ),
    "folder without photos": (("empty", "--mask", "mask.png", "-o", "out"), "there are no photos in empty"),
    "folder, no masks": (("photos", "--mask", "nowhere", "-o", "out"), "no file or folder nowhere"),
    "folder, unknown model": (("photos", "--model", "mimi", "-o", "out"), "there is no model 'mimi'"),
    "folder into a file": (("photos", "--mask", "mask.png", "-o", "old.png"), "old.png is a file"),
    "folder below a file": (("photos", "--mask", "mask.png", "-o", "old.png/out"), "old.png/out"),
    "folder of bad photos": (("bad", "--mask", "mask.png", "-o", "deep/out"), "none of 2 photos could be"),
}


@pytest.fixture
def workplace(
    photo_file: Path, mask_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The files that the bad words above are about."""
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    Path("torn.png").write_bytes(photo_file.read_bytes()[:3000])
    Image.new("L", (61, 40), 255).save("large.png")
    Image.new("L", (60, 40)).save("black.png")
    Image.new("L", (60, 40), 255).save("white.png")
    Image.new("L", (17000, 1), 255).save("wide.png")
    Image.open(photo_file).convert("RGBA").save("opaque.png")
    for name in ("old.png", "old-2.png", "new-mask.png"):
        Path(name).write_bytes(b"old")
    for name in ("empty", "empty.png", "photos", "bad", "twins"):
        Path(name).mkdir()
    for name in ("a.png", "a-mask.png", "b.png", "b-2.png"):
        shutil.copy("photo.png", f"twins/{name}")
    shutil.copy("mask.png", "photos")
    shutil.copy("photo.png", "photos")
    shutil.copy("text.png", "bad")
    shutil.copy("torn.png", "bad")
    Path("captions.json").write_text('{"other": "a bear"}')
    shutil.copytree(tiny_model, "newer")
    config = json.loads(Path("newer/config.json").read_text())
    Path("newer/config.json").write_text(json.dumps(config | {"format_version": 2}))
    header = bytearray(photo_file.read_bytes())
    header[16:24] = (30000).to_bytes(4, "big") * 2  # width and height
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    Path("bomb.png").write_bytes(header)
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_2_and_nothing_is_written(name: str, inpaint: Run, workplace: Path) -> None:
    words, says = BAD[name]
    if "-o" not in words:
        words = (*words, "-o", "out.png")
    before = contents(workplace)
    folders = {path for path in workplace.rglob("*") if path.is_dir()}
    done = inpaint(*words)
    lines = done.err.splitlines()
    assert done.code == 2, done.err
    assert len(lines) == (3 if name == "folder of bad photos" else 1)
    assert all(line.startswith("nuwa-lip: ") for line in lines)
    assert re.search(says, lines[-1]), done.err
    assert contents(workplace) == before and {p for p in workplace.rglob("*") if p.is_dir()} == folders


def test_a_hub_id_that_was_not_pulled_is_one_line(
    inpaint: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("getaddrinfo", "socket.connect"):
        monkeypatch.setattr(f"socket.{name}", lambda *_, **__: pytest.fail("the network is asked"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    done = inpaint("photo.png", "--mask", "mask.png", "-o", "out.png", "--model", "some/unknown-id")
    assert done.code == 2 and not Path("out.png").exists() and len(done.err.splitlines()) == 1
    assert "'some/unknown-id' is not in the hub's cache: fetch it by 'nuwa-lip pull some/unknown-id'" in done.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("place", ["nuwa_lip.pipeline.InpaintPipeline._fill", "PIL.Image.Image.save"])
def test_what_stops_the_work_leaves_nothing(
    error: BaseException, place: str, inpaint: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise error

    before = contents(workplace)
    monkeypatch.setattr(place, stop)
    for words in (("photo.png", "-o", "old.png", "--overwrite"), ("photos", "-o", "deep/out")):
        done = inpaint(*words, "--mask", "mask.png")
        assert done.code == 1 and len(done.err.splitlines()) == 1
        assert contents(workplace) == before and not Path("deep").exists()


@pytest.fixture
def folders(workplace: Path) -> Path:
    """photos/ with two good ones and a torn one, masks/ and captions.json for all."""
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.webp"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(f"photos/{name}", lossless=True)
    for name in ("photo.png", "mask.png"):
        Path("photos", name).unlink()
    Path("masks").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy("mask.png", f"masks/{name}.png")
    Path("captions.json").write_text(json.dumps({"a": "a bear", "b.webp": "the sea", "c": "grass"}))
    return workplace


def test_a_folder_of_photos(inpaint: Run, folders: Path) -> None:
    done = inpaint("photos", "--mask", "masks", "--prompt", "captions.json", "-o", "deep/out")
    assert done.code == 0 and done.err == "" and "deep/out: 2 of 2 photos repainted" in done.out
    assert set(contents(folders / "deep")) == {"out/a.png", "out/b.png"}
    hole = pixels(Path("mask.png")) > 0
    for photo, result in (("a.png", "a.png"), ("b.webp", "b.png")):
        before, after = pixels(Path("photos") / photo), pixels(Path("deep/out") / result)
        assert (before[~hole] == after[~hole]).all() and (before[hole] != after[hole]).any()
    one = inpaint("photos/b.webp", "--mask", "mask.png", "--prompt", "captions.json", "-o", "one.png")
    assert one.code == 0 and Path("one.png").read_bytes() == Path("deep/out/b.png").read_bytes()


def test_bad_photos_in_a_folder_are_named_and_the_others_done(inpaint: Run, folders: Path) -> None:
    shutil.copy("torn.png", "photos/c.png")
    shutil.copy("photos/a.png", "photos/d.png")
    done = inpaint("photos", "--mask", "masks", "--prompt", "captions.json", "-o", "out")
    assert done.code == 1 and "out: 2 of 4 photos repainted" in done.out
    first, second = sorted(done.err.splitlines())
    assert "photos/c.png is damaged" in first and "photos/d.png: there is no caption for it" in second
    assert set(contents(folders / "out")) == {"a.png", "b.png"}
    again = inpaint("photos", "--mask", "masks", "--prompt", "captions.json", "-o", "out")
    assert again.code == 1 and again.err == done.err and "2 of 4 photos have a result already" in again.out
    assert inpaint("photos", "--mask", "mask.png", "-o", "out", "--overwrite").code == 1


def test_every_warning_in_a_folder_names_its_photo(inpaint: Run, folders: Path) -> None:
    Path("photos/b.webp").unlink()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))
    frames = [image.quantize(8), image.quantize(4)]
    Path("photos/a.png").unlink()
    frames[0].save("photos/a.gif")
    frames[0].save("photos/b.gif", save_all=True, append_images=frames[1:])
    Image.new("L", (100, 100), 255).save("white.png")
    done = inpaint("photos", "--mask", "white.png", "-o", "out")
    assert done.code == 0
    a, b = "nuwa-lip: warning: photos/a.gif", "nuwa-lip: warning: photos/b.gif"
    assert [line.partition(": it becomes")[0].partition(" 3.1")[0] for line in done.err.splitlines()] == [
        f"{a}: the photo has a palette, too small for more",
        f"{a}: the hole is large: what is painted is enlarged",
        f"{b} has several frames; only the first is used",
        f"{b}: the photo has a palette, too small for more",
        f"{b}: the hole is large: what is painted is enlarged",
    ]
    alone = inpaint("photos/a.gif", "--mask", "white.png", "-o", "one.png")
    assert "warning: the photo has a palette" in alone.err and "warning: the hole is large" in alone.err


def test_every_problem_in_a_folder_names_its_photo(inpaint: Run, folders: Path) -> None:
    Image.new("LAB", (60, 40)).save("photos/lab.tif")
    Image.fromarray(np.full((40, 60), 255, np.float32)).save("photos/numbers.tif")
    Image.new("RGB", (30, 30)).save("photos/small.png")
    done = inpaint("photos", "--mask", "mask.png", "-o", "out")
    assert done.code == 1 and "out: 2 of 5 photos repainted" in done.out
    lab, numbers, small = done.err.splitlines()
    assert lab.startswith("nuwa-lip: photos/lab.tif: the photo has the mode LAB")
    assert numbers.startswith(
        "nuwa-lip: photos/numbers.tif: the photo's floating-point numbers, 255 to 255, are not within 0 to 1"
    )
    assert small == "nuwa-lip: photos/small.png: mask.png: the mask is 60x40, the photo 30x30; they must be of one size"


def test_a_mask_is_saved_only_beside_a_result(
    inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(_: Image.Image, path: Path, **options: bool) -> None:
        if not path.stem.endswith("-mask"):
            raise OSError(28, "No space left on device")
        save_image(_, path, **options)

    monkeypatch.setattr("nuwa_lip.commands.inpaint.save_image", save)
    before = contents(tmp_path)
    for more in ((), ("--grid",)):
        done = inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.png", "--save-mask", *more)
        assert done.code == 1 and contents(tmp_path) == before


def test_the_model_is_imported_beside_the_decoding_of_a_large_photo(
    photo_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []

    def load(name: str) -> None:
        imported.append(name)
        raise ImportError(name)  # which is met again where the model is needed

    monkeypatch.setattr(command.importlib, "import_module", load)
    for limit in (command.LARGE, 0):
        monkeypatch.setattr(command, "LARGE", limit)
        with command._importing(photo_file):
            pass
    assert imported == ["nuwa_lip.pipeline"]


def test_no_library_warns_on_the_way(inpaint: Run, photo_file: Path, mask_file: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inpaint(photo_file, "--mask", mask_file, "-o", tmp_path / "out.png").code == 0
