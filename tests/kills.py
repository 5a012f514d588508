"""Kill a training with -9 again and again, go on with it each time, and compare with one that nobody disturbed.

    python -m tests.kills --kills 20 --seed 0

Half of the kills come at a random moment, the others while a checkpoint is being written. The suite does a few of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from nuwa_lip.cli import main as nuwa_lip
from nuwa_lip.training import recipes
from tests.folders import contents
from tests.processes import started
from tests.small_runs import make_cache, make_shards, mps2s_recipe


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


def main() -> None:
    """Read the command line, and print where the training was killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds until a random moment, at most")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = disturbed(Path(folder), words.kills, words.seed, words.steps, words.longest)
    assert len(where) == words.kills, f"it ended before kill {len(where)}: give it more steps"
    print(f"{words.kills} kills, after the checkpoints of steps {where}: the weights are the same to the bit")


if __name__ == "__main__":
    main()
