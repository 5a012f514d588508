"""A folder whose command is killed at random moments, and given again each time: every result once, and right.

    NUWA_LIP_PHOTOS=500 python -m pytest tests/commands/test_killed_folder.py tests/commands/test_on_ray.py

runs this, and the same on Ray with processes killed, at the size that the project promises; otherwise a slice.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.folders import contents, make_photos

Run = Callable[..., Any]
PHOTOS = int(os.environ.get("NUWA_LIP_PHOTOS", 24))
KILLS = 3 if PHOTOS >= 100 else 2
TEMPORARY = re.compile(r"\.[^/]*\.part")


def test_every_result_comes_once_and_is_right(
    nuwa_lip: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(PHOTOS)
    words = ["inpaint", "photos", "--mask", "mask.png", "--prompt", "a bear", "--model", str(tiny_model)]
    words += ["--seed", "3", "--manifest", "-o"]
    assert nuwa_lip(*words, "expected").code == 0
    moments = random.Random(0)
    found, stops = 0, []
    for kill in range(KILLS):
        process = subprocess.Popen([sys.executable, "-m", "nuwa_lip", *words, "results"], stdout=subprocess.DEVNULL)
        first, last = (n * PHOTOS // (KILLS + 1) for n in (kill, kill + 1))
        least = max(found + 1, moments.randint(first + 1, last))
        while len(list(Path("results").glob("*.png"))) < least:
            assert process.poll() in (None, 0)
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        stops.append(process.wait())
        found = len(list(Path("results").glob("*.png")))
    assert stops[0] == -signal.SIGKILL, "killed in the middle"  # a busy machine may be late for another one
    done = nuwa_lip(*words, "results")
    assert done.code == 0 and f"results: {found} of {PHOTOS} photos have a result already" in done.out
    results, expected = contents(Path("results")), contents(Path("expected"))
    lines = [json.loads(line) for line in results.pop("manifest.jsonl").splitlines()]
    del expected["manifest.jsonl"]
    assert len([name for name in results if TEMPORARY.fullmatch(name)]) <= KILLS, "of the killed ones, swept later"
    assert {name: data for name, data in results.items() if not TEMPORARY.fullmatch(name)} == expected
    made = [line["input"] for line in lines if line["state"] == "done"]
    assert len(made) == len({*made}), "no photo was repainted twice"
    assert {line["input"] for line in lines} == {str(path) for path in Path("photos").iterdir()}
