"""Benchmarks of others: their layouts become our folder, and hostile files are one line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nuwa_lip.data.benchmark import read_benchmark, verify_benchmark
from nuwa_lip.data.masked import SIDE, blanked, read_masked, run_mask
from nuwa_lip.errors import InputError

Run = Callable[..., Any]


def picture(side: int = SIDE, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def runs_of(mask: np.ndarray) -> list[int]:
    """Runs of a mask, written down independently: first pixel from 1, and length."""
    runs, flat = [], mask.ravel().tolist()
    for i, here in enumerate(flat):
        if here and (i == 0 or not flat[i - 1]):
            runs += [i + 1, 0]
        if here:
            runs[-1] += 1
    return runs


@pytest.fixture
def brushbench(tmp_path: Path) -> Path:
    """Two pictures, one with a mask in either column."""
    folder = tmp_path / "BrushBench"
    (folder / "images" / "natural").mkdir(parents=True)
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[100:200, 50:300] = True
    mapping = {}
    for i, name in enumerate(("000", "001")):
        picture(seed=i).save(folder / "images" / "natural" / f"{name}.png")
        mapping[name] = {
            "image": f"images/natural/{name}.png",
            "caption": f"a picture {name}",
            "inpainting_mask": runs_of(inside),
            "outpainting_mask": runs_of(~inside) if i else " ".join(map(str, runs_of(~inside))),
        }
    (folder / "mapping_file.json").write_text(json.dumps(mapping))
    return folder


def change(folder: Path, **fields: Any) -> None:
    """Change the second picture's entry."""
    file = folder / "mapping_file.json"
    mapping = json.loads(file.read_text())
    mapping["001"] |= fields
    file.write_text(json.dumps(mapping))


def test_runs_are_pixels_from_one_row_by_row() -> None:
    assert run_mask([2, 2, 8, 1], 3).tolist() == [[False, True, True], [False] * 3, [False, True, False]]
    assert not run_mask([], 4).any() and run_mask("1 16", 4).all()
    for wrong in ([0, 1], [1], [1, -1], [16, 2], [2**62, 2**62], [1, 2] * 17, "a b", [None, 1]):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            run_mask(wrong, 4)


def test_brushbench_becomes_a_benchmark(brushbench: Path, tmp_path: Path, nuwa_lip: Run) -> None:
    done = nuwa_lip("data", "benchmark", "--source", brushbench, "--layout", "brushbench", "-o", tmp_path / "in")
    assert done.code == 0 and "2 photos with their own masks" in done.out
    made = read_benchmark(tmp_path / "in")
    verify_benchmark(made)
    assert made.captions == ("a picture 000", "a picture 001")
    expected = np.zeros((SIDE, SIDE), dtype=bool)
    expected[100:200, 50:300] = True
    assert all(np.array_equal(item.mask, expected) for item in made)
    assert np.array_equal(made[1].image, np.asarray(picture(seed=1)))

    words = ("--layout", "editbench", "--masks", "outpainting", "--size", 128, "--limit", 1, "-o", tmp_path / "out")
    assert nuwa_lip("data", "benchmark", "--source", brushbench, *words).code == 0
    (item,) = read_benchmark(tmp_path / "out")
    cells = ~expected.reshape(128, 4, 128, 4)
    assert item.image.shape == (128, 128, 3) and np.array_equal(item.mask, cells.any((1, 3)))


@pytest.mark.parametrize("side", [256, 512])
def test_editbench_may_have_one_mask_and_another_size(brushbench: Path, side: int) -> None:
    picture(side, 1).save(brushbench / "images" / "natural" / "001.png")
    mapping = json.loads((brushbench / "mapping_file.json").read_text())
    for item in mapping.values():
        item["mask"] = item.pop("inpainting_mask")
    (brushbench / "mapping_file.json").write_text(json.dumps(mapping))
    found = list(read_masked("editbench", brushbench))
    assert found[1].mask.shape == (side, side) and found[1].mask.mean() == pytest.approx(found[0].mask.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "../../secret.png"}, "is not within"),
        ({"image": "/etc/passwd"}, "is not within"),
        ({"image": "images/link.png"}, "is not within"),
        ({"image": "images/none.png"}, "no such file"),
        ({"image": "mapping_file.json"}, "not a picture"),
        ({"inpainting_mask": [1, 512 * 512 + 1]}, "the mask of '001'"),
        ({"inpainting_mask": {"a": 1}}, "the mask of '001'"),
        ({"caption": "x", "image": "images/wide.png"}, "is 40x30; its mask is 512x512"),
    ],
)
def test_what_a_hostile_mapping_names_is_refused(brushbench: Path, fields: dict[str, Any], message: str) -> None:
    picture(16).save(brushbench.parent / "secret.png")
    (brushbench / "images" / "link.png").symlink_to(brushbench.parent / "secret.png")
    picture(40).crop((0, 0, 40, 30)).save(brushbench / "images" / "wide.png")
    change(brushbench, **fields)
    with pytest.raises(InputError, match=message) as error:
        list(read_masked("brushbench", brushbench))
    assert "\n" not in str(error.value)


