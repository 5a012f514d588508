"""Imports run down one list of packages, and no two modules import each other, not even within a function."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import nuwa_lip

ORDER = """
__main__ commands cli serving tables evaluation bench baselines training pipeline pretrained painters convert published
hub sampling fast data arguments models images tokenizer disk errors assets
""".split()
"""Each may import those after it; the face of the package itself may import any when it is asked to."""

SOURCE = Path(nuwa_lip.__file__).parent
FACE = "nuwa_lip"


def name_of(path: Path) -> str:
    parts = (FACE, *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCE.rglob("*.py")}


def imports_of(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports anywhere: at its top, in a function, for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names = [f"{node.module}.{name}" for name in names]
            names = [name if name in MODULES else str(node.module) for name in names]
        yield from (name for name in names if name in MODULES)


def package_of(module: str) -> str:
    return module.split(".")[1]


def test_imports_run_downwards() -> None:
    assert {package_of(module) for module in MODULES if module != FACE} <= set(ORDER)
    upwards = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imports_of(path)
        if FACE not in (module, other)
        and package_of(module) != package_of(other)
        and ORDER.index(package_of(module)) > ORDER.index(package_of(other))
    ]
    assert not upwards, upwards


def test_no_modules_import_each_other() -> None:
    graph = {module: {*imports_of(path)} - {module, FACE} for module, path in MODULES.items() if module != FACE}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_few_modules_lie_loose_beside_the_packages() -> None:
    loose = sorted(path.name for path in SOURCE.glob("*.py"))
    assert len(loose) <= 10, f"put them into packages by concept: {', '.join(loose)}"
