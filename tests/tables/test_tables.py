"""Tables from rows: the paper beside ours, claims with known answers, seeds, files that go on and pages that sort."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from nuwa_lip.baselines import registry
from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.fingerprints import content_hash, parameters_of
from nuwa_lip.evaluation.job import Job
from nuwa_lip.evaluation.report import write_report
from nuwa_lip.hub import load_model, save_model
from nuwa_lip.tables import paper, specs
from nuwa_lip.tables.assemble import about, as_csv, as_json, as_markdown, as_text, assemble, texts
from nuwa_lip.tables.budget import budgets_of
from nuwa_lip.tables.layout import Claim, Column, Row, Table
from nuwa_lip.tables.measure import Setting, images_row, tokenizer_row
from nuwa_lip.tables.page import page
from nuwa_lip.tables.pictures import GAIN, sheet, shown_of
from nuwa_lip.tables.rows import Measured, RowFolder, seeded

TABLE = Table(
    name="small",
    title="Small",
    kind="images",
    columns=(Column(key="fsd", label="FSD", paper="FID"), Column(key="psnr", label="PSNR", digits=1)),
    rows=(Row(name="ours", label="Ours", paper={"fsd": 3.0}), Row(name="other", label="<Other>")),
    claims=(
        Claim(ahead="ours", behind="other", key="fsd", at_most=0.5, paper="0.4"),
        Claim(ahead="ours", behind="other", key="psnr", higher=True),
    ),
    sort=("psnr",),
)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("tables") / "shapes"
    return build_benchmark(shape_samples(3, size=32), source="shapes", rule="centre-20-40", seed=0, out=out)


def measured(row: str, benchmark: Benchmark, fsd: float, psnr: list[float | None]) -> Measured:
    known = [value for value in psnr if value is not None]
    return Measured(
        row=row,
        kind="images",
        benchmark="shapes",
        benchmark_sha256=benchmark.sha256,
        n=3,
        identity={},
        setting={"model": row},
        figures={"fsd": fsd, "psnr": float(np.mean(known))},
        intervals_95={"fsd": [fsd - 1, fsd + 1], "psnr": None},
        per_photo={"psnr": psnr},
        resampled={"fsd": [fsd + 1, fsd + 1.5, fsd + 2]},
        training=["nuwa-lip train"],
        command="nuwa-lip evaluate",
    )


def fill(folder: RowFolder, benchmark: Benchmark) -> None:
    ours = measured("ours", benchmark, 4.0, [20.0, 22.0, 24.0])
    size = {"dfvqgan": 2_859_388, "mps2s": 15_000_000}
    folder.write(dataclasses.replace(ours, setting={**ours.setting, "parameters": size}))
    folder.write(measured("other", benchmark, 10.0, [19.0, 20.5, None]))
    for row in ("ours", "other"):
        path = folder.picture(row, 1, "result")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), "red" if row == "ours" else "blue").save(path)


def test_the_papers_figures_stand_beside_ours(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    block = assemble(TABLE, benchmark, folder)
    assert texts(block) == [
        ["Ours", "3", "4.00 [3.00, 5.00]", "22.0", "2.9 + 15.0 M", "–", "3", "1"],
        ["<Other>", "–", "10.00 [9.00, 11.00]", "19.8", "–", "–", "3", "1"],
    ]
    assert not any("parameters" in note for note in about(block))  # they have a column
    ratio, gain = block.verdicts()
    assert ratio.value == pytest.approx(0.4) and ratio.holds and "(paper: 0.4)" in ratio.text
    assert gain.value == pytest.approx((1 + 1.5) / 2) and gain.holds  # over the photos that both have
    assert gain.interval is not None and 1 <= gain.interval[0] <= gain.interval[1] <= 1.5
    rows = list(csv.DictReader(io.StringIO(as_csv([block]))))
    assert rows[0]["paper: FID"] == "3.0" and float(rows[0]["fsd_low"]) == 3 and rows[1]["paper: FID"] == ""
    assert rows[1]["benchmark_sha256"] == benchmark.sha256 and rows[0]["psnr_low"] == ""  # it has no interval
    markdown = as_markdown([block], "nuwa-lip evaluate small").splitlines()
    assert (
        "| Ours | 3 | 4.00 [3.00, 5.00] | 22.0 | 2.9 + 15.0 M | – | 3 | 1 |" in markdown
        and markdown[-1] == "    nuwa-lip evaluate small"
    )
    content = json.loads(json.dumps(as_json([block], "c")))
    ours = content["benchmarks"][0]["rows"][0]
    assert ours["figures"]["fsd"] == 4 and ours["paper"]["FID"] == 3 and ours["training"] == [["nuwa-lip train"]]
    assert content["benchmarks"][0]["claims"][0]["answer"] == "yes"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_terminal_cuts_no_figure(benchmark: Benchmark, tmp_path: Path, width: int) -> None:
    table, folder = specs.table4(), RowFolder(tmp_path, "shapes", "stage2")
    figures = {column.key: 1234.5 + i for i, column in enumerate(table.columns)}
    intervals = {key: [value - 1, value + 1] for key, value in figures.items()}
    one = dataclasses.replace(measured("text", benchmark, 1, [1.0]), figures=figures, intervals_95=intervals)
    folder.write(dataclasses.replace(one, kind="stage2"))
    block = assemble(table, benchmark, folder)
    console = Console(width=width, file=io.StringIO(), record=True)
    shown = as_text(block, width)
    for part in shown:
        console.print(part)
    lines = console.export_text().splitlines()
    assert lines[0].rstrip() == "Table 4: the perspectives of MP-S2S, and Fig. 6: shapes"
    assert all(len(line) <= width for line in lines)
    ours = [line for line in lines if line.startswith("text ") and not line.startswith("text +")]
    _, *cells = texts(block)[0]
    assert [cell for line in ours for cell in re.split(r" {2,}", line.strip())[1:]] == cells  # in their order
    assert "1235.5000 [1234.5000, 1236.5000]" in cells
    # one that is not measured stands where the paper's figure is, and where it is told how many seeds there are
    assert sum(line.startswith("all three, with DF-VQGAN") for line in lines) == 2 < len(ours) == len(shown)


def test_what_is_not_measured_is_left_open_and_an_interval_around_zero_undecided(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    assert [verdict.word for verdict in assemble(TABLE, benchmark, folder).verdicts()] == ["not measured"] * 2
    assert "2 more wait for rows" in as_markdown([assemble(TABLE, benchmark, folder)], "c")
    assert texts(assemble(TABLE, benchmark, folder))[0] == ["Ours", "3", "–", "–", "–", "–", "–", "0"]
    folder.write(measured("ours", benchmark, 4.0, [20.0, 22.0, 24.0]))
    folder.write(measured("other", benchmark, 4.0, [21.0, 21.0, 24.0]))
    ratio, gain = assemble(TABLE, benchmark, folder).verdicts()
    assert (ratio.word, gain.word) == ("no", "undecided")
    folder.write(dataclasses.replace(measured("other", benchmark, 40.0, [1.0, 1.0]), n=2))  # of an earlier --limit 2
    block = assemble(TABLE, benchmark, folder)
    ratio, gain = block.verdicts()
    assert (ratio.word, gain.word) == ("undecided", "undecided") and "measured on 3 and 2 photos" in ratio.text
    (item,) = Parsed(page([block], [[2]], "c")).items
    assert json.loads(item["data-figures"] or "") == {"ours": {"psnr": 24.0}, "other": {}}


def test_seeds_are_means_with_their_range(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    folder.write(measured(seeded("ours", 1), benchmark, 6.0, [22.0, 24.0, 26.0]))
    folder.write(measured("ours-but-not-seeded", benchmark, 99.0, [0.0, 0.0, 0.0]))
    block = assemble(TABLE, benchmark, folder)
    assert texts(block)[0] == ["Ours", "3", "5.00 [4.00, 6.00]", "23.0 [22.0, 24.0]", "2.9 + 15.0 M", "–", "3", "2"]
    assert block.lines[0].photos("psnr") == pytest.approx([21, 23, 25])


def test_a_table_names_every_command_that_made_its_rows(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    made = {
        "ours": (["train 1", "tokenize", "train 2"], "evaluate --only ours"),
        "other": (["train 1", "tokenize", "train 3"], "evaluate --only other"),
        "ours-seed1": ([], "evaluate --row ours-seed1"),
    }
    for name, (training, command) in made.items():
        one = measured(name, benchmark, 4.0, [20.0, 22.0, 24.0])
        folder.write(dataclasses.replace(one, training=training, command=command))
    block = assemble(TABLE, benchmark, folder)
    lines = as_markdown([block, block], "evaluate").splitlines()
    assert lines[lines.index("Made by:") + 2 :] == [
        "    # trained: Ours; <Other>",
        "    train 1",
        "    tokenize",
        "    # trained: Ours",
        "    train 2",
        "    # trained: <Other>",
        "    train 3",
        "    # measured: Ours",
        "    evaluate --only ours",
        "    # measured: Ours, seed 1",
        "    evaluate --row ours-seed1",
        "    # measured: <Other>",
        "    evaluate --only other",
        "    # this table",
        "    evaluate",
    ]


def test_rows_that_were_measured_otherwise_are_left_out(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    wanted = {"benchmark_sha256": benchmark.sha256, "n": 3}
    assert not RowFolder(tmp_path, "shapes", "images", wanted).stale()
    for name, value in (("benchmark_sha256", "0" * 64), ("n", 2), ("definitions", 7), ("likelihood", 5)):
        other = RowFolder(tmp_path, "shapes", "images", {**wanted, name: value})
        assert other.stale() == {"ours": name, "other": name}
        assert texts(assemble(TABLE, benchmark, other))[0][-1] == "0"
    first = RowFolder(tmp_path, "shapes", "images", wanted, first=2)  # a preview lies apart
    assert first.path("ours") != folder.path("ours") and not first.path("ours").exists()


def test_what_was_not_trained_alike_is_not_compared(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)

    def words(ours: dict[str, Any], other: dict[str, Any], table: Table = TABLE) -> list[tuple[str, str]]:
        folder.write(dataclasses.replace(measured("ours", benchmark, 4.0, [20.0, 22.0, 24.0]), **ours))
        folder.write(dataclasses.replace(measured("other", benchmark, 10.0, [19.0, 20.5, None]), **other))
        return [(verdict.word, verdict.text) for verdict in assemble(table, benchmark, folder).verdicts()]

    def took(photos: int, minutes: float) -> dict[str, Any]:
        return {"budget": [{"stage": "dfvqgan", "steps": 1, "photos": photos, "minutes": minutes}]}

    assert [word for word, _ in words(took(100, 9), took(100, 3))] == ["yes", "yes"]
    (word, text), _ = words(took(6000, 9), took(1000, 1.5))
    assert word == "undecided" and "trained unequally, 6,000 photos, 9 min and 1,000 photos, 2 min" in text
    by_time = dataclasses.replace(TABLE, claims=[dataclasses.replace(claim, budget="time") for claim in TABLE.claims])
    assert [word for word, _ in words(took(6000, 9), took(1000, 9), by_time)] == ["yes", "yes"]
    (word, text), _ = words(took(1000, 9), took(6000, 3), by_time)
    assert word == "undecided" and "trained longer, 9 min against 3" in text
    tokens = dataclasses.replace(
        TABLE, claims=[dataclasses.replace(claim, same_tokenizer=True) for claim in TABLE.claims]
    )
    (word, text), _ = words({"identity": {"tokenizer": "a"}}, {"identity": {"tokenizer": "b"}}, tokens)
    assert word == "undecided" and "their tokenizers differ" in text
    (word, text), _ = words({"row": "ours-seed1"}, {})  # beside the ours of seed 0
    assert word == "yes"
    folder.path("ours").unlink()
    ((word, text), _) = [(v.word, v.text) for v in assemble(TABLE, benchmark, folder).verdicts()]
    assert word == "undecided" and "no seed was trained of both" in text


def test_claims_about_one_row(benchmark: Benchmark, tmp_path: Path) -> None:
    claims = (Claim(ahead="ours", key="psnr", above=20), Claim(ahead="ours", key="fsd", equals=4))
    table = dataclasses.replace(TABLE, claims=claims)
    folder = RowFolder(tmp_path, "shapes", "images")
    for psnr, fsd, words in (
        ([21.0, 22.0, 24.0], 4.0, ["yes", "yes"]),
        ([11.0, 12.0, 14.0], 4.5, ["no", "no"]),
        ([10.0, 22.0, 24.0], 4.0, ["undecided", "yes"]),
    ):
        folder.write(measured("ours", benchmark, fsd, list(psnr)))
        assert [verdict.word for verdict in assemble(table, benchmark, folder).verdicts()] == words


def test_what_a_training_took(tmp_path: Path) -> None:
    recipe = {"stage": "mps2s", "schedule": {"batch_size": 8, "accumulate": 2}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    steps = [(10, 16.0), (20, 8.0), (15, 99.0), (20, 99.0), (30, 16.0)]  # stopped at 20, gone on from 10
    lines = [json.dumps({"step": step, "images_per_second": rate}) for step, rate in steps]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    took = {"stage": "mps2s", "steps": 30, "photos": 240, "minutes": round(20 / 60, 1)}
    assert budgets_of([tmp_path, tmp_path / "none"]) == [took]
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        budgets_of([tmp_path])


def test_fewer_pictures_are_some_of_the_more(benchmark: Benchmark, tmp_path: Path) -> None:
    few = Setting(source=benchmark, folder=RowFolder(tmp_path, "shapes", "images"), n=500, pictures=6)
    assert set(few.chosen()) < set(dataclasses.replace(few, pictures=24).chosen())


def test_a_claim_is_undecided_where_seeds_differ(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    folder.write(measured(seeded("ours", 1), benchmark, 4.5, [20.0, 22.0, 24.0]))
    folder.write(measured(seeded("other", 1), benchmark, 10.0, [19.0, 20.5, 23.0]))
    ratio, gain = assemble(TABLE, benchmark, folder).verdicts()
    assert (ratio.word, gain.word) == ("yes", "yes")
    assert ratio.by_seed == pytest.approx({0: 0.4, 1: 0.45}) and "seed by seed 0.400, 0.450" in ratio.text
    folder.write(measured(seeded("other", 1), benchmark, 8.0, [19.0, 20.5, 27.0]))  # ours is 0.5625 of it
    ratio, gain = assemble(TABLE, benchmark, folder).verdicts()
    assert (ratio.word, gain.word) == ("undecided", "undecided") and ratio.value == pytest.approx(4.25 / 9)


def test_a_distances_claim_is_undecided_where_shared_resamples_leave_it_open(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    sure = dataclasses.replace(measured("other", benchmark, 9.0, [1.0]), resampled={"fsd": [9.0, 12.0, 15.0]})
    for resampled, word in (([4.0, 5.3, 6.7], "yes"), ([3.0, 7.0, 6.0], "undecided"), ([12.0, 13.3, 14.7], "yes")):
        ours = dataclasses.replace(measured("ours", benchmark, 4.0, [2.0]), resampled={"fsd": resampled})
        folder.write(ours)
        folder.write(sure)
        ratio, _ = assemble(TABLE, benchmark, folder).verdicts()
        assert ratio.word == word and ratio.value == pytest.approx(4 / 9) and "paired over photos" in ratio.text


def test_the_level_of_resamples_does_not_narrow_the_interval_of_a_ratio(benchmark: Benchmark, tmp_path: Path) -> None:
    """Photos that are drawn twice lift a distance of sets; divided so, both rows would be nearer to each other."""
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    intervals = []
    for lifted in (0.0, 20.0):
        for row, fsd in (("ours", 4.0), ("other", 10.0)):
            spread = [lifted + fsd + move for move in ((-0.2, 0.0, 0.2) if row == "ours" else (0.5, -1.0, 0.5))]
            folder.write(dataclasses.replace(measured(row, benchmark, fsd, [1.0]), resampled={"fsd": spread}))
        intervals.append(assemble(TABLE, benchmark, folder).verdicts()[0].interval)
    low, high = (np.array([3.8 / 10.5, 4 / 9, 4.2 / 10.5]).std(ddof=1) * 1.96 * side + 0.4 for side in (-1, 1))
    assert intervals == [pytest.approx((low, high)), pytest.approx((low, high))]


def test_json_has_lists_of_numbers_on_one_line_each(tmp_path: Path) -> None:
    report = {"a": [1.5, None, -2e-5], "b": [[1, 2], []], "c": ["[\n1]", "[1,\n2]"], "d": [{"e": [1e300]}]}
    write_report(tmp_path / "r.json", report)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == report and ' "a": [1.5, null, -2e-05],\n' in text and "  [1, 2],\n" in text


class Parsed(HTMLParser):
    """What a page would fetch, and its gallery."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.items: list[dict[str, str | None]] = []
        self.buttons = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.sources += [named[name] or "" for name in ("src", "href") if name in named]
        self.items += [named] if named.get("class") == "item" else []
        self.buttons += tag == "button"