def test_a_mapping_of_another_kind_is_refused(brushbench: Path, tmp_path: Path, nuwa_lip: Run) -> None:
    for content in ("[]", "{", '{"a": 1}', '{"a": {"image": "x.png"}}'):
        (brushbench / "mapping_file.json").write_text(content)
        with pytest.raises(InputError, match="mapping_file.json"):
            list(read_masked("brushbench", brushbench))
    with pytest.raises(InputError, match="has no mapping_file.json"):
        list(read_masked("brushbench", tmp_path))
    words = ("data", "benchmark", "--source", brushbench, "--layout", "brushbench", "-o", tmp_path / "out")
    assert "--captions" in nuwa_lip(*words, "--captions", "x.json").err and not (tmp_path / "out").exists()


# ---- MagicBrush


def encoded(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "../../outside.png"}


def holed(kind: str) -> Image.Image:
    source = picture(64)
    if kind == "transparent":
        source.putalpha(255)
        source.paste((0, 0, 0, 0), (10, 20, 40, 50))
    elif kind == "painted":
        source.paste("white", (10, 20, 40, 50))
    else:
        source = Image.new("L", (64, 64))
        source.paste(255, (10, 20, 40, 50))
    return source


def parquet(path: Path, mask: Image.Image, **columns: Any) -> Path:
    row = {
        "img_id": "242679",
        "turn_index": 1,
        "source_img": encoded(picture(64)),
        "mask_img": encoded(mask),
        "instruction": "put a cat there",
        "target_img": encoded(picture(64, 5)),
    }
    pq.write_table(pa.Table.from_pylist([row | columns]), path)
    return path


@pytest.mark.parametrize("kind", ["transparent", "painted", "drawn"])
def test_magicbrush_becomes_a_benchmark(kind: str, tmp_path: Path, nuwa_lip: Run) -> None:
    file = parquet(tmp_path / "dev-00000.parquet", holed(kind), target_local_caption="a cat")
    done = nuwa_lip("data", "benchmark", "--source", file, "--layout", "magicbrush", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    (item,) = read_benchmark(tmp_path / "out")
    expected = np.zeros((64, 64), dtype=bool)
    expected[20:50, 10:40] = True
    assert np.array_equal(item.mask, expected)
    assert item.caption == "a cat" and item.license == "CC-BY-4.0"
    assert np.array_equal(item.image, np.asarray(picture(64, 5)))


def test_without_a_local_caption_there_is_the_instruction(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", holed("drawn"))
    (found,) = read_masked("magicbrush", tmp_path)
    assert found.sample.captions == ["put a cat there"]


def test_a_parquet_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1nonsensePAR1")
    parquet(tmp_path / "hollow.parquet", holed("drawn"), source_img={"bytes": None, "path": "/etc/passwd"})
    parquet(tmp_path / "odd.parquet", holed("drawn").resize((32, 32), Image.Resampling.NEAREST))
    for name, message in (
        ("other", "no column source_img"),
        ("broken", "cannot be read"),
        ("hollow", "holds no picture"),
        ("odd", "its mask is 32x32"),
        ("missing", "is no parquet file"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_masked("magicbrush", tmp_path / f"{name}.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"nuwa-lip\[evaluate\]"):
        list(read_masked("magicbrush", tmp_path))


def test_photos_without_a_hole_are_left_out(tmp_path: Path, nuwa_lip: Run) -> None:
    parquet(tmp_path / "a.parquet", holed("drawn"))
    parquet(tmp_path / "b.parquet", Image.new("L", (64, 64)))
    words = ("data", "benchmark", "--source", tmp_path, "--layout", "magicbrush")
    done = nuwa_lip(*words, "-o", tmp_path / "out")
    assert done.code == 0 and "empty: 1" in done.err
    (tmp_path / "a.parquet").unlink()
    done = nuwa_lip(*words, "-o", tmp_path / "none")
    assert done.code == 2 and "something to repaint" in done.err


def test_a_copy_of_another_size_has_no_mask() -> None:
    with pytest.raises(ValueError, match="a mask of 32x32"):
        blanked(picture(32), picture(64))
