"""Options that several commands have, and their checks; all are made before any work."""

from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.disk import check_writable
from nuwa_lip.errors import InputError

Operand = Annotated[Path, tyro.conf.Positional]
"""A word without an option's name before it."""
Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
OptionalOut = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]
Paths = Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH ...")]
"""Shards or folders, one or several."""


def check_least(least: int, **options: int | None) -> None:
    """Check numbers by their options' names; None stands for an option that is not given.

    Raises:
        InputError: a number is smaller than `least`.
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small: {least} at least")


def check_reports(*files: Path | None) -> None:
    """Check that reports can be written.

    Raises:
        InputError: one of them cannot be.
    """
    for file in files:
        if file is not None:
            check_writable(file)
