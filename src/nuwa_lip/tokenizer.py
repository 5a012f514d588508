"""Captions to word pieces: byte-level byte-pair encoding in one `tokenizer.json`.

    tokenizer = CaptionTokenizer.train(captions, vocab_size=4096, max_length=32)
    ids = tokenizer(["a red boat", ""])        # int64 [2, T], padded; "" is the unconditional caption

Any text can be written with the 256 bytes, so there are no unknown words. Letters are lower-cased, accents
composed (NFC), runs of white space become one space.

Legend: B batch, T word pieces of the longest caption in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Encoding, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from nuwa_lip.disk import clean, parse_json, regular, write_text
from nuwa_lip.errors import InputError, first_line

PAD, BEGIN, END = SPECIAL = ("<pad>", "<begin>", "<end>")  # pieces 0, 1, 2
MIN_VOCAB = len(SPECIAL) + 256  # a piece for every byte
WORDS_SHOWN = 4  # where the warning says that a caption was cut
FORMS: tuple[dict[str, Any], ...] = (
    {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Lowercase"},
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Strip"},
            ],
        },
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None},
    },
    {
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece"},
    },
)
"""What a file says of the way to word pieces: of those that `train` makes, and of a BERT's."""
MOST = {"pieces": 2**20, "letters": 1000, "length": 2**16, "added": 1000}
"""Largest numbers of pieces, of their letters, of pieces of a caption, and of pieces that are added."""


class CaptionTokenizer:
    """Turns captions into word pieces between a begin and an end, padded to the longest of a batch.

    Args:
        tokenizer: the library's; its truncation gives `max_length`, its padding `pad_id`. Its file keeps both.

    Raises:
        InputError: the tokenizer has no truncation or no padding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        truncation, padding = tokenizer.truncation, tokenizer.padding
        if truncation is None or padding is None:
            missing = "truncation (the longest caption)" if truncation is None else "padding (the pad piece)"
            raise InputError(f"the tokenizer has no {missing}; it was not made by CaptionTokenizer.train")
        self.max_length: int = truncation["max_length"]
        """Largest number of pieces of a caption, begin and end included."""
        self.pad_id: int = padding["pad_id"]
        tokenizer.no_padding()  # done here, into one tensor
        tokenizer.encode_special_tokens = True  # a caption that spells "<end>" does not end there
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int = 4096, max_length: int = 32) -> CaptionTokenizer:
        """Learn word pieces; the same captions in the same order give the same tokenizer.

        Args:
            captions: any number of texts.
            vocab_size: largest number of pieces, at least 259; few captions give fewer.
            max_length: largest number of pieces of a caption, begin and end included, at least 3.

        Raises:
            InputError: a size is too small.
        """
        if vocab_size < MIN_VOCAB:
            raise InputError(f"vocab_size is {vocab_size}; it must be {MIN_VOCAB} or more (bytes, pad, begin, end)")
        if max_length < len(SPECIAL):
            raise InputError(f"max_length is {max_length}; it must be {len(SPECIAL)} or more (begin, a piece, end)")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Lowercase(),
                normalizers.NFC(),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Strip(),
            ]
        )
        # a space before the first word makes it the same piece as within a caption
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((clean(caption) for caption in captions), trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A {END}",
            special_tokens=[(piece, SPECIAL.index(piece)) for piece in (BEGIN, END)],
        )
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(pad_id=SPECIAL.index(PAD), pad_token=PAD)
        return cls(tokenizer)

    @classmethod
    def from_file(cls, path: str | Path) -> CaptionTokenizer:
        """Read what `save` wrote, or the word pieces of a BERT, and no other form: some take memory without end.

        Raises:
            InputError: the file is missing, damaged, or of another form.
        """
        path = regular(Path(path))
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InputError(f"there is no tokenizer file {path}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        try:
            check_form(parse_json(content))
            return cls(Tokenizer.from_str(content))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except Exception as error:  # the library raises nothing more precise
            raise InputError(f"{path} is damaged or not a tokenizer: {first_line(error)}") from error

    def save(self, path: str | Path) -> None:
        """Write everything into one JSON file, whole or not at all."""
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.enable_padding(pad_id=self.pad_id, pad_token=tokenizer.id_to_token(self.pad_id) or PAD)
        write_text(Path(path), tokenizer.to_str(pretty=True) + "\n")

    @property
    def vocab_size(self) -> int:
        """Return the number of pieces; ids are smaller."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def __call__(self, captions: str | Sequence[str]) -> Tensor:
        """Turn captions into word pieces, int64 [B, T], padded with `pad_id` to the longest caption of the batch.

        Args:
            captions: texts; "" is the unconditional caption. A caption that is too long is cut, with a warning.

        Raises:
            InputError: a caption is not a string.
        """
        texts = [captions] if isinstance(captions, str) else list(captions)
        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"a caption is {type(text).__name__}, not a string: {text!r:.60}")
        texts = [clean(text) for text in texts]
        # one by one, because a batch starts threads, and processes that are forked later complain of them
        encodings = [self._tokenizer.encode(text) for text in texts]
        for text, encoding in zip(texts, encodings, strict=True):
            if encoding.overflowing:
                self._warn(text, encoding)
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        ids = torch.full((len(texts), longest), self.pad_id, dtype=torch.int64)
        for row, encoding in zip(ids, encodings, strict=True):
            row[: len(encoding.ids)] = torch.tensor(encoding.ids)
        return ids

    def _warn(self, text: str, encoding: Encoding) -> None:
        """Warn which words of a caption that was cut are the last to remain."""
        end = max(stop for _, stop in encoding.offsets)
        kept = " ".join(text[:end].split()[-WORDS_SHOWN:])
        warnings.warn(
            f"the prompt is longer than {self.max_length} word pieces; it was cut after '... {kept}'",
            stacklevel=3,
        )


