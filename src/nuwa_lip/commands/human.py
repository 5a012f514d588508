"""`nuwa-lip evaluate human make` and `human rate`: a page of blind pairs, and preference rates from its answers."""

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from nuwa_lip.commands.options import Operand, Out
from nuwa_lip.data.benchmark import read_benchmark
from nuwa_lip.disk import escaped, write_text
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.report import command_line, write_report

USAGE = """usage: nuwa-lip evaluate human {make,rate} ...

  make  a page of blind, shuffled pairs that a person clicks through in a browser
  rate  the JSONs that it saves → preference rates with intervals

nuwa-lip evaluate human make --help shows the options and an example."""


def human(argv: list[str]) -> None:
    """Pick one of the two.

    Raises:
        InputError: it is neither.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    commands: dict[str, Callable[..., None]] = {"make": make, "rate": rate}
    if argv[0] not in commands:
        raise InputError(f"there is no command 'evaluate human {argv[0]}'; there are: make, rate")
    command = commands[argv[0]]
    tyro.cli(command, prog=f"nuwa-lip evaluate human {argv[0]}", description=inspect.getdoc(command), args=argv[1:])


def make(
    benchmark: Operand,
    *,
    results: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=DIR ...")],
    out: Out,
    n: int = 40,
    seed: int = 0,
    title: str = "Which one do you prefer?",
) -> None:
    """Make a page of blind pairs: the first method against every other one.

    Beside page.html stands page.key.json, which says which result is whose: keep it from the raters.

    Example: nuwa-lip evaluate human make benchmarks/test --results ours=a/ nuwa=b/ -o page.html

    Args:
        benchmark: Folder made by `nuwa-lip data benchmark`.
        results: Folders of finished pictures NNNNN.png, two or more (`evaluate images --save-images` makes them).
        out: The page, .html.
        n: Photos.
        seed: Of their choice, order and sides.
        title: Shown to the raters; it should name no method.
    """
    from nuwa_lip.evaluation.human import make_page

    if n < 1 or seed < 0:
        raise InputError(f"--n {n} and --seed {seed}: 1 and 0 at least")
    if out.suffix != ".html":
        raise InputError(f"{out} does not end with .html, as a page does")
    folders: dict[str, Path] = {}
    for text in results:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name in folders:
            raise InputError(f"--results {text!r} is not like NAME=DIR, with another name each")
        folders[name] = Path(folder)
    page, key = make_page(read_benchmark(benchmark), folders, count=n, seed=seed, title=title)
    write_report(out.with_suffix(".key.json"), asdict(key))  # first: a page without its key is of no use
    write_text(out, page)
    print(f"{out}: {len(key.pairs)} pairs; its key, not for the raters: {out.with_suffix('.key.json')}")


def rate(
    key: Operand,
    answers: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    json: Path | None = None,
) -> None:
    """Turn the JSONs that a page saves into preference rates.

    A photo counts once, whoever rates it; where both are the same each gets a half; intervals are Wilson's.

    Example: nuwa-lip evaluate human rate page.key.json answers-*.json --json preference.json

    Args:
        key: What `human make` wrote beside the page.
        answers: One file a rater.
        json: Where to write the rates.
    """
    from nuwa_lip.evaluation.human import Key, preference_rates, read_answers

    if not answers:
        raise InputError("there are no answers: give the JSON files that the page saves")
    known = Key.read(key)
    raters: dict[str, list[dict[str, Any]]] = {}
    for path in answers:
        rater, given = read_answers(path, known)
        if rater in raters:  # who saves early and once more at the end must not count twice
            raise InputError(f"{path} is a second file of the rater {rater!r}: give the last one only")
        raters[rater or str(path)] = given
    rates = preference_rates(known, list(raters.values()))
    if not rates:
        raise InputError("the files hold no answer to any question")
    raters_shown = "1 rater" if len(answers) == 1 else f"{len(answers)} raters"
    table = Table(title=escaped(f"{known.benchmark}: {raters_shown}", "markup"))
    for heading in ("question", "preferred", "to", "rate", "the same", "photos", "answers"):
        table.add_column(heading)
    for r in rates:
        low, high = r.interval_95
        shown = f"{r.rate:.1%} [{low:.1%}, {high:.1%}]"
        cells = (r.question, r.method, r.other, shown, f"{r.same:.1%}", r.photos, r.answers)
        table.add_row(*(escaped(cell, "markup") for cell in cells))
    Console().print(table)
    print(f"benchmark sha256 {known.benchmark_sha256}; in brackets: Wilson's 95 % intervals over the photos")
    if json is not None:
        content = {
            "page": known.page,
            "benchmark": known.benchmark,
            "benchmark_sha256": known.benchmark_sha256,
            "raters": len(answers),
            "rates": [asdict(r) for r in rates],
            "command": command_line(),
        }
        write_report(json, content)
