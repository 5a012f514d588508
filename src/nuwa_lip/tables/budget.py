"""What a row's training took, from its run folders: rows are compared at equal steps, or at equal time.

Minutes are those of the training steps as they ran, so they tell of the machine and of what else it did.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nuwa_lip.disk import parse_json
from nuwa_lip.errors import InputError

Budget = Mapping[str, Any]
"""One stage: its `stage`, `steps`, `photos` seen and `minutes`."""
TOLERANCE = 1.05
"""Times are equal within this factor."""


def budget_of(run: Path) -> Budget | None:
    """What a run has taken; None if the folder is no run's.

    Raises:
        InputError: its files are damaged.
    """
    recipe, metrics = run / "recipe.json", run / "metrics.jsonl"
    if not (recipe.is_file() and metrics.is_file()):
        return None
    try:
        content = parse_json(recipe.read_text(encoding="utf-8"))
        batch = content["schedule"]["batch_size"]  # the whole step's: `accumulate` only takes it in parts
        steps, seconds = 0, 0.0
        for line in metrics.read_text(encoding="utf-8").splitlines():
            entry = parse_json(line)
            if entry["step"] > steps:  # a resumed run writes some steps twice
                seconds += (entry["step"] - steps) * batch / entry["images_per_second"]
                steps = entry["step"]
        return {
            "stage": content["stage"],
            "steps": steps,
            "photos": steps * batch,
            "minutes": round(seconds / 60, 1),
        }
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{run} is damaged ({error!r}): what its training took cannot be read") from error


def budgets_of(runs: Sequence[Path]) -> list[Budget]:
    """Of those of the folders that are runs."""
    return [budget for run in runs if (budget := budget_of(run)) is not None]


def photos(budgets: Sequence[Budget]) -> list[int]:
    """Photos that each stage has seen."""
    return [budget["photos"] for budget in budgets]


def minutes(budgets: Sequence[Budget]) -> float:
    """Of all stages together."""
    return float(sum(budget["minutes"] for budget in budgets))


def shown(budgets: Sequence[Budget]) -> str:
    """As a table has it: `64,000 + 38,400 photos, 46 min`."""
    if not budgets:
        return ""
    return f"{' + '.join(f'{count:,}' for count in photos(budgets))} photos, {minutes(budgets):.0f} min"
