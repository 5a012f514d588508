"""A training that is killed with -9, also while it saves, ends with the weights of one that nobody disturbed."""

from pathlib import Path

from tests.kills import disturbed


def test_kills_change_nothing(tmp_path: Path) -> None:
    """The first and the last of three kills come while a checkpoint is written."""
    where = disturbed(tmp_path, kills=3, seed=1, steps=12, longest=0.5)
    assert where == sorted(where) and len(where) == 3 and where[-1] > 0
