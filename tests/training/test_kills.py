"""A training that is killed with -9, also while it saves, ends with the weights of one that nobody disturbed.

    NUWA_LIP_KILLS=20 pytest tests/training/test_kills.py

kills it more often than the suite does. Half of the kills come at a random moment, the others while a checkpoint is
being written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from nuwa_lip.cli import main as nuwa_lip
from nuwa_lip.training import recipes
from tests.folders import contents
from tests.processes import started
from tests.small_runs import make_cache, make_shards, mps2s_recipe

KILLS = int(os.environ.get("NUWA_LIP_KILLS", "3"))


def command(recipe: Path, data: Path, out: Path) -> None:
    """Begin a training, or go on with it."""
    nuwa_lip(["train", "mps2s", "--recipe", str(recipe), "--data", str(data), "--out", str(out), "--resume"])


def begun(run: Path) -> int:
    """Tell after which step the last checkpoint was written."""
    return max([int(p.name[5:]) for p in run.glob("checkpoints/step-*")], default=0)


def kill(process: Any, run: Path, rng: random.Random, longest: float, saving: bool) -> bool:
    """Kill a training within so many seconds, or while it saves → whether it was still running."""
    end = time.monotonic() + rng.uniform(0.1, longest)
    if saving:  # of the checkpoints that this life writes, one of the first
        wanted, parts = begun(run) + rng.randrange(1, 4), run / "checkpoints"
        while process.is_alive() and not (parts / f".step-{wanted}.part").exists():
            time.sleep(0.0005)
        end = time.monotonic() + rng.uniform(0, 0.02)
    while process.is_alive() and time.monotonic() < end:
        time.sleep(0.0005)
    process.kill()
    process.join()
    return bool(process.exitcode)


def disturbed(folder: Path, kills: int, seed: int, steps: int, longest: float) -> list[int]:
    """Kill a training so often, let it end, and compare it with one that was left alone → where it was killed."""
    rng, run, alone = random.Random(seed), folder / "run", folder / "alone"
    data = make_cache(folder / "tokens", make_shards(folder / "shards"))
    schedule = {"steps": steps, "checkpoint_every": 1, "sheet_every": steps}
    recipe = mps2s_recipe()
    recipe = dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, **schedule))
    (folder / "recipe.json").write_text(json.dumps(recipes.to_json(recipe)))
    process = started(command, folder / "recipe.json", data, alone)
    process.join()
    assert process.exitcode == 0
    where: list[int] = []
    for number in range(kills):
        process = started(command, folder / "recipe.json", data, run)
        if not kill(process, run, rng, longest, saving=number % 2 == 0):
            break
        where.append(begun(run))
    process = started(command, folder / "recipe.json", data, run)
    process.join()
    assert process.exitcode == 0
    for name in (f"checkpoints/step-{steps}", "model"):
        ours, theirs = contents(run / name), contents(alone / name)
        assert ours.keys() == theirs.keys() and [n for n in ours if ours[n] != theirs[n]] == [], name
    return where


def test_kills_change_nothing(tmp_path: Path) -> None:
    """The first and the last of three kills come while a checkpoint is written."""
    where = disturbed(
        tmp_path, kills=KILLS, seed=1, steps=12 if KILLS < 4 else 15 * KILLS, longest=0.5 if KILLS < 4 else 1.2
    )
    print(f"killed after the checkpoints of steps {where}")
    assert where == sorted(where) and len(where) == KILLS and where[-1] > 0
