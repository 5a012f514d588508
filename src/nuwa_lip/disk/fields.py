"""The one checker of values from files: dataclasses made of JSON, field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from nuwa_lip.errors import InputError, first_line

NUMBERS = {float: Real, int: Integral}
SHOWN = 80  # characters of a value that an error shows

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
        built[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**built)
    except Exception as error:  # of many kinds: a field is missing, a value is out of range
        raise InputError(f"{where} cannot be used: {first_line(error)}") from error


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
    if kind in (dict, Mapping):
        return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, NUMBERS.get(hint, hint))
