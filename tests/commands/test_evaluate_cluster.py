"""What is sent to the processes of a cluster and comes back, through this one in their place; `test_on_ray` has Ray."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuwa_lip.commands import evaluate_cluster
from tests.demo_photos import demo_benchmark
from tests.folders import contents


def here(
    ray: Any, rows: Sequence[dict[str, Any]], actor: type, arguments: tuple[Any, ...], device: str
) -> Iterator[dict[str, Any]]:
    """The last row comes first, and all that is sent is pickled."""
    measure = actor(*pickle.loads(pickle.dumps(arguments)))
    for row in reversed(rows):
        done = measure({name: np.array([value]) for name, value in row.items()})
        yield {name: values[0] for name, values in pickle.loads(pickle.dumps(done)).items()}


def test_rows_are_measured_once_and_where_they_are_wrong_named(
    nuwa_lip: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_cluster, "on_ray", lambda: nullcontext())
    monkeypatch.setattr(evaluate_cluster, "through_actors", here)
    demo_benchmark(
        tmp_path / "bench", {"gull": (0, 0, 64, 64), "bear": (60, 60, 124, 110), "riders": (20, 40, 84, 104)}
    )
    words = ["evaluate", "images", "bench", "--baseline", "telea"]
    for name, more in (("one", []), ("many", ["--cluster"])):
        done = nuwa_lip(*words, "--work", name, "--json", f"{name}.json", *more)
        assert done.code == 0, done.err
    one, many = (json.loads(Path(f"{name}.json").read_text()) for name in ("one", "many"))
    assert {**one, "command": ""} == {**many, "command": ""} and contents(tmp_path / "one") == contents(
        tmp_path / "many"
    )
    Path("many/00001.safetensors").unlink()
    Path("bench/images/00001.png").unlink()
    done = nuwa_lip(*words, "--work", "many", "--cluster")
    assert done.code == 2 and "00001" in done.err
