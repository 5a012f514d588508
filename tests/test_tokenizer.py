"""The caption tokenizer: files, determinism, any text, the limit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from nuwa_lip.errors import InputError
from nuwa_lip.tokenizer import CaptionTokenizer

CAPTIONS = [
    "A black bear in the green grass.",
    "Two people on a sandy beach",
    "a grey sky over the sea",
    "the black dog and the grey bear on the beach",
]


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train(CAPTIONS, vocab_size=300, max_length=16)


def test_a_batch_is_padded_to_its_longest(tokenizer: CaptionTokenizer) -> None:
    ids = tokenizer(["a bear", "", "the black bear on the beach"])
    assert ids.dtype == torch.int64
    lengths = (ids != tokenizer.pad_id).sum(1)
    assert lengths.max() == ids.shape[1]
    assert tokenizer.pad_id == 0
    begin, end = int(ids[1, 0]), int(ids[1, 1])
    assert ids[1].tolist() == [begin, end] + [0] * (ids.shape[1] - 2)  # "" is begin and end alone
    for row, length in zip(ids, lengths, strict=True):
        assert row[0] == begin
        assert row[length - 1] == end
        assert not row[length:].any()
    alone = tokenizer("a bear")
    assert alone.shape == (1, int(lengths[0]))
    assert torch.equal(alone[0], ids[0, : lengths[0]])


def test_nothing_gives_an_empty_batch(tokenizer: CaptionTokenizer) -> None:
    assert tokenizer([]).shape == (0, 0)


def test_common_words_are_single_pieces(tokenizer: CaptionTokenizer) -> None:
    assert tokenizer("the bear").shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A BEAR", "a bear"),
        ("  a\tbear \n", "a bear"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u00c9t\u00e9", "e\u0301te\u0301"),
        (" \n ", ""),
    ],
)
def test_spelling_that_does_not_matter(tokenizer: CaptionTokenizer, text: str, same: str) -> None:
    assert torch.equal(tokenizer(text), tokenizer(same))


def test_spelling_that_matters(tokenizer: CaptionTokenizer) -> None:
    assert not torch.equal(tokenizer("été"), tokenizer("ete"))
    assert not torch.equal(tokenizer("a bear"), tokenizer("abear"))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_any_text_becomes_pieces_of_the_vocabulary(tokenizer: CaptionTokenizer, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = tokenizer(text)
    assert 2 <= ids.shape[1] <= tokenizer.max_length
    assert int(ids.min()) > tokenizer.pad_id
    assert int(ids.max()) < tokenizer.vocab_size


def test_special_pieces_cannot_be_spelled(tokenizer: CaptionTokenizer) -> None:
    ids = tokenizer("<pad><end>")[0, 1:-1]
    assert not set(ids.tolist()) & {0, 1, 2}


def test_text_that_utf8_cannot_hold_is_read_as_question_marks(tokenizer: CaptionTokenizer) -> None:
    assert torch.equal(tokenizer("a \udcff"), tokenizer("a ?"))


def test_the_vocabulary_is_bounded() -> None:
    assert CaptionTokenizer.train(CAPTIONS, vocab_size=259).vocab_size == 259
    assert CaptionTokenizer.train(CAPTIONS, vocab_size=270).vocab_size == 270
    assert CaptionTokenizer.train([], vocab_size=9999).vocab_size == 259


def test_training_is_deterministic(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    again = CaptionTokenizer.train(iter(CAPTIONS), vocab_size=300, max_length=16)
    tokenizer.save(tmp_path / "a.json")
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_file_gives_the_same_tokenizer(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    read = CaptionTokenizer.from_file(path)
    sizes = (read.pad_id, read.max_length, read.vocab_size)
    assert sizes == (tokenizer.pad_id, 16, tokenizer.vocab_size)
    texts = [*CAPTIONS[:2], "", "Ünïcöd 東", "<end>"]
    assert torch.equal(read(texts), tokenizer(texts))
    read.save(str(path))
    again = CaptionTokenizer.from_file(str(path))
    assert torch.equal(again(texts), tokenizer(texts))
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_long_caption_is_cut_and_the_warning_says_where() -> None:
    tokenizer = CaptionTokenizer.train(CAPTIONS, vocab_size=400, max_length=8)
    with pytest.warns(UserWarning, match=r"longer than 8 word pieces.*after '... beach the black bear'") as caught:
        ids = tokenizer(["on the beach the black bear and the dog", "a bear"])
    assert caught[0].filename == __file__
    assert len(caught) == 1
    assert ids.shape == (2, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = tokenizer("on the beach the black bear")
    assert torch.equal(ids[:1], whole)  # the end is kept


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": "1.0"', "\u00ff"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="tokenizer.json") as caught:
        CaptionTokenizer.from_file(path)
    assert "\n" not in str(caught.value)


def test_half_a_file_is_refused(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="damaged"):
        CaptionTokenizer.from_file(path)


@pytest.mark.parametrize("lacking", ["truncation", "padding"])
def test_a_tokenizer_of_another_kind_is_refused(tokenizer: CaptionTokenizer, tmp_path: Path, lacking: str) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    values = json.loads(path.read_text())
    values[lacking] = None
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"no {lacking}"):
        CaptionTokenizer.from_file(path)
    with pytest.raises(InputError, match="no truncation"):
        CaptionTokenizer(Tokenizer(models.BPE()))


EXPANDING = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 300}
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "replacements": (lambda c: c["normalizer"]["normalizers"].extend([EXPANDING] * 4), "its normalizer is"),
    "replacement": (lambda c: c["normalizer"]["normalizers"][2].update(content="a" * 999), "its normalizer is"),
    "no normalizer": (lambda c: c.update(normalizer=None), "its normalizer is None"),
    "split": (lambda c: c.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}}), "its pre_tokenizer"),
    "unigram": (lambda c: c["model"].update(type="Unigram"), "its model is"),
    "dropout": (lambda c: c["model"].update(dropout=0.5), "its model is"),
    "gaps": (lambda c: c["model"]["vocab"].update(zzz=10**9), "its vocab does not number"),
    "odd ids": (lambda c: c["model"]["vocab"].update({"<pad>": "0"}), "its vocab does not number"),
    "length": (lambda c: c["truncation"].update(max_length=2**40), "its max_length is 1099511627776; it must be 3 to"),
    "pad": (lambda c: c["padding"].update(pad_id=-1), "its pad_id is -1"),
    "many ends": (lambda c: c["post_processor"]["single"].extend(c["post_processor"]["single"] * 9), "post_processor"),
    "long ends": (
        lambda c: c["post_processor"]["special_tokens"]["<end>"].update(ids=[2] * 999, tokens=["<end>"] * 999),
        "post_processor",
    ),
    "no ends": (lambda c: c.update(post_processor=None), "post_processor"),
    "a list": (lambda c: c.update(model=[1]), "no tokenizer"),
    "added": (lambda c: c.update(added_tokens=c["added_tokens"] * 999), "no added_tokens"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_trainer_never_writes_is_refused_unread(
    name: str, tokenizer: CaptionTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    content = json.loads(path.read_text())
    spoil, says = HOSTILE[name]
    spoil(content)
    path.write_text(json.dumps(content))
    monkeypatch.setattr(Tokenizer, "from_str", None)  # the library must not see it
    with pytest.raises(InputError, match=says) as caught:
        CaptionTokenizer.from_file(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 200 + len(str(path))


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no tokenizer file .*nothing.json"):
        CaptionTokenizer.from_file(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="cannot be read"):
        CaptionTokenizer.from_file(tmp_path)


@pytest.mark.parametrize(("sizes", "message"), [((258, 16), "vocab_size is 258"), ((300, 2), "max_length is 2")])
def test_impossible_sizes_are_refused(sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CaptionTokenizer.train(CAPTIONS, *sizes)


def test_what_is_no_text_is_refused(tokenizer: CaptionTokenizer) -> None:
    with pytest.raises(InputError, match="a caption is int, not a string: 5"):
        tokenizer(["a", 5])  # type: ignore[list-item]
