"""The page on painters: its example runs, and its table is that of the names that are known."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip import painters
from nuwa_lip.painters.known import KNOWN

PAGE = (Path(__file__).parents[2] / "docs" / "painters.md").read_text()


def test_the_example_of_a_painter_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    mask = np.zeros((50, 70), bool)
    mask[10:30, 20:50] = True
    names = {"photo": Image.fromarray(pixels), "mask": mask}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "painters.md", "exec"), names)
    painted = np.asarray(Image.open("haze.png"))
    assert (painted[~mask] == pixels[~mask]).all() and abs(painted[mask].mean() - pixels[~mask].mean()) < 10
    assert painted[mask].std() > 5


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_has_every_known_name(name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line]
    assert len(rows) == 1
    known = KNOWN[name]
    assert f"`{known.id}`" in rows[0] and known.size in rows[0]


@pytest.mark.parametrize("module", ["nuwa_lip", "masked_token", "meissonic", "diffusion", "eraser"])
def test_a_painter_is_short(module: str) -> None:
    path = Path(painters.__file__).with_name(f"{module}.py")
    assert len(path.read_text().splitlines()) <= 120
