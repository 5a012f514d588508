"""`--quiet`: nothing is printed, but a picture that goes to standard output still does."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def test_a_photo_is_repainted_without_a_word(
    nuwa_lip: Callable[..., Any], tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    words = ("inpaint", photo_file, "--mask", mask_file, "--prompt", "x", "--model", tiny_model, "--quiet")
    assert nuwa_lip(*words, "-o", tmp_path / "a.png") == (0, "", "") and (tmp_path / "a.png").exists()
    refused = nuwa_lip(*words, "-o", tmp_path / "a.png")
    assert refused.code == 2 and refused.out == "" and "--overwrite" in refused.err


def test_a_picture_goes_through(tiny_model: Path, photo_file: Path, mask_file: Path) -> None:
    words = ["inpaint", photo_file, "--mask", mask_file, "--prompt", "x", "--model", tiny_model, "-o", "-", "--quiet"]
    run = subprocess.run([sys.executable, "-m", "nuwa_lip", *map(str, words)], capture_output=True, env=os.environ)
    assert run.stderr == b"" and Image.open(io.BytesIO(run.stdout)).size == (60, 40)
