"""Help of options, a paragraph each.

Tyro breaks a line of help where the source's docstring has an indented line; so it is handed joined lines: for a
command's arguments by a wrapper, for a dataclass's fields by a rule of its own.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Callable
from typing import Any

from tyro.constructors import (
    MISSING,
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)


def with_joined_lines(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: the wrapper's docstring has each argument on one line."""

    def joined(*words: Any, **options: Any) -> None:
        command(*words, **options)

    # not functools.wraps, behind which tyro would find the command itself
    joined.__signature__ = inspect.signature(command)  # type: ignore[attr-defined]
    joined.__annotations__ = typing.get_type_hints(command, include_extras=True)
    joined.__doc__ = re.sub(r"\n {8,}(?=\S)", " ", inspect.getdoc(command) or "")
    return joined


def registry() -> ConstructorRegistry:
    """Make the rules by which tyro takes dataclasses for groups of options; more can be added."""
    rules = ConstructorRegistry()
    rules.struct_rule(_rule)
    return rules


@functools.cache
def field_texts(kind: type) -> dict[str, str]:
    """Find the docstrings below a dataclass's fields, those of its bases too, each as one line."""
    texts = {}
    for cls in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        try:
            source = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        except OSError:  # only compiled files are there
            continue
        assert isinstance(source, ast.ClassDef)
        for pair in itertools.pairwise(source.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not dataclasses.is_dataclass(info.type):
        return None
    kinds = typing.get_type_hints(info.type, include_extras=True)
    fields = [
        StructFieldSpec(
            name=field.name,
            type=kinds[field.name],
            default=_default(field, info.default),
            helptext=functools.partial(_text, info.type, field.name),  # sources are read for help only
        )
        for field in dataclasses.fields(info.type)
    ]
    return StructConstructorSpec(instantiate=info.type, fields=tuple(fields))


def _text(kind: type, name: str) -> str | None:
    return field_texts(kind).get(name)


def _default(field: dataclasses.Field[Any], whole: Any) -> Any:
    """A field's default: of the instance that is the dataclass's own default, else of its class."""
    if whole is MISSING:
        return MISSING
    if dataclasses.is_dataclass(whole):
        return getattr(whole, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING_NONPROP if field.default is dataclasses.MISSING else field.default
