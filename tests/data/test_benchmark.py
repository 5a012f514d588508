"""Benchmark folders: the same bytes from the same seed, and one clear line for each kind of damage."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.commands import benchmark as command
from nuwa_lip.data.benchmark import build_benchmark, read_benchmark, rule_mask, verify_benchmark
from nuwa_lip.data.shards import Sample
from nuwa_lip.errors import InputError

RULE = "rectangles-40-60"


def samples(n: int = 3) -> list[Sample]:
    """Noise photos of different sizes."""
    rng = np.random.default_rng(0)
    sizes = [(40, 56), (33, 48), (64, 64), (50, 37)]
    photos = [rng.integers(0, 256, (*sizes[i % 4], 3), dtype=np.uint8) for i in range(n)]
    return [
        Sample(key=f"photo{i}", image=Image.fromarray(p), captions=[f"a café, number {i}", "another"], meta={})
        for i, p in enumerate(photos)
    ]


def build(out: Path, seed: int = 0, rule: str = RULE, limit: int | None = None):
    return build_benchmark(samples(), source="noise", rule=rule, seed=seed, out=out, limit=limit)


def test_builds_what_the_source_holds(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "b")
    assert [item.name for item in benchmark] == ["00000", "00001", "00002"]
    for item, sample in zip(benchmark, samples(), strict=True):
        np.testing.assert_array_equal(item.image, np.asarray(sample.image))
        assert item.mask.dtype == bool and item.mask.shape == item.image.shape[:2]
        assert 0.4 <= item.mask.mean() <= 0.6
        assert item.caption == sample.captions[0]
    verify_benchmark(benchmark)


def test_same_seed_same_bytes_other_seed_other_masks(tmp_path: Path) -> None:
    first, second, third = build(tmp_path / "1"), build(tmp_path / "2"), build(tmp_path / "3", seed=1)
    for file in sorted((tmp_path / "1").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "2" / file.relative_to(tmp_path / "1")).read_bytes()
    assert first.sha256 == second.sha256 != third.sha256


def test_limit_keeps_the_same_first_items(tmp_path: Path) -> None:
    whole, part = build(tmp_path / "whole"), build(tmp_path / "part", limit=2)
    assert len(part) == 2
    assert part.info["items"] == whole.info["items"][:2]


@pytest.mark.parametrize("rule", ["rectangles-10-30", "strokes-20-40", "border-30-50", "center-25-25"])
def test_every_rule_keeps_its_share(rule: str) -> None:
    low, high = (int(n) / 100 for n in rule.split("-")[1:])
    mask = rule_mask(rule, 96, 128, np.random.default_rng(0))
    assert mask.shape == (96, 128)
    assert low - 0.01 <= mask.mean() <= high + 0.01


@pytest.mark.parametrize(
    "rule", ["circles-10-20", "rectangles", "rectangles-60-40", "rectangles-0-10", "border-10-101"]
)
def test_unknown_rules_are_named(rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        rule_mask(rule, 8, 8, np.random.default_rng(0))


def test_command_builds_from_a_folder_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "b"
    photos.mkdir()
    for sample in samples():
        sample.image.save(photos / f"{sample.key}.png")
        (photos / f"{sample.key}.txt").write_text("\n".join(sample.captions), encoding="utf-8")
    command.benchmark(out=out, source=[str(photos)])
    command.benchmark(out=out, verify=True)
    made, checked = capsys.readouterr().out.split("sha256")[1:]
    assert made.split()[0] == checked.split()[0] == read_benchmark(out).sha256
    assert [item.caption for item in read_benchmark(out)] == [s.captions[0] for s in samples()]


def test_command_names_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--source is missing"):
        command.benchmark(out=tmp_path / "b")
    with pytest.raises(InputError, match="--limit 0"):
        command.benchmark(out=tmp_path / "b", source=["x"], limit=0)
    with pytest.raises(InputError, match="--seed -1"):
        command.benchmark(out=tmp_path / "b", source=["x"], seed=-1)
    with pytest.raises(InputError, match="absent"):
        command.benchmark(out=tmp_path / "b", source=[str(tmp_path / "absent.tar")])
    assert not any(tmp_path.iterdir())


def test_refuses_an_existing_folder_and_leaves_no_half(tmp_path: Path) -> None:
    build(tmp_path / "b")
    with pytest.raises(InputError, match="exists already"):
        build(tmp_path / "b")
    with pytest.raises(InputError, match="holds no photo"):
        build_benchmark([], source="nothing", rule=RULE, seed=0, out=tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_damage_is_named(tmp_path: Path) -> None:
    benchmark = build(tmp_path / "b")
    mask_file, image_file = (tmp_path / "b" / kind / "00001.png" for kind in ("masks", "images"))
    mask = mask_file.read_bytes()
    Image.new("L", (5, 4), 255).save(mask_file)
    with pytest.raises(InputError, match="is 5x4; its photo is 48x33"):
        benchmark[1]
    moved = np.roll(np.asarray(Image.open(BytesIO(mask))), 1, axis=0)
    Image.fromarray(moved).save(mask_file)
    with pytest.raises(InputError, match="mask of 00001 differs"):
        verify_benchmark(benchmark)
    Image.new("L", (48, 33), 0).save(mask_file)
    with pytest.raises(InputError, match="nothing to repaint"):
        benchmark[1]
    mask_file.write_bytes(mask)
    image_file.write_bytes(image_file.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        benchmark[1]
    image_file.unlink()
    with pytest.raises(InputError, match="is missing"):
        benchmark[1]


def test_a_folder_that_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmark.json is missing"):
        read_benchmark(tmp_path)
    build(tmp_path / "b")
    info = tmp_path / "b" / "benchmark.json"
    text = info.read_text()
    info.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(InputError, match="format 9"):
        read_benchmark(tmp_path / "b")
    info.write_text(text[:50])
    with pytest.raises(InputError, match="damaged"):
        read_benchmark(tmp_path / "b")
