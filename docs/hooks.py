"""Hooks of the documentation site: pages that live elsewhere in the repository, and notebooks, become pages of it.

Links in all pages are those of the repository, so that they lead somewhere there too; here they become the site's.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "NOTICE": "notice.md",
    "src/nuwa_lip/assets/nuwa-lip-mini/README.md": "model-card.md",
    "results/README.md": "results/index.md",
}
"""Pages by their place in the repository → in the site; results/ is added to them."""
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)([^)]*\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere, and the notebooks."""
    for source, target in _elsewhere().items():
        files.append(File.generated(config, target, content=_page(source)))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=_notebook(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links of the repository to the site's."""
    sites = {target: source for source, target in _elsewhere().items()}
    here = page.file.src_uri
    folder = posixpath.dirname(sites.get(here, f"docs/{here}"))

    def turned(link: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(folder, link[2]))
        target = _elsewhere().get(source, source.removeprefix("docs/"))
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + link[3]

    return LINK.sub(turned, markdown)


def _elsewhere() -> dict[str, str]:
    results = {f"results/{name}": f"results/{name}" for name in os.listdir(ROOT / "results") if name.endswith(".md")}
    return results | ELSEWHERE


def _page(source: str) -> str:
    text = (ROOT / source).read_text(encoding="utf-8")
    if source == "NOTICE":
        return f"# Licences\n\n```text\n{text}\n```\n"
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a model card's header is for the hub


def _notebook(path: Path) -> str:
    """Write a notebook's cells one below the other."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    return "\n\n".join(
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    )
