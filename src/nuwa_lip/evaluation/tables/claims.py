"""Whether a table bears out what it must: one row against another, over the photos and over the trainings.

A claim holds, or fails, where its whole interval over the photos and every seed that both rows were trained with
say so; else it is undecided. Intervals are paired: both rows see the same photos, and the same resamples of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nuwa_lip.evaluation.distances import bootstrap_interval, ratio_interval, spread_interval
from nuwa_lip.evaluation.tables.layout import Claim
from nuwa_lip.evaluation.tables.lines import Line


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a claim."""

    text: str
    value: float | None
    """The ratio, or by how much the row is ahead; None on other photos."""
    interval: tuple[float, float] | None
    """95 %, over the photos."""
    by_seed: Mapping[int, float]
    """The value of each seed, where there are several."""
    holds: bool | None
    """None: the interval has both answers in it, or the seeds differ, or the rows were measured on other photos."""

    @property
    def word(self) -> str:
        """As shown."""
        return "undecided" if self.holds is None else "yes" if self.holds else "no"


def judge(claim: Claim, ahead: Line, behind: Line, labels: Mapping[str, str]) -> Verdict | None:
    """Compare two rows; None if one of them was not measured.

    Args:
        claim: what is to be shown.
        ahead, behind: its rows.
        labels: of the columns, by key.
    """
    a, b = ahead.cell(claim.key), behind.cell(claim.key)
    if a is None or b is None:
        return None
    title = f"{labels.get(claim.key, claim.key)}: {ahead.row.label}"
    said = f" (paper: {claim.paper})" if claim.paper else ""
    if ahead.n != behind.n:  # distances of sets depend on n
        text = f"{title} against {behind.row.label}, measured on {ahead.n} and {behind.n} photos{said}"
        return Verdict(text=text, value=None, interval=None, by_seed={}, holds=None)
    value, interval = _paired(claim, ahead, behind) or (_compare(claim, a.value, b.value), None)
    x, y = ahead.by_seed(claim.key), behind.by_seed(claim.key)
    by_seed = {seed: _compare(claim, x[seed], y[seed]) for seed in sorted(x.keys() & y.keys())}
    answers = {_good(claim, each) for each in (value, *(interval or ()), *by_seed.values())}
    shape = "{:+.4f}" if claim.at_most is None else "{:.3f}"
    middle = "ahead of" if claim.at_most is None else "x"
    text = f"{title} is {shape.format(value)} {middle} {behind.row.label}"
    if interval is not None:
        text += f" [{', '.join(map(shape.format, interval))}], paired over photos"
    if len(by_seed) > 1:
        text += f"; seed by seed {', '.join(map(shape.format, by_seed.values()))}"
    if claim.at_most is not None:
        text += f"; at most {claim.at_most} wanted"
    holds = answers.pop() if len(answers) == 1 else None
    return Verdict(text=text + said, value=value, interval=interval, by_seed=by_seed, holds=holds)


Value = TypeVar("Value", float, np.ndarray)


def _compare(claim: Claim, a: Value, b: Value) -> Value:
    """The ratio where one is claimed, else by how much a is ahead."""
    if claim.at_most is not None:
        return a / b if np.all(b) else a * np.inf
    return a - b if claim.higher else b - a


def _good(claim: Claim, value: float) -> bool:
    return value > 0 if claim.at_most is None else value <= claim.at_most


def _paired(claim: Claim, ahead: Line, behind: Line) -> tuple[float, tuple[float, float]] | None:
    """The comparison and its 95 % interval over the photos; None where these were not kept of both rows."""
    a, b = ahead.resampled(claim.key), behind.resampled(claim.key)
    one, other = ahead.cell(claim.key), behind.cell(claim.key)
    if a is not None and b is not None and len(a) == len(b) and one and other:  # a distance of sets
        value = _compare(claim, one.value, other.value)
        return value, spread_interval(value, _compare(claim, a, b))
    x, y = ahead.photos(claim.key), behind.photos(claim.key)
    if x is None or y is None or len(x) != len(y):
        return None
    x, y = x[~np.isnan(x + y)], y[~np.isnan(x + y)]  # photos that have the figure in both
    if not len(x):
        return None
    if claim.at_most is not None:
        return _compare(claim, float(x.mean()), float(y.mean())), ratio_interval(x, y)
    gains = _compare(claim, x, y)
    return float(gains.mean()), bootstrap_interval(gains)