def test_the_page_holds_everything(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, benchmark)
    block = assemble(TABLE, benchmark, folder)
    text = page([block], [[1]], "nuwa-lip evaluate small")
    parsed = Parsed(text)
    assert len(parsed.sources) == 4 and all(s.startswith("data:image/jpeg;base64,") for s in parsed.sources)
    assert "default-src 'none'" in text and "<Other>" not in text and "&lt;Other&gt;" in text
    assert parsed.buttons == 8  # a heading each
    assert "# trained: Ours; &lt;Other&gt;\nnuwa-lip train\n" in text and "nuwa-lip evaluate small</pre>" in text
    (item,) = parsed.items
    figures = json.loads(item["data-figures"] or "")
    assert figures == {"ours": {"psnr": 22.0}, "other": {"psnr": 20.5}}
    assert re.search(r'<option value="psnr">PSNR, whole \(dB\)</option>', text)
    drawn = sheet(block, [1])
    assert drawn is not None and drawn.width > 4 * 170
    assert sheet(block, []) is None
    item = shown_of(1, block)
    changes = np.asarray(item.changes("ours")).astype(int)
    known = ~item.mask
    expected = GAIN * np.abs(np.asarray(item.photo).astype(int) - (255, 0, 0))
    assert (changes[known] == np.minimum(expected, 255)[known]).all() and len(np.unique(changes[item.mask])) == 1
    drawn_changes = sheet(block, [1], changes=True)
    assert drawn_changes is not None and drawn_changes.size == drawn.size
    assert not Parsed(page([block], [[]], "c")).items


