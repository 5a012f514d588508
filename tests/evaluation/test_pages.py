"""The pages that people open, in a real browser: their clicks are what is counted, all is seen, nothing is fetched."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from nuwa_lip.cli import main
from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shards import Sample
from tests.browsers import PHONE, Visits

SIZES = ((48, 80), (80, 48), (64, 64))
CAPTION = '</script> "a grey wall" & ' + "a very, very long tale of what there is to be seen " * 3
METHODS = {"methodone": (255, 0, 0), "methodtwo": (0, 0, 255)}
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "same": "ArrowDown"}
WINDOWS = {
    "phone": PHONE,
    "phone on its side": PHONE | {"viewport": {"width": 667, "height": 375}},
    "small laptop": {"viewport": {"width": 1024, "height": 600}},
    "desktop": {"viewport": {"width": 1920, "height": 1080}},
}
Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a file like somebody new, offline; in the end nothing was fetched and the console is empty."""
    visits = Visits(browser)
    yield lambda path, *first, **options: visits.open(path.as_uri(), *first, offline=True, **options)
    visits.close()
    assert visits.messages == []
    assert {url.partition(":")[0] for url in visits.fetched} <= {"file", "data", "blob"}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """Upright, flat and square photos of noise, with long captions."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(100, 156, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    samples = [Sample(key=str(i), image=Image.fromarray(p), captions=[CAPTION]) for i, p in enumerate(pixels)]
    out = tmp_path_factory.mktemp("pages") / "coco"
    return build_benchmark(samples, source="noise", rule="centre-20-40", seed=0, out=out)


@pytest.fixture
def human_page(benchmark: Benchmark, tmp_path: Path, nuwa_lip: Callable[..., Any]) -> Path:
    """A page of pairs: one method paints red, the other one blue."""
    for name, colour in METHODS.items():
        (tmp_path / name).mkdir()
        for item in benchmark:
            pixels = np.where(item.mask[..., None], np.array(colour, dtype=np.uint8), item.image)
            Image.fromarray(pixels).save(tmp_path / name / f"{item.name}.png")
    folders = [f"{name}={tmp_path / name}" for name in METHODS]
    done = nuwa_lip("evaluate", "human", "make", benchmark.folder, "--results", *folders, "-o", tmp_path / "page.html")
    assert done.code == 0, done.err
    return tmp_path / "page.html"


def side_of(choice: str, page: Page) -> str:
    """Where somebody sees a method, by the colour amid its result; "same" as it is."""
    if choice == "same":
        return choice
    red = page.evaluate(
        """async () => {
          const picture = document.getElementById("left"), canvas = document.createElement("canvas");
          await picture.decode();
          const pen = canvas.getContext("2d");
          pen.drawImage(picture, 0, 0, 9, 9);
          const [red, , blue] = pen.getImageData(4, 4, 1, 1).data;
          return red > blue;
        }"""
    )
    return "left" if red == (choice == "methodone") else "right"


def save(page: Page, press: Callable[[], None], folder: Path) -> Path:
    """Download the answers."""
    with page.expect_download() as download:
        press()
    name = download.value.suggested_filename
    assert page.get_by_text(f"Saved as {name}").is_visible()
    download.value.save_as(folder / name)
    return folder / name


def test_what_is_clicked_and_pressed_is_what_is_rated(
    human_page: Path, visit: Visit, tmp_path: Path, nuwa_lip: Callable[..., Any]
) -> None:
    # quality and caption of one pair after the other
    clicked = ["methodone", "same", "methodone", "methodtwo", "methodtwo", "methodtwo"]
    pressed = ["methodone", "methodtwo", "same", "methodtwo", "methodone", "methodone"]

    page = visit(human_page)
    page.fill("#rater", "Zoë")
    page.dblclick("#choose-same")  # counts once
    assert page.locator("#progress").inner_text() == "1 of 6 answers, kept in this browser"
    page.click("#back")
    for i, choice in enumerate(clicked):
        if i == 3:
            page.reload()  # goes on where it was
            assert page.locator("#where").inner_text() == "Pair 2 of 3, question 2 of 2"
            assert page.input_value("#rater") == "Zoë"
        page.click("#choose-" + side_of(choice, page))
    answers = [save(page, lambda: page.click("#save"), tmp_path)]
    assert answers[0].name.endswith("-Zoë.json")
    page.click("#anew")
    page.reload()
    assert page.locator("#progress").inner_text().startswith("0 of 6") and page.input_value("#rater") == ""

    page = visit(human_page)
    page.focus("#rater")
    for key in "123":
        page.keyboard.press(key)  # a name, no answers
    page.keyboard.press("Enter")
    page.keyboard.press("Backspace")  # nothing to undo
    for choice in pressed:
        page.keyboard.press("3")
        page.keyboard.press("Backspace")
        key = KEYS[side_of(choice, page)]
        page.keyboard.down(key)
        page.keyboard.down(key)  # held down: one answer
        page.keyboard.up(key)
    answers.append(save(page, lambda: page.keyboard.press("Enter"), tmp_path))
    assert json.loads(answers[1].read_text())["rater"] == "123"

    key_file = human_page.with_suffix(".key.json")
    done = nuwa_lip("evaluate", "human", "rate", key_file, *answers, "--json", tmp_path / "rates.json")
    assert done.code == 0, done.err
    for rate in json.loads((tmp_path / "rates.json").read_text())["rates"]:
        first = ["quality", "caption"].index(rate["question"])
        given = clicked[first::2] + pressed[first::2]
        score = [{"methodone": 1.0, "same": 0.5, "methodtwo": 0.0}[choice] for choice in given]
        assert rate["method"] == "methodone" and rate["answers"] == 6 and rate["photos"] == 3
        assert rate["rate"] == pytest.approx(np.mean(score)) and rate["same"] == pytest.approx(given.count("same") / 6)


def test_a_browser_that_keeps_nothing_says_so(human_page: Path, visit: Visit, tmp_path: Path) -> None:
    forbidden = 'Object.defineProperty(window, "localStorage", { get() { throw new Error("forbidden"); } });'
    page = visit(human_page, forbidden)
    page.click("#choose-left")
    assert "1 of 6 answers, lost with this page unless you save them" in page.locator("#progress").inner_text()
    saved = json.loads(save(page, lambda: page.click("#save"), tmp_path).read_text())
    assert saved["answers"] == [{"pair": 0, "quality": "left"}]


@pytest.mark.parametrize("window", WINDOWS)
def test_pairs_stand_side_by_side_and_nothing_is_cut_off(window: str, human_page: Path, visit: Visit) -> None:
    page = visit(human_page, **WINDOWS[window])
    width, height = WINDOWS[window]["viewport"].values()
    for _ in SIZES:
        assert page.locator("#caption").inner_text() == CAPTION.strip()
        page.evaluate("() => Promise.all([...document.images].map(picture => picture.decode()))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        names = ("left", "right", "hole", "choose-left", "choose-right", "choose-same", "back", "save", "rater")
        boxes = {name: page.locator("#" + name).bounding_box() or {} for name in names}
        for box in boxes.values():
            assert box["width"] > 40 and box["x"] >= 0 and box["x"] + box["width"] <= width
        left, right, same = boxes["left"], boxes["right"], boxes["choose-same"]
        assert left["y"] == pytest.approx(right["y"], abs=1) and left["x"] + left["width"] <= right["x"]
        assert same["y"] + same["height"] - left["y"] <= height  # seen together
        if height >= 600 and width >= 1000:
            assert same["y"] + same["height"] <= height  # without scrolling
        page.click("#choose-same")
        page.click("#choose-same")
    assert page.get_by_text("That was all.").is_visible() and not page.locator("#pair").is_visible()


@pytest.fixture(scope="module")
def table_page(benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 1 with two of its rows, on two benchmarks."""
    folder = tmp_path_factory.mktemp("table")
    shutil.copytree(benchmark.folder, folder / "flickr")
    rows = [word for name in ("telea", "navier-stokes") for word in ("--row", f"{name}={name}", "--only", name)]
    main(["evaluate", "table1", str(benchmark.folder), str(folder / "flickr"), *rows, "-o", str(folder / "results")])
    return folder / "results/table1.html"


