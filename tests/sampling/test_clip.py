"""Ranking by CLIP: from weights that are here, and one line where they are not."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.sampling.clip import clip_scores


def test_each_picture_gets_its_similarity(clip_folder: Path) -> None:
    pictures = [Image.new("RGB", (20, 10), "red"), Image.new("L", (9, 9)), Image.new("I;16", (9, 9), 65535)]
    scores = clip_scores(pictures, "a bear", clip_folder)
    assert len(scores) == 3 and all(-1 <= score <= 1 for score in scores) and len(set(scores)) == 3
    assert clip_scores(pictures[:1], "a bear", clip_folder) == pytest.approx(scores[:1], abs=1e-5)  # alone
    assert clip_scores(pictures[:1], "the sea", clip_folder) != pytest.approx(scores[:1], abs=1e-5)
    assert len(clip_scores(pictures[:1], "word " * 100, clip_folder)) == 1


def test_missing_weights_and_missing_library_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (tmp_path, tmp_path / "nowhere", "somebody/nothing"):
        with pytest.raises(InputError, match="'clip'.*hf download") as caught:
            clip_scores([Image.new("RGB", (4, 4))], "a bear", name)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'nuwa-lip\[transformers\]'"):
        clip_scores([Image.new("RGB", (4, 4))], "a bear", tmp_path)