@pytest.mark.parametrize(
    "table",
    [
        specs.table1(best_of=4),
        specs.table2((1024, 12288, 8192)),
        specs.table3("coarse-1024"),
        specs.table4(),
        specs.ratios(),
        specs.table1(metrics=("fed",)),
        specs.table2((1024, 12288, 8192), ("fed",)),
        specs.table3("coarse-1024", ("fed",)),
        specs.table4(metrics=("fed",)),
        specs.ratios(metrics=("fed",)),
    ],
    ids=lambda table: table.name,
)
def test_claims_are_of_rows_and_columns_that_there_are(table: Table) -> None:
    rows = {row.name for row in table.rows}
    assert len(rows) == len(table.rows) and table.claims
    for claim in table.claims:
        assert {claim.ahead, claim.behind} - {None} <= rows
        assert claim.key in {column.key for column in table.columns}


def test_papers_figures_stand_beside_the_benchmark_that_is_most_like_ours() -> None:
    assert [paper.benchmark_like(n) for n in ("coco-test", "x", "MaskVG")] == ["MaskCOCO", "MaskCOCO", "MaskVG"]
    of_coco, of_flickr = (
        {row.name: row.paper for row in specs.table1(name).rows} for name in ("coco-test", "MaskFlickr8k-mini")
    )
    assert of_coco["nuwa-lip"] and of_flickr["nuwa-lip"] and of_coco["nuwa-lip"] != of_flickr["nuwa-lip"]
    assert not of_flickr["telea"], "not in the paper"


