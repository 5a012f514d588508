"""The bundled model's own work and its bar."""

import pytest

from nuwa_lip.bench import inpaint, peers, whole
from nuwa_lip.bench.limits import Limits
from nuwa_lip.bench.measure import Child, Timing
from nuwa_lip.bench.sizes import SMALL, Bench


def test_the_bundled_model_is_held_to_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Child(1.0, 1.0, "")
    monkeypatch.setattr(inpaint, "own_work", lambda *_: Timing(1.5, 0.0))
    monkeypatch.setattr(inpaint, "children", lambda cases, rounds: dict.fromkeys(cases, done))
    monkeypatch.setattr(peers, "optional", lambda *_: None)
    limits = Limits(products={}, size=1, read=1.0)
    run = Bench(sizes=SMALL, limits=limits, rounds=1)
    alone, beside = inpaint.measure_commands(run)[0], whole.pipelines(run)[0]
    for row in (alone, beside):
        assert (row.value, row.bar, row.missed) == (1.5, 1.0, True)
