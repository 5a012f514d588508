"""Whole images against the official pattern."""

import pytest

from nuwa_lip.bench import quality, whole
from nuwa_lip.bench.limits import Limits
from nuwa_lip.bench.measure import Timing
from nuwa_lip.bench.sizes import SMALL, Bench


def test_each_form_is_compared_with_the_tokens_before_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(whole, "once", lambda work: float(next(seconds)))
    cases = ("one", "parallel", "loop", "parallel loop")
    monkeypatch.setattr(whole, "_one_form", lambda *given: {case: Timing(2.0, 0.0) for case in cases})
    monkeypatch.setattr(whole, "build", lambda *given: "a model")
    monkeypatch.setattr(quality, "known_loss", lambda *given: None)
    bench = Bench(sizes=SMALL, limits=Limits(products={}, size=1, read=1.0), rounds=1)
    rows = [row for row in whole.forms(bench) if row.what.startswith("official pattern / ours, one")]
    # call 0 warms up; between 1 and 2 is the first form
    assert [row.value for row in rows] == [(i + 1.5) * SMALL.defective / 2 for i in range(len(rows))]
    assert len(rows) > 2
