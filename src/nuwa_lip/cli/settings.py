"""Settings files: defaults of options in TOML, a table for each command. What the command line says counts more.

`[inpaint]`, below it `steps = 8` or `grid = true`; `[data.shards]`; for a group of options `limits.queue = 4`.
"""

import dataclasses
import difflib
import inspect
import os
import tomllib
import typing
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nuwa_lip.disk.text import read_text
from nuwa_lip.errors import InputError

FILE = "nuwa-lip.toml"


class Option(NamedTuple):
    """Says how an option stands on the command line."""

    flag: str
    others: tuple[str, ...]
    """Other words for it."""
    default: Any
    repeated: bool
    """Each of several values gets the flag."""


@dataclass(frozen=True)
class Settings:
    """Holds what a settings file says."""

    path: Path
    tables: dict[str, dict[str, Any]]
    """By the command's name; keys have underscores, those of a group of options its name and a dot in front."""

    def apply(self, name: str, command: Callable[..., Any], argv: list[str]) -> tuple[list[str], list[str]]:
        """Add a command's settings to its words → (all words, the names of the settings that count).

        Args:
            name: of the command.
            command: the function, whose parameters are the options.
            argv: the user's words, before which no setting counts; of a switch that is on `--no-...` takes it back.

        Raises:
            InputError: there is no such option, or it cannot have such a value.
        """
        known, words, used = options_of(command), list(argv), []
        for key, value in self.tables.get(name, {}).items():
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"nuwa-lip {name} --help lists them"
                raise InputError(f"{self.path}: [{name}] has no setting {key}; {hint}")
            option = known[key]
            given = [word for word in words if _stands_for(word, option)]
            if isinstance(option.default, bool):
                if not isinstance(value, bool):
                    raise InputError(f"{self.path}: [{name}] {key} is {value!r}; it must be true or false")
                back = option.others[0] if value != option.default else None
                words = [word for word in words if word != back]
                added = [option.flag] if value != option.default else []
            else:
                added = list(_words(option, value, f"{self.path}: [{name}] {key}"))
            if not given:
                words += added
                used += [key] * bool(added)
        return words, used


def read_settings(path: Path | None, commands: Collection[str]) -> Settings | None:
    """Read the settings file: the one that is named, else that of the folder, else the user's; None: there is none.

    /dev/null stands for none, too.

    Raises:
        InputError: it cannot be read, or it names a command that there is not.
    """
    found = path or next((one for one in usual_places() if one.is_file()), None)
    if found is None or found == Path(os.devnull):
        return None
    try:
        content = tomllib.loads(read_text(found))
    except OSError as error:
        raise InputError(f"{found} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{found} is no TOML: {error}") from error
    tables: dict[str, dict[str, Any]] = {}
    for name, table in content.items():
        if not isinstance(table, dict):
            raise InputError(f"{found}: {name} stands in no command's table; put it below [inpaint], say")
        groups = {f"{name} {word}": part for word, part in table.items() if f"{name} {word}" in commands}
        own = {word: value for word, value in table.items() if f"{name} {word}" not in commands}
        if own and name not in commands:
            close = difflib.get_close_matches(name, commands, n=1)
            hint = f"did you mean [{close[0]}]?" if close else "nuwa-lip --help lists them"
            raise InputError(f"{found}: there is no command for [{name}]; {hint}")
        for command, part in (groups | ({name: own} if own else {})).items():
            if not isinstance(part, dict):
                raise InputError(f"{found}: [{command}] is {part!r}; it must be a table")
            tables[command] = dict(_flat(part))
    return Settings(found, tables)


def usual_places() -> list[Path]:
    """Name where a settings file is looked for."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return [Path(FILE), Path(home) / "nuwa-lip" / "config.toml"]


def options_of(command: Callable[..., Any]) -> dict[str, Option]:
    """List the options that tyro makes of a function's keyword parameters, by their settings' names."""
    parameters = inspect.signature(command).parameters.values()
    hints = typing.get_type_hints(command, include_extras=True)
    options: dict[str, Option] = {}
    for parameter in parameters:
        notes = getattr(hints[parameter.name], "__metadata__", ())
        if any("Positional" in repr(note) for note in notes) or parameter.kind is parameter.POSITIONAL_ONLY:
            continue
        whole = parameter.default
        if dataclasses.is_dataclass(whole):
            prefix = "" if any("OmitArgPrefixes" in repr(note) for note in notes) else f"{parameter.name}."
            kinds = typing.get_type_hints(type(whole), include_extras=True)
            for field in dataclasses.fields(whole):
                notes = getattr(kinds[field.name], "__metadata__", ())
                options[prefix + field.name] = _option(prefix + field.name, getattr(whole, field.name), notes)
        else:
            options[parameter.name] = _option(parameter.name, whole, notes)
    return options


def _option(name: str, default: Any, notes: tuple[Any, ...]) -> Option:
    flag = name.replace("_", "-")
    aliases = tuple(alias for note in notes for alias in getattr(note, "aliases", None) or ())
    positive, negative = f"--{flag}", f"--no-{flag}"
    own, other = (negative, positive) if default is True else (positive, negative)
    return Option(own, (other, *aliases), default, any("UseAppendAction" in repr(note) for note in notes))


def _stands_for(word: str, option: Option) -> bool:
    """Tell whether a word of the command line gives an option."""
    if word.startswith("--"):
        return word.partition("=")[0].replace("_", "-") in (option.flag, *option.others)
    return any(len(short) == 2 and word.startswith(short) for short in option.others)


def _words(option: Option, value: Any, where: str) -> Iterator[str]:
    values = value if isinstance(value, list) else [value]
    rows = values if option.repeated and all(isinstance(row, list) for row in values) else [values]
    for row in rows:
        if not row or not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in row):
            raise InputError(f"{where} is {value!r}; it must be a text, a number, or a list of them")
        first, *rest = map(str, row)
        yield from (option.flag, first, *rest) if rest else (f"{option.flag}={first}",)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = prefix + key.replace("-", "_")
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
