"""A BERT cut to the word pieces of captions reads these as before, and other words by their letters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nuwa_lip.cli import main
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.data.shards import write_shards
from nuwa_lip.data.text_encoder import cut
from nuwa_lip.disk import read_object
from nuwa_lip.errors import InputError
from nuwa_lip.models.bert import BertText
from nuwa_lip.models.text import describe_bert
from nuwa_lip.tokenizer import CaptionTokenizer
from tests.tiny_bert import LETTERS, SPECIAL, write_bert

pytest.importorskip("transformers")
CAPTIONS = ["red circles", "a blueish square"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bert")
    whole = write_bert(folder / "whole")
    kept = cut(whole, folder / "small", CAPTIONS, length=8)
    assert kept == len(SPECIAL) + 2 * len(LETTERS) + 6 - 1  # six words and endings, of which "##s" is a letter
    return whole, folder / "small"


def read(folder: Path, captions: list[str]) -> tuple[Tensor, Tensor]:
    tokenizer = CaptionTokenizer.from_file(folder / "tokenizer.json")
    model = BertText(describe_bert(read_object(folder / "config.json"))).eval()
    model.load_bert(load_file(folder / "model.safetensors"))
    ids = tokenizer(captions)
    with torch.inference_mode():
        return ids, model(ids, ids == tokenizer.pad_id)


def test_captions_are_read_as_before(folders: tuple[Path, Path]) -> None:
    (ids, states), (few, small) = (read(folder, [*CAPTIONS, ""]) for folder in folders)
    assert ids.shape == few.shape and torch.equal(states, small)


def test_words_that_were_cut_are_spelled(folders: tuple[Path, Path]) -> None:
    (ids, _), (few, _) = (read(folder, ["words"]) for folder in folders)
    tokenizer = CaptionTokenizer.from_file(folders[1] / "tokenizer.json")
    assert ids.shape == (1, 3) and few.shape == (1, 7)
    assert tokenizer.vocab_size == int(read_object(folders[1] / "config.json")["vocab_size"])
    assert few.max() < tokenizer.vocab_size


def test_long_captions_are_cut_to_the_positions(folders: tuple[Path, Path]) -> None:
    with pytest.warns(UserWarning, match="longer than 8"):
        ids, _ = read(folders[1], ["red " * 20])
    assert ids.shape == (1, 8)


def test_another_tokenizer_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(InputError, match="WordPiece"):
        cut(tmp_path, tmp_path / "out", CAPTIONS)


def test_the_command_cuts_to_the_captions_of_shards(folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_shards(shape_samples(4, size=32), tmp_path / "shards", image_format="png")
    command = ["data", "text-encoder", str(folders[0]), "--data", str(tmp_path / "shards"), "-o", str(tmp_path / "out")]
    main(command)
    captions = [caption for sample in shape_samples(4, size=32) for caption in sample.captions]
    (_, states), (_, small) = (read(folder, captions) for folder in (folders[0], tmp_path / "out"))
    assert torch.equal(states, small)
    with pytest.raises(SystemExit) as refused:
        main(command)
    assert refused.value.code == 2
