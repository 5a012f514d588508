"""The one checker of configurations: dataclasses made of JSON, field by field, and the bounds of their numbers."""

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nuwa_lip.errors import InputError, first_line

NUMBERS = {float: Real, int: Integral}
SHOWN = 80  # characters of a value that an error shows
MOST_ENTRIES = 32
"""Most numbers of a field that holds several, such as a network's levels."""
ANY = float("-inf")
"""A lower bound that is none, or that is checked elsewhere, with a message of its own."""

Bounds = Mapping[str, tuple[float, float]]
"""Names of fields → least and largest value of the number, or of each of several numbers."""

Kind = TypeVar("Kind")


def from_json(kind: type[Kind], values: Any, where: str) -> Kind:
    """Build a dataclass from what JSON makes of it: objects stand for dataclasses within it, lists for tuples.

    Args:
        kind: the dataclass.
        values: parsed JSON.
        where: what it is and in which file, which errors begin with.

    Raises:
        InputError: a field is unknown, missing, of another type, or out of range.
    """
    if not isinstance(values, Mapping):
        found = "missing" if values is None else f"{values!r:.{SHOWN}}"
        raise InputError(f"{where} is {found}; it must be an object with fields")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}: update nuwa-lip, or remove it")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_json(hints[name], value, f"{where}: {name}")
        elif not fits(value, hints[name]):
            wanted = hints[name].__name__ if isinstance(hints[name], type) else str(hints[name]).replace("typing.", "")
            raise InputError(f"{where}: {name} is {value!r:.{SHOWN}}; it must be {wanted}")
        built[name] = tuple(value) if isinstance(value, list) and get_origin(hints[name]) is not list else value
    try:
        return kind(**built)
    except Exception as error:  # of many kinds: a field is missing, a value is out of range
        raise InputError(f"{where} cannot be used: {first_line(error)}") from error


def lists_to_tuples(config: Any) -> None:
    """Turn the lists of a configuration into tuples, frozen or not: JSON has lists only."""
    for field in dataclasses.fields(config):
        if isinstance(value := getattr(config, field.name), list):
            object.__setattr__(config, field.name, tuple(value))


def check_bounds(config: Any, bounds: Bounds, prefix: str = "") -> None:
    """Check the numbers of a configuration, so that none that a stranger has written grows without end.

    Args:
        config: the dataclass.
        bounds: of its fields; None may stand for a number that is not given.
        prefix: stands before the fields' names in errors.

    Raises:
        InputError: a field is no number, or out of its bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        several = isinstance(value, (tuple, list))
        if several and len(value) > MOST_ENTRIES:
            raise InputError(f"{prefix}{name} has {len(value)} entries; it may have {MOST_ENTRIES}")
        for number in value if several else [] if value is None else [value]:
            if not isinstance(number, Real) or isinstance(number, bool):
                raise InputError(f"{prefix}{name} is {value!r:.{SHOWN}}; it must be a number")
            if not (low <= number and number <= high):  # type: ignore[operator]
                least = "" if low == ANY else f"{low} or more, and "
                raise InputError(f"{prefix}{name} is {value!r:.{SHOWN}}; it must be {least}{high} at most")


def find(table: Mapping[str, Kind], name: str, what: str) -> Kind:
    """Look up by a name that somebody has typed.

    Args:
        table: what there is, by name.
        name: the one that is wanted.
        what: of what it is the name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in table:
        raise InputError(f"no {what} is called {name!r}; there are: {', '.join(table)}")
    return table[name]


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of an annotated type; lists stand for tuples, and a bool is no number."""
    kind, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind is tuple:
        parts = parts[:1] * len(value) if parts[-1:] == (...,) and isinstance(value, list) else parts
        return isinstance(value, list) and len(value) == len(parts) and all(map(fits, value, parts))
    if kind is list:
        return isinstance(value, list) and all(fits(one, parts[0]) for one in value)
    if kind in (dict, Mapping):
        return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, NUMBERS.get(hint, hint))
