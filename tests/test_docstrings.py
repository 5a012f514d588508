"""Public functions document their arguments from three on, and what they raise; ruff checks everything else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nuwa_lip

SOURCE = Path(nuwa_lip.__file__).parent
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def public_functions(body: list[ast.stmt], owner: ast.ClassDef | None = None) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Yield each function with its docstring; that of `__init__` is the class's, that of an override its base's."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, node)
        elif isinstance(node, ast.FunctionDef) and "override" not in map(ast.unparse, node.decorator_list):
            if owner is not None and node.name == "__init__":
                yield node, ast.get_docstring(owner) or ""
            elif not node.name.startswith("_"):
                yield node, ast.get_docstring(node) or ""


def raises(node: ast.AST) -> bool:
    """Tell whether a statement raises an exception, other than passing one on; functions within it do not count."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
        return False
    return (isinstance(node, ast.Raise) and node.exc is not None) or any(map(raises, ast.iter_child_nodes(node)))


@pytest.mark.parametrize("file", FILES)
def test_arguments_and_errors_are_documented(file: str) -> None:
    missing = []
    for node, text in public_functions(ast.parse((SOURCE / file).read_text(encoding="utf-8")).body):
        arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        if len([name for name in arguments if name not in ("self", "cls")]) >= 3 and "Args:" not in text:
            missing.append(f"{node.name}, line {node.lineno}, has no Args:")
        # a command's docstring is its help, and all of them end by the exit codes that `cli` documents
        if any(map(raises, node.body)) and "Raises:" not in text and not file.startswith("commands/"):
            missing.append(f"{node.name}, line {node.lineno}, has no Raises:")
    assert not missing, "\n".join(missing)
