"""Pages of blind pairs: nothing gives the methods away, and the answers lead back to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.data.benchmark import Benchmark, build_benchmark
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.human import Key, Pair, draw_pairs, preference_rates, read_answers, wilson_interval


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    out = tmp_path_factory.mktemp("human") / "shapes"
    return build_benchmark(shape_samples(5, size=32), source="shapes", rule="centre-20-40", seed=0, out=out)


@pytest.fixture
def folders(benchmark: Benchmark, tmp_path: Path) -> list[str]:
    """Results of two methods, told apart by their colour."""
    for name, colour in (("methodone", (255, 0, 0)), ("methodtwo", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for item in benchmark:
            photo = np.where(item.mask[..., None], np.array(colour, dtype=np.uint8), item.image)
            Image.fromarray(photo).save(tmp_path / name / f"{item.name}.png")
    return [f"{name}={tmp_path / name}" for name in ("methodone", "methodtwo")]


class Page(HTMLParser):
    """Ids, everything that could be fetched, and the data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.sources: list[str] = []
        self.data = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids.add(named.get("id") or "")
        self.sources += [named[name] or "" for name in ("src", "href") if name in named]
        self._in_data = tag == "script" and named.get("id") == "data"

    def handle_data(self, data: str) -> None:
        self.data += data if self._in_data else ""

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


def answer(page: dict[str, Any], choose: Callable[[dict[str, str]], str]) -> str:
    """What the page saves: one entry a pair, a choice for each question."""
    answers = [
        {"pair": i, **{question: choose(pair) for question in page["questions"]}}
        for i, pair in enumerate(page["pairs"])
    ]
    return json.dumps({"page": page["page"], "rater": "a", "answers": answers})


def test_a_page_from_its_making_to_its_rates(
    benchmark: Benchmark, folders: list[str], tmp_path: Path, nuwa_lip: Callable[..., Any]
) -> None:
    page_file, key_file = tmp_path / "page.html", tmp_path / "page.key.json"
    words = ("evaluate", "human", "make", benchmark.folder, "--results", *folders, "-o", page_file, "--n", 4)
    done = nuwa_lip(*words)
    assert done.code == 0, done.err
    text = page_file.read_text()
    assert "methodone" not in text and "methodtwo" not in text  # blind
    page = Page(text)
    assert page.sources == [] and "default-src 'none'" in text  # nothing is fetched
    wanted = set(re.findall(r'at\("([a-z-]+)"\)', text)) | {"choose-left", "choose-same", "choose-right"}
    assert wanted <= page.ids
    data = json.loads(page.data)
    assert len(data["pairs"]) == 4 and set(data["questions"]) == {"quality", "caption"}
    assert all(pair["left"].startswith("data:image/jpeg;base64,") for pair in data["pairs"])
    key = Key.read(key_file)
    assert key.compared == "methodone" and {(p.left, p.right) for p in key.pairs} <= {
        ("methodone", "methodtwo"),
        ("methodtwo", "methodone"),
    }
    # one rater always prefers the first method, another one sees no difference
    sides = {pair["left"]: p.left for pair, p in zip(data["pairs"], key.pairs, strict=True)}
    first = answer(data, lambda pair: "left" if sides[pair["left"]] == "methodone" else "right")
    (tmp_path / "a.json").write_text(first)
    (tmp_path / "b.json").write_text(answer(data, lambda pair: "same").replace('"rater": "a"', '"rater": ""'))
    out = tmp_path / "rates.json"
    done = nuwa_lip("evaluate", "human", "rate", key_file, tmp_path / "a.json", tmp_path / "b.json", "--json", out)
    assert done.code == 0, done.err
    for rate in json.loads(out.read_text())["rates"]:
        assert (rate["method"], rate["other"], rate["rate"]) == ("methodone", "methodtwo", 0.75)
        assert (rate["photos"], rate["answers"], rate["same"]) == (4, 8, 0.5)
    (tmp_path / "c.json").write_text(first)  # as from saving early and again
    done = nuwa_lip("evaluate", "human", "rate", key_file, tmp_path / "a.json", tmp_path / "c.json")
    assert done.code == 2 and "c.json is a second file of the rater 'a'" in done.err
    again = tmp_path / "again.html"
    nuwa_lip(*words[:-3], again, "--n", 4)
    assert again.read_bytes() == page_file.read_bytes()


def test_sides_and_order_are_drawn_by_chance() -> None:
    pairs = draw_pairs(["a", "b", "c"], [f"{i:05d}" for i in range(200)], 100, seed=1)
    assert len(pairs) == 200 and len({pair.photo for pair in pairs}) == 100
    assert 70 < sum(pair.left == "a" for pair in pairs) < 130
    assert all("a" in (pair.left, pair.right) for pair in pairs)
    assert pairs == draw_pairs(["a", "b", "c"], [f"{i:05d}" for i in range(200)], 100, seed=1)


def test_a_photo_counts_once_whoever_rates_it() -> None:
    pairs = [Pair(photo="00000", left="a", right="b"), Pair(photo="00001", left="b", right="a")]
    key = Key(page="p", benchmark="x", benchmark_sha256="y", seed=0, compared="a", pairs=pairs)
    raters = [
        [{"pair": 0, "quality": "left"}, {"pair": 1, "quality": "left"}],
        [{"pair": 0, "quality": "left"}],
        [{"pair": 0, "quality": "same"}],
    ]
    (rate,) = preference_rates(key, raters)
    assert rate.rate == pytest.approx((5 / 6 + 0) / 2) and rate.photos == 2 and rate.answers == 4


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (10, 10), (40, 100)])
def test_intervals_are_wilsons(k: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_bad_input_is_named(
    benchmark: Benchmark, folders: list[str], tmp_path: Path, nuwa_lip: Callable[..., Any]
) -> None:
    assert "make,rate" in nuwa_lip("evaluate", "human").out
    make = ("evaluate", "human", "make", benchmark.folder, "-o", tmp_path / "page.html")
    assert "there is no command 'evaluate human mke'" in nuwa_lip("evaluate", "human", "mke").err
    assert "is no pair" in nuwa_lip(*make, "--results", folders[0]).err
    assert "not like NAME=DIR" in nuwa_lip(*make, "--results", "a", "b").err
    assert "is not a folder of results" in nuwa_lip(*make, "--results", folders[0], "b=nowhere").err
    assert not (tmp_path / "page.html").exists()
    key = Key(page="p", benchmark="x", benchmark_sha256="y", seed=0, compared="a", pairs=[])
    file = tmp_path / "answers.json"
    for content, says in (
        ("[]", "holds list, not an object"),
        ("{", "is not valid JSON"),
        ('{"page": "q"}', "answers to page 'q'; the key is of page p"),
        ('{"page": "p", "answers": [{"pair": 0}]}', "is not to one of the 0 pairs"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=says):
            read_answers(file, key)
