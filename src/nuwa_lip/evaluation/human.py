"""Human preference: pages of blind, shuffled pairs, and the rates that come out of their answers.

A page shows photos with their hole and caption, and two results without names, on sides drawn by chance. Which is
which stands in a key file that the rater does not get. Both results always stand side by side, with the question above
them, within the window of a phone or of a desktop, and all of it works by keyboard, mouse or finger. Answers are kept
in the browser's storage where it allows that, so that a closed page goes on where it was. The page saves a JSON:

    {"page": HASH, "rater": "...", "answers": [{"pair": 3, "quality": "left", "caption": "same"}, ...]}

A pair counts 1 for who is preferred and 1/2 for each where they are the same. A photo's score is the mean over its
raters, so that many raters of one photo do not count as many photos; intervals are Wilson's, over the photos.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nuwa_lip.baselines.methods import results
from nuwa_lip.data.benchmark import Benchmark
from nuwa_lip.disk import escaped, read_object
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.html import data_uri, document, escape, part
from nuwa_lip.images.sheets import show_hole

QUESTIONS = {
    "quality": "Which one looks more like a real photo?",
    "caption": "Which one fits the caption better?",
}
"""The questions of the paper's supplement: visual quality and semantic consistency."""
CHOICES = ("left", "right", "same")
Z = 1.959964
"""Standard deviations of a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One comparison, as the key has it."""

    photo: str
    """Number of the photo with five digits."""
    left: str
    """Method on the left."""
    right: str


@dataclass(frozen=True, kw_only=True)
class Key:
    """Which result is whose, which the rater must not see."""

    page: str
    """Hash of the page's pairs and pictures; answers name it."""
    benchmark: str
    benchmark_sha256: str
    seed: int
    compared: str
    """The method that is in every pair, whose rates are counted."""
    pairs: Sequence[Pair]

    @classmethod
    def read(cls, path: Path) -> Key:
        """Read a key.

        Raises:
            InputError: the file is missing, or no key.
        """
        content = read_object(path)
        try:
            pairs = [Pair(**pair) for pair in content.pop("pairs")]
            return cls(**content, pairs=pairs)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not the key of a page of pairs: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The share of answers that prefer one method to another."""

    question: str
    method: str
    other: str
    rate: float
    """Mean score of `method`: 1 preferred, 1/2 the same, 0 not."""
    interval_95: tuple[float, float]
    same: float
    """Share of the answers that see no difference."""
    photos: int
    answers: int


def draw_pairs(methods: Sequence[str], photos: Sequence[str], count: int, seed: int) -> list[Pair]:
    """Draw photos, each with the first method against every other one; order and sides are random.

    Args:
        methods: names, the one that is compared with all others first.
        photos: their numbers.
        count: how many photos are drawn.
        seed: of the choice, the order and the sides.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(photos), min(count, len(photos)), replace=False)
    pairs = []
    for index in chosen:
        for other in methods[1:]:
            sides = [methods[0], other] if rng.random() < 0.5 else [other, methods[0]]
            pairs.append(Pair(photo=photos[int(index)], left=sides[0], right=sides[1]))
    return [pairs[i] for i in rng.permutation(len(pairs))]


def make_page(
    benchmark: Benchmark, folders: Mapping[str, Path], *, count: int, seed: int, title: str
) -> tuple[str, Key]:
    """Make a page and its key.

    Args:
        benchmark: photos, holes, captions.
        folders: finished pictures NNNNN.png of each method, the one that is compared with all others first.
        count: photos.
        seed: of the choice, the order and the sides.
        title: shown to the rater; it should name no method.

    Raises:
        InputError: fewer than two methods, or a picture is missing or of another size.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} method is no pair: give two or more as NAME=DIR")
    repaint = {name: results(folder) for name, folder in folders.items()}
    numbers = {files.name: index for index, files in enumerate(benchmark.files)}
    pairs = draw_pairs(list(folders), list(numbers), count, seed)
    shown, digest = [], hashlib.sha256()
    for pair in pairs:
        item = benchmark[numbers[pair.photo]]
        # not the original, which would tell which one is nearer to it
        pictures = {
            "hole": show_hole(Image.fromarray(item.image), item.mask),
            "left": Image.fromarray(repaint[pair.left](item)),
            "right": Image.fromarray(repaint[pair.right](item)),
        }
        entry = {name: data_uri(picture, 384) for name, picture in pictures.items()}
        entry["caption"] = escaped(item.caption)
        shown.append(entry)
        digest.update(json.dumps(entry).encode())
    key = Key(
        page=digest.hexdigest()[:16],
        benchmark=benchmark.folder.absolute().name,
        benchmark_sha256=benchmark.sha256,
        seed=seed,
        compared=next(iter(folders)),
        pairs=pairs,
    )
    # "<" must not end the script that holds the data
    data = json.dumps({"page": key.page, "questions": QUESTIONS, "pairs": shown}).replace("<", "\\u003c")
    held = f'<script type="application/json" id="data">{data}</script>'
    body = f"\n<h1>{escape(title)}</h1>\n{part('human.html')}{held}"
    return document(title, "human", body), key


def read_answers(path: Path, key: Key) -> tuple[str, list[dict[str, Any]]]:
    """Read a rater's name (or "") and answers, as the page saves them.

    Raises:
        InputError: they are damaged, or of another page.
    """
    content = read_object(path)
    page = content.get("page")
    if page != key.page:
        raise InputError(f"{path} holds answers to page {page!r}; the key is of page {key.page}")
    answers = content.get("answers")
    if not isinstance(answers, list):
        raise InputError(f"{path} holds no list of answers")
    seen: set[int] = set()
    for answer in answers:
        pair = answer.get("pair") if isinstance(answer, dict) else None
        if not isinstance(pair, int) or isinstance(pair, bool) or not 0 <= pair < len(key.pairs) or pair in seen:
            raise InputError(f"{path}: answer {answer!r} is not to one of the {len(key.pairs)} pairs, once each")
        seen.add(pair)
        for question in QUESTIONS:
            if answer.get(question) not in (*CHOICES, None):
                raise InputError(f"{path}: {question} is {answer[question]!r}; there are: {', '.join(CHOICES)}")
    return str(content.get("rater") or ""), answers


def preference_rates(key: Key, raters: Sequence[Sequence[Mapping[str, Any]]]) -> list[Rate]:
    """Compute the rates of every pair of methods and every question.

    Args:
        key: of the page.
        raters: the answers of each, as `read_answers` gives them.
    """
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    first = key.compared
    for answer in itertools.chain.from_iterable(raters):
        pair = key.pairs[answer["pair"]]
        other, mine = (pair.right, "left") if pair.left == first else (pair.left, "right")
        for question in QUESTIONS:
            choice = answer.get(question)
            if choice is not None:
                score = 0.5 if choice == "same" else float(choice == mine)
                scores.setdefault((question, other), {}).setdefault(pair.photo, []).append(score)
    rates = []
    for (question, other), by_photo in sorted(scores.items()):
        given = [score for photo in by_photo.values() for score in photo]
        rate = float(np.mean([np.mean(photo) for photo in by_photo.values()]))
        counts: dict[str, Any] = {"same": given.count(0.5) / len(given), "photos": len(by_photo), "answers": len(given)}
        interval = wilson_interval(rate, len(by_photo))
        rates.append(Rate(question=question, method=first, other=other, rate=rate, interval_95=interval, **counts))
    return rates


def wilson_interval(rate: float, n: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share of n; scores may be halves, which scipy's counts may not be."""
    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