def test_pasted_results_are_those_of_the_plain_tokenizer() -> None:
    table = specs.table2((1024, 12288, 8192))
    pasted = next(row for row in table.rows if row.name == "vqgan-p-coarse-1024")
    assert pasted.measured == "vqgan-coarse-1024" and pasted.key("oracle/ring") == "pasted/ring"
    assert pasted.key("distance") == "distance" and len(table.measured()) == len(table.rows) - 3
    ratios = [claim.paper for claim in table.claims if claim.key == "oracle/fsd" and claim.at_most]
    assert ratios == ["FID 0.34", "FID 0.41", "FID 0.39"], "of the paper's figures"


def test_a_table_knows_what_it_was_asked_for() -> None:
    assert {row.label for row in specs.table1(best_of=4).rows} >= {"NÜWA", "NÜWA, best of 4"}
    assert any(column.label == "caption rank (chance 0.25) ↑" for column in specs.table4(3).columns)
    with pytest.raises(InputError, match="'vqgan'.*text, "):
        specs.table4().check(["vqgan"], "--only")


def test_figures_that_are_asked_for_have_columns() -> None:
    asked = ("kid", "clip")
    for usual, more in (
        (specs.table1(), specs.table1(metrics=asked)),
        (specs.table4(), specs.table4(metrics=asked)),
        (specs.ratios(), specs.ratios(metrics=asked)),
    ):
        keys = [column.key for column in more.columns]
        assert set(keys) - {column.key for column in usual.columns} == {"clip_score", "kid"}
        assert keys.index("clip_score") == keys.index("lpips_squeeze") + 1 and keys[-1] == "kid"
    for usual, more in (
        (specs.table1(), specs.table1(metrics=("fed",))),
        (specs.table3("v"), specs.table3("v", ("fed",))),
    ):
        assert [c.key.removeprefix("oracle/") for c in more.columns if c not in usual.columns] == ["fed"]
        assert {claim.key.removeprefix("oracle/") for claim in more.claims} >= {"krd", "fed"}
    papers = [[c.paper for c in build(metrics=asked).columns if c.paper] for build in (specs.table1, specs.table4)]
    assert papers == [["FID ↓", "PSNR ↑", "LPIPS ↓", "CS ↑"], ["FID ↓"]]


