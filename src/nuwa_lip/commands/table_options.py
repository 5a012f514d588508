"""Options that all tables have in common."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.commands.options import check_least
from nuwa_lip.commands.variants import Plan
from nuwa_lip.errors import InputError
from nuwa_lip.tables.layout import Table


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all tables have in common."""

    benchmark: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders made by `nuwa-lip data benchmark`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("results")
    """Results folder: rows, pictures, and the table itself."""
    row: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=MODEL, once for each row whose model is at hand; NAME-seed1=MODEL for a second training."""
    only: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train and measure this row alone (may be given again); the table shows what else has been measured before."""
    train: bool = False
    """Train the rows that are not given, each by the commands that its JSON names; needs --data."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH ...")] = ()
    """Shards to train on."""
    models: Path | None = None
    """Where trained models are kept; by default in the results folder."""
    stage1: str = "mini"
    """Recipe of stage 1 and overrides, in quotes: "mini --schedule.steps 4000"; the same for every row."""
    stage2: str = "mini"
    """Recipe of stage 2 and overrides, in quotes."""
    tokenize: str = ""
    """More words for `nuwa-lip tokenize`, in quotes."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings; with several a row shows their mean."""
    limit: int | None = None
    """Use only the first N photos of each benchmark."""
    pictures: int = 24
    """Photos of each benchmark whose results the page shows; 0: none."""
    pictures_of: tuple[str, ...] = ()
    """Show photos of these benchmarks only, by their folders' names: say, of those that may be published."""
    lite: Path | None = None
    """Weights for --metrics fed, EfficientNet-Lite0's as timm names them; or else from the hub's or torch's cache."""
    workers: int = 1
    """Processes that measure together."""

    def check(self, table: Table) -> None:
        """Check the options before any work.

        Raises:
            InputError: one is missing, out of range, or names a row or a benchmark that does not exist.
        """
        if not self.benchmark:
            raise InputError(f"evaluate {table.name} needs a benchmark folder, made by nuwa-lip data benchmark")
        names = [folder.absolute().name for folder in self.benchmark]
        if len(set(names)) < len(names):
            raise InputError(f"two benchmarks are called {max(names, key=names.count)}: rows go by that name")
        check_least(2, limit=self.limit)
        check_least(1, workers=self.workers)
        check_least(0, pictures=self.pictures, seeds=min(self.seeds, default=-1))
        for name in self.pictures_of:
            if name not in names:
                raise InputError(f"--pictures-of {name} is none of the benchmarks: {', '.join(names)}")
        if self.train and not self.data:
            raise InputError("--train needs --data, the photos to train on")
        table.check(self.only, "--only")
        table.check([without_seed(name) for name in self.given()], "--row")

    def given(self) -> dict[str, str]:
        """Give the models of --row by the rows' names.

        Raises:
            InputError: one is not like NAME=MODEL.
        """
        found = {}
        for text in self.row:
            name, equals, model = text.partition("=")
            if not (name and equals and model):
                raise InputError(f"--row {text!r} is not like NAME=MODEL")
            found[name] = model
        return found

    def plan(self, seed: int) -> Plan:
        """Say how rows are trained with one seed."""
        same = {name: getattr(self, name) for name in ("data", "stage1", "stage2", "tokenize")}
        return Plan(models=self.models or self.out / "models", seed=seed, **same)


def without_seed(name: str) -> str:
    """Remove the seed from a row's name: nuwa-lip-seed1 → nuwa-lip."""
    return re.sub(r"-seed\d+$", "", name)


def given_seeds(row: str, given: Mapping[str, str]) -> list[int]:
    """List the seeds of a row's further trainings whose models are given."""
    words = [name.removeprefix(f"{row}-seed") for name in given if name.startswith(f"{row}-seed")]
    return [int(word) for word in words if word.isdecimal()]
