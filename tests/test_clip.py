"""Ranking by CLIP: from weights that are here, and one line where they are not."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from nuwa_lip.clip import clip_scores
from nuwa_lip.errors import InputError


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights that reads letters."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(i) for i in range(97, 123)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(folder)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1}
    config = CLIPConfig(
        text_config={**small, **ends, "vocab_size": len(pieces), "max_position_embeddings": 12},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_each_picture_gets_its_similarity(clip_folder: Path) -> None:
    pictures = [Image.new("RGB", (20, 10), "red"), Image.new("L", (9, 9)), Image.new("I;16", (9, 9), 65535)]
    scores = clip_scores(pictures, "a bear", clip_folder)
    assert len(scores) == 3 and all(-1 <= score <= 1 for score in scores) and len(set(scores)) == 3
    assert clip_scores(pictures[:1], "a bear", clip_folder) == pytest.approx(scores[:1], abs=1e-6)
    assert clip_scores(pictures[:1], "the sea", clip_folder) != pytest.approx(scores[:1], abs=1e-6)
    assert len(clip_scores(pictures[:1], "word " * 100, clip_folder)) == 1


def test_missing_weights_and_missing_library_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (tmp_path, tmp_path / "nowhere", "somebody/nothing"):
        with pytest.raises(InputError, match="rank 'clip' needs CLIP's weights.*hf download") as caught:
            clip_scores([Image.new("RGB", (4, 4))], "a bear", name)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'nuwa-lip\[transformers\]'"):
        clip_scores([Image.new("RGB", (4, 4))], "a bear", tmp_path)