def test_hashes_are_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    first = content_hash(tmp_path, ("*.json",))
    (tmp_path / "README.md").write_text("other")
    assert content_hash(tmp_path, ("*.json",)) == first
    (tmp_path / "a.json").write_text("2")
    assert content_hash(tmp_path, ("*.json",)) != first


def row_of(job: Job, benchmark: Benchmark, folder: RowFolder) -> Measured:
    return images_row("row", job, Setting(source=benchmark, folder=folder, n=2, pictures=0))


def test_another_method_under_the_same_name_is_measured(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    jobs = [Job(benchmark=benchmark.folder, baseline=name) for name in ("telea", "navier-stokes")]
    telea, other = (row_of(job, benchmark, folder) for job in jobs)
    assert telea.figures["psnr_hole"] != other.figures["psnr_hole"]
    assert (telea.setting["method"], other.setting["method"]) == ("opencv-telea", "opencv-navier-stokes")
    # weights in a subfolder, as those of diffusers
    monkeypatch.setattr(registry, "load", lambda name, options: lambda item: item.image)
    weights = tmp_path / "weights/unet/weights.safetensors"
    weights.parent.mkdir(parents=True)
    found = []
    for content in ("a", "b"):
        weights.write_text(content)
        options = BaselineOptions(model=str(tmp_path / "weights"))
        found.append(
            row_of(Job(benchmark=benchmark.folder, baseline="amused", baseline_options=options), benchmark, folder)
        )
    assert found[0].identity != found[1].identity


def test_blending_makes_another_row(benchmark: Benchmark, tiny_model: Path, tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    rows = [
        row_of(Job(benchmark=benchmark.folder, model=str(tiny_model), blend=b), benchmark, folder)
        for b in (True, False)
    ]
    assert rows[0].figures["psnr_hole"] != rows[1].figures["psnr_hole"]
    assert [row.setting["blend"] for row in rows] == [True, False]


def test_rows_know_how_large_their_model_is(benchmark: Benchmark, tiny_model: Path, tmp_path: Path) -> None:
    parts = load_model(tiny_model)
    assert parts.mps2s is not None
    size = {name: sum(p.numel() for p in getattr(parts, name).parameters()) for name in ("dfvqgan", "mps2s")}
    assert parameters_of(tiny_model) == size
    save_model(tmp_path / "split", dfvqgan=parts.dfvqgan, max_file_size=20_000)
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    assert parameters_of(tmp_path / "split") == {"dfvqgan": size["dfvqgan"]}
    folder = RowFolder(tmp_path, "shapes", "images")
    setting = Setting(source=benchmark, folder=folder, n=2, pictures=0)
    tokenizer = tokenizer_row("tokenizer", str(tiny_model), setting)
    assert tokenizer.setting["parameters"] == {"dfvqgan": size["dfvqgan"]}
    ours = row_of(Job(benchmark=benchmark.folder, model=str(tiny_model), blend=False), benchmark, folder)
    assert ours.setting["parameters"] == size
    assert "parameters" not in row_of(Job(benchmark=benchmark.folder, baseline="telea"), benchmark, folder).setting


@pytest.mark.usefixtures("workers_here")
def test_processes_measure_the_figures_of_one(
    benchmark: Benchmark, tiny_model: Path, tmp_path: Path, measured_here: list[str]
) -> None:
    job = Job(benchmark=benchmark.folder, model=str(tiny_model), blend=False)
    switches = {"relative_estimation": False}
    found = []
    for workers, share in ((1, ["00000", "00001", "00002"]), (2, ["00001", "00000", "00002"])):
        out = tmp_path / str(workers)
        folder = RowFolder(out, "shapes", "tokenizer")
        setting = Setting(source=benchmark, folder=folder, n=3, pictures=1, workers=workers, others=2)
        one = tokenizer_row("row", str(tiny_model), setting, switches)
        assert measured_here == share
        setting = dataclasses.replace(setting, folder=RowFolder(out, "shapes", "stage2"))
        found.append([one, images_row("row", job, setting, with_likelihood=True)])
        assert measured_here == 3 * share  # of the results and of the likelihoods as well
        measured_here.clear()
        assert not (out / "work").exists()
    for alone, together in zip(*found, strict=True):
        assert alone.identity == together.identity and alone.per_photo.keys() == together.per_photo.keys()
        assert dict(together.figures) == pytest.approx(dict(alone.figures), rel=1e-3, abs=1e-4)  # 8-bit pixels
        for key, values in alone.per_photo.items():
            assert together.per_photo[key] == pytest.approx(values, rel=1e-3, abs=1e-3, nan_ok=True), key
    assert found[0][1].figures["bits"]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    folder = RowFolder(tmp_path, "shapes", "images")
    folder.path("ours").parent.mkdir(parents=True)
    folder.path("ours").write_text("{}")
    with pytest.raises(InputError, match="ours.json"):
        folder.read("ours")


def test_photos_are_credited_on_the_page(tmp_path: Path) -> None:
    meta = {"license": "http://creativecommons.org/licenses/by/2.0/", "url": "http://photos.example/<1>.jpg"}
    samples = [dataclasses.replace(sample, meta=meta) for sample in shape_samples(2, size=32)]
    source = build_benchmark(iter(samples), source="s", rule="centre-20-40", seed=0, out=tmp_path / "shapes")
    folder = RowFolder(tmp_path, "shapes", "images")
    fill(folder, source)
    text = page([assemble(TABLE, source, folder)], [[1]], "c")
    assert "<small>http://photos.example/&lt;1&gt;.jpg, http://creativecommons.org/licenses/by/2.0/</small>" in text
