"""Two processes that train together, and what goes wrong: each says so in one line, and the run can be resumed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.training import recipes
from tests.processes import started
from tests.small_runs import mps2s_recipe

STEPS = 6


def trained(rank: int, count: int, port: int, words: list[str], fault: str, said: Path) -> None:
    """Be a process of a group that trains, as torchrun starts it, until something goes wrong at the fourth step."""
    import torch

    from nuwa_lip.cli import main
    from nuwa_lip.training.mps2s import MPS2SStage

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    step, mkdir = MPS2SStage.step, os.mkdir

    def read_only(path: Any, *options: Any, **more: Any) -> None:
        if "checkpoints" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *options, **more)

    def faulty(stage: MPS2SStage, number: int, batch: Any) -> Any:
        if number == 3 and fault == "hangs" and rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number == 3 and fault == "hangs":  # only now: a busy machine may be slow to start
            torch.distributed.set_timeout(timedelta(seconds=1))
        if number == 3 and fault == "read-only":
            os.mkdir = read_only  # type: ignore[assignment]
        return step(stage, number, batch)

    MPS2SStage.step = faulty  # type: ignore[method-assign]
    main(words)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def lines_of(path: Path) -> list[str]:
    """What the command itself says, but for warnings, among the progress."""
    said = [line for line in path.read_text().splitlines() if line.startswith("nuwa-lip: ")]
    return [line for line in said if not line.startswith("nuwa-lip: warning: ")]


@pytest.fixture
def words(cache: Path, tmp_path: Path) -> list[str]:
    recipe = mps2s_recipe()
    schedule = dataclasses.replace(recipe.schedule, steps=STEPS, checkpoint_every=2)
    (tmp_path / "recipe.json").write_text(json.dumps(recipes.to_json(dataclasses.replace(recipe, schedule=schedule))))
    files = ["--recipe", str(tmp_path / "recipe.json"), "--data", str(cache), "--out", str(tmp_path / "run")]
    return ["train", "mps2s", *files]


def goes_on(words: list[str], folder: Path) -> None:
    """One process ends what two have begun."""
    assert sorted(path.name for path in (folder / "run/checkpoints").iterdir() if path.name[0] != ".") == ["step-2"]
    last = started(trained, 0, 1, 0, [*words, "--resume"], "nothing", folder / "last")
    last.join(120)
    assert last.exitcode == 0, (folder / "last").read_text()
    steps = [json.loads(line)["step"] for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6] and (folder / f"run/checkpoints/step-{STEPS}").is_dir()


@pytest.mark.parametrize("fault", ["hangs", "read-only"])
def test_one_line_each_and_it_goes_on(fault: str, words: list[str], tmp_path: Path) -> None:
    port = free_port()
    group = [started(trained, rank, 2, port, words, fault, tmp_path / f"{rank}") for rank in (0, 1)]
    group[0].join(120)
    if fault == "hangs":
        os.kill(group[1].pid, signal.SIGCONT)
    group[1].join(120)
    first, second = (lines_of(tmp_path / f"{rank}") for rank in (0, 1))
    codes = [process.exitcode for process in group]
    assert codes == [1 if fault == "hangs" else 2, 1] and len(first) == len(second) == 1, (codes, first, second)
    lost = "another process has ended, or has not answered for 30 minutes"
    assert lost in second[0] and second[0].endswith("--resume goes on from the last checkpoint")
    if fault == "hangs":
        assert lost in first[0]
    else:
        assert "Read-only file system" in first[0] and "step-4" in first[0]
    goes_on(words, tmp_path)
