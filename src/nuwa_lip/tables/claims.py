"""Claims about a table: one row against another, over the photos and over the trainings.

A claim holds, or fails, where its whole interval over the photos and every seed that both rows were trained with
say so; else it is undecided. Intervals are paired: both rows see the same photos, and the same resamples of them.
Rows that were not trained alike, or not measured alike, are not compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nuwa_lip.evaluation.distances import Change, bootstrap_interval, mean_change, set_change
from nuwa_lip.tables import budget
from nuwa_lip.tables.layout import Claim
from nuwa_lip.tables.lines import Line


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to a claim."""

    text: str
    value: float | None = None
    """The ratio, or by how much the row is ahead, or its figure; None where there is nothing to compare."""
    interval: tuple[float, float] | None = None
    """95 %, over the photos."""
    by_seed: Mapping[int, float] | None = None
    """The value of each seed."""
    holds: bool | None = None
    """None: the interval has both answers in it, or the seeds differ, or there is nothing to compare."""
    measured: bool = True
    """Whether its rows were measured."""

    @property
    def word(self) -> str:
        """The answer in a word."""
        if not self.measured:
            return "not measured"
        return "undecided" if self.holds is None else "yes" if self.holds else "no"


def judge(claim: Claim, lines: Mapping[str, Line], labels: Mapping[str, str]) -> Verdict:
    """Judge a claim.

    Args:
        claim: what is to be shown.
        lines: the table's, by name.
        labels: of the columns, by key.
    """
    ahead = lines[claim.ahead]
    title = f"{labels.get(claim.key, claim.key)}: {ahead.row.label}"
    said = f" (paper: {claim.paper})" if claim.paper else ""
    if claim.behind is None:
        return _judge_one(claim, ahead, title, said)
    behind = lines[claim.behind]
    text = f"{title} against {behind.row.label}"
    if ahead.cell(claim.key) is None or behind.cell(claim.key) is None:
        return Verdict(text=text + said, measured=False)
    reason = _incomparable(claim, ahead, behind)
    if reason:
        return Verdict(text=f"{text}: {reason}{said}")
    common = ahead.seeds & behind.seeds
    ahead, behind = ahead.only(common), behind.only(common)
    x, y = ahead.by_seed(claim.key), behind.by_seed(claim.key)
    by_seed = {seed: _compare(claim, x[seed], y[seed]) for seed in sorted(x.keys() & y.keys())}
    paired = _paired(claim, ahead, behind)
    if paired is None:  # neither each photo's figure nor resamples were kept
        return Verdict(text=f"{text}: no interval can be told{said}", by_seed=by_seed)
    value, interval = paired
    shape = "{:+.4f}" if claim.at_most is None else "{:.3f}"
    middle = "ahead of" if claim.at_most is None else "x"
    text = f"{title} is {shape.format(value)} {middle} {behind.row.label}"
    text += f" [{', '.join(map(shape.format, interval))}], paired over photos"
    if len(by_seed) > 1:
        text += f"; seed by seed {', '.join(map(shape.format, by_seed.values()))}"
    if claim.at_most is not None:
        text += f"; at most {claim.at_most} wanted"
    limit = 0.0 if claim.at_most is None else claim.at_most
    answers = {v > limit if claim.at_most is None else v <= limit for v in (value, *interval, *by_seed.values())}
    return Verdict(text=text + said, value=value, interval=interval, by_seed=by_seed, holds=_agreed(answers))


def _judge_one(claim: Claim, line: Line, title: str, said: str) -> Verdict:
    """Judge a claim about one row's own figure."""
    cell, by_seed = line.cell(claim.key), line.by_seed(claim.key)
    wanted = f"above {claim.above:g}" if claim.above is not None else f"exactly {claim.equals:g}"
    if cell is None:
        return Verdict(text=f"{title}: {wanted} wanted{said}", measured=False)
    if claim.above is None:
        text = f"{title} has {cell.value:g}; {wanted} wanted{said}"
        holds = all(value == claim.equals for value in by_seed.values())
        return Verdict(text=text, value=cell.value, by_seed=by_seed, holds=holds)
    photos = line.photos(claim.key)
    if photos is None:
        return Verdict(text=f"{title}: no interval can be told{said}", value=cell.value, by_seed=by_seed)
    low, high = bootstrap_interval(photos[~np.isnan(photos)])
    text = f"{title} has {cell.value:.4f} [{low:.4f}, {high:.4f}]; {wanted} wanted{said}"
    answers = {value > claim.above for value in (cell.value, low, high, *by_seed.values())}
    return Verdict(text=text, value=cell.value, interval=(low, high), by_seed=by_seed, holds=_agreed(answers))


def _agreed(answers: set[bool]) -> bool | None:
    return next(iter(answers)) if len(answers) == 1 else None


def _incomparable(claim: Claim, ahead: Line, behind: Line) -> str:
    """Say why two measured rows cannot be compared; empty if they can."""
    if len({one.n for line in (ahead, behind) for one in line.trainings}) > 1:  # distances of sets depend on n
        return f"measured on {ahead.n} and {behind.n} photos"
    common = ahead.seeds & behind.seeds
    if not common:
        return "no seed was trained of both"
    for a in ahead.only(common).trainings:
        (b,) = behind.only({a.seed}).trainings
        if claim.same_tokenizer and a.identity.get("tokenizer") != b.identity.get("tokenizer"):
            return "their tokenizers differ"
        if not (a.budget and b.budget):
            continue
        if claim.budget == "steps" and budget.photos(a.budget) != budget.photos(b.budget):
            return f"trained unequally, {budget.shown(a.budget)} and {budget.shown(b.budget)}"
        if claim.budget == "time" and budget.minutes(a.budget) > budget.minutes(b.budget) * budget.TOLERANCE:
            return f"trained longer, {budget.minutes(a.budget):.0f} min against {budget.minutes(b.budget):.0f}"
    return ""


def _compare(claim: Claim, a: float, b: float) -> float:
    """Compute the ratio where one is claimed, else by how much a is ahead."""
    if claim.at_most is not None:
        return a / b if b else a * math.inf
    return a - b if claim.higher else b - a


def _paired(claim: Claim, ahead: Line, behind: Line) -> Change | None:
    """Compare, with a 95 % interval over the photos; None where the photos' figures were not kept of both rows."""
    ratio = claim.at_most is not None
    lines = (behind, ahead) if ratio or claim.higher else (ahead, behind)
    one, other = (line.distance(claim.key) for line in lines)
    if one is not None and other is not None and len(one.resampled) == len(other.resampled):
        return set_change(one, other, ratio=ratio)
    x, y = (line.photos(claim.key) for line in lines)
    if x is None or y is None or len(x) != len(y):
        return None
    return mean_change(x, y, ratio=ratio)
