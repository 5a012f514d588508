"""What holds for the project as a whole: its documents, its bundled photos, its rules for the source."""

import ast
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nuwa_lip
from nuwa_lip.assets import asset
from nuwa_lip.cli import COMMANDS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_versions_agree() -> None:
    assert nuwa_lip.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(asset("demo/photos/bear.jpg"), tmp_path / "photo.jpg")
    shutil.copy(asset("demo/masks/bear.png"), tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_commands_that_exist(path: Path) -> None:
    named = re.findall(
        r"^(?:\.venv/bin/)?nuwa-lip ([a-z]+)(?: ([a-z][a-z0-9-]*))?", path.read_text(), flags=re.MULTILINE
    )
    for first, second in named:
        assert first in COMMANDS or f"{first} {second}" in COMMANDS, f"{path.name}: nuwa-lip {first} {second}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_within_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_page_of_changes_names_what_exists() -> None:
    rows = re.findall(r"^\| an? .*", (ROOT / "docs/where.md").read_text(), flags=re.MULTILINE)
    assert rows
    for row in rows:
        words = re.findall(r"`([^`]+)`", row)
        texts = ""
        for file in (word for word in words if word.endswith(".py")):
            paths = [path for folder in ("src/nuwa_lip", "tests") if (path := ROOT / folder / file).exists()]
            assert paths, f"{file} is not there: {row}"
            texts += "".join(path.read_text() for path in paths)
        for word in words:
            name = word.split(".")[-1]
            if name.isidentifier() and not word.endswith(".py") and not word.startswith("-"):
                assert re.search(rf"\b{name}\b", texts), f"{name} is not there: {row}"


def test_demo_photos_have_masks_captions_and_credits() -> None:
    captions = json.loads(asset("demo/captions.json").read_text())
    photos = sorted(asset("demo/photos").glob("*.jpg"))
    notice = (ROOT / "NOTICE").read_text()
    assert len(photos) >= 4
    assert set(captions) == {photo.stem for photo in photos}
    for photo in photos:
        mask = np.asarray(Image.open(asset(f"demo/masks/{photo.stem}.png")).convert("L"))
        assert mask.shape[::-1] == Image.open(photo).size
        assert 0.2 <= (mask >= 128).mean() <= 0.75
        assert re.search(rf"{photo.name}\b.*(flickr\.com/photo.*CC BY|CC0)", notice)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_sources_keep_the_rules(path: Path) -> None:
    text = path.read_text()
    assert not text or text.startswith('"""'), "a module says what it is for"
    assert text.count("\n") <= 400, "split it by concept"
    assert not re.search(r"^\s*except:|shell=True", text, flags=re.MULTILINE)
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert not {"pickle.load", "pickle.loads", "eval", "exec"} & {ast.unparse(call.func) for call in calls}
    for call in calls:
        if ast.unparse(call.func) == "torch.load":  # tensors only
            assert "weights_only=True" in map(ast.unparse, call.keywords)


def test_no_paths_of_anybodys_machine() -> None:
    files = [
        *SOURCES,
        *(ROOT / "tests").rglob("*.py"),
        *DOCUMENTS,
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
    ]
    for path in files:
        found = re.search(r"(?<![\w.])/(home|root|work|Users|mnt)/\w+", path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"