def check_form(content: Any) -> None:
    """Check what a file holds before the library sees it, which does whatever a file says.

    Raises:
        InputError: it is of another form than those in `FORMS`, or of sizes that no tokenizer has.
    """
    if not isinstance(content, Mapping) or not isinstance(model := content.get("model"), Mapping):
        raise InputError("it holds no tokenizer")
    form = next((form for form in FORMS if form["model"]["type"] == model.get("type")), FORMS[0])
    for part, wanted in form.items():
        if not _like(content.get(part), wanted):
            raise InputError(f"its {part} is {content.get(part)!r:.80}, which CaptionTokenizer.train does not write")
    vocabulary, added = model.get("vocab"), content.get("added_tokens")
    if not isinstance(vocabulary, Mapping) or not isinstance(added, list) or len(added) > MOST["added"]:
        raise InputError("it has no vocab, or no added_tokens")
    ids = {id for id in vocabulary.values() if type(id) is int and 0 <= id < MOST["pieces"]}
    if not ids or len(ids) < len(vocabulary) or max(map(len, vocabulary)) > MOST["letters"]:
        raise InputError("its vocab does not number word pieces")
    length = (content.get("truncation") or {}).get("max_length", len(SPECIAL))
    pad = (content.get("padding") or {}).get("pad_id", 0)
    if type(length) is not int or not len(SPECIAL) <= length <= MOST["length"]:
        raise InputError(f"its max_length is {length!r:.20}; it must be {len(SPECIAL)} to {MOST['length']}")
    if type(pad) is not int or not 0 <= pad < len(vocabulary):
        raise InputError(f"its pad_id is {pad!r:.20}, which is none of its {len(vocabulary)} pieces")
    if not _adds_ends(content.get("post_processor")):
        raise InputError("its post_processor does more than to put a begin and an end around a caption")


def _like(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there, and lists are as long."""
    if isinstance(wanted, dict):
        return isinstance(found, Mapping) and all(_like(found.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_like, found, wanted))
    return type(found) is type(wanted) and found == wanted


def _adds_ends(processor: Any) -> bool:
    """Whether a post-processor puts one piece before and one behind a caption."""
    if not isinstance(processor, Mapping):
        return False
    if processor.get("type") == "BertProcessing":
        return True
    parts, pieces = processor.get("single"), processor.get("special_tokens")
    if processor.get("type") != "TemplateProcessing" or not isinstance(parts, list) or not isinstance(pieces, Mapping):
        return False
    single = all(isinstance(piece, Mapping) and len(piece.get("ids", ())) == 1 for piece in pieces.values())
    return single and [[*part] for part in parts] == [["SpecialToken"], ["Sequence"], ["SpecialToken"]]
