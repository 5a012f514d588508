"""`nuwa-lip bench` and its options."""

from pathlib import Path

import pytest
import torch

from nuwa_lip.bench import growth, stages
from nuwa_lip.commands import bench
from nuwa_lip.errors import InputError


def test_bad_numbers_are_named() -> None:
    with pytest.raises(InputError, match="--rounds 0"):
        bench.growth(rounds=0)
    with pytest.raises(InputError, match="--threads 0"):
        bench.bench(threads=0)
    with pytest.raises(InputError, match="'speed'; there are: limits, tokenizer"):
        bench.bench(stages="limits,speed")
    for name, says in (
        ("gpu", "cannot be used: Expected one of cpu"),
        ("meta", "cannot be measured: take cpu or cuda"),
    ):
        with pytest.raises(InputError, match=f"--device {name} {says}"):
            bench.bench(device=name)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda cannot be used: .*"):
            bench.bench(device="cuda")


@pytest.mark.parametrize("option", ["json", "markdown"])
@pytest.mark.parametrize("command", ["bench", "growth"])
def test_a_report_that_cannot_be_written_is_told_before_the_work(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage, work in ((stages, "measure_stages"), (growth, "measure_growth")):
        monkeypatch.setattr(stage, work, lambda *_, **__: pytest.fail("there was work"))
    (tmp_path / "file").touch()
    for path, says in ((tmp_path, "is a folder; name a file"), (tmp_path / "file/x", "cannot write .*not a directory")):
        with pytest.raises(InputError, match=says):
            getattr(bench, command)(**{option: path})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