def test_a_table_sorts_best_first(table_page: Path, visit: Visit) -> None:
    page = visit(table_page)
    assert page.locator("h2").all_inner_texts()[:2] == [
        "coco (the paper's figures: MaskCOCO)",
        "flickr (the paper's figures: MaskFlickr)",
    ]
    table = page.locator("table").first
    rows = json.loads(table_page.with_suffix(".json").read_text())["benchmarks"][0]["rows"]
    labels = [row["label"] for row in rows]

    def shown() -> list[str]:
        return table.locator("tbody td:first-child").all_inner_texts()

    assert shown() == labels
    for heading, key, higher in (("PSNR (dB) ↑", "psnr", True), ("ring error ↓", "ring", False)):
        button = table.get_by_role("button", name=heading)
        known = {row["label"]: row["figures"][key] for row in rows if row["figures"][key] is not None}
        assert len(set(known.values())) == 2
        best = sorted(known, key=lambda label: known[label], reverse=higher)
        for order, direction in ((best, not higher), (best[::-1], higher)):
            button.click()
            assert shown()[:2] == order and set(shown()) == set(labels)  # what is not measured comes last
            (sorted_by,) = table.locator("th[aria-sort]").all()
            assert sorted_by.get_attribute("aria-sort") == ("ascending" if direction else "descending")
    table.get_by_role("button", name="row", exact=True).press("Enter")
    assert shown()[0] == "GLIDE" and shown()[-1] == "OpenCV, Telea"


@pytest.mark.parametrize("window", ["phone", "desktop"])
def test_a_tables_pictures_are_all_there_and_sort(window: str, table_page: Path, visit: Visit) -> None:
    page = visit(table_page, **WINDOWS[window])
    width = WINDOWS[window]["viewport"]["width"]
    page.evaluate("() => Promise.all([...document.images].map(picture => picture.decode()))")
    boxes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.width, i.getBoundingClientRect().right])")
    assert len(boxes) == 2 * len(SIZES) * 4
    assert all(natural > 0 and wide >= 150 and right <= width for natural, wide, right in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    gallery = page.locator("section.gallery").first
    assert gallery.locator("select.row").is_disabled()  # of no meaning until a figure is chosen
    gallery.locator("select.metric").select_option("psnr_hole")
    gallery.locator("select.row").select_option(label="OpenCV, Telea")
    for direction, descending in (("down", True), ("up", False)):
        gallery.locator("select.direction").select_option(direction)
        below = gallery.locator("figcaption", has_text="Telea").all_inner_texts()
        figures = [float(re.findall(r"PSNR, hole \(dB\) ([\d.]+)", text)[0]) for text in below]
        assert len(set(figures)) == 3 and figures == sorted(figures, reverse=descending)
    gallery.locator("select.metric").select_option("")
    assert [text[:5] for text in gallery.locator(".item > p").all_inner_texts()] == ["00000", "00001", "00002"]
