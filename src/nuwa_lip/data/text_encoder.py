"""A small copy of a BERT for captions: only the word pieces that are in use, in few positions.

A folder holds `config.json`, `model.safetensors` (names as transformers gives them) and `tokenizer.json`, as on the
hub. Captions that are spelled with the kept pieces are read as before, to the bit; the word pieces of one letter are
always kept, so that other words can still be spelled.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from nuwa_lip.disk import make_folder, read_object, write_json, written_whole
from nuwa_lip.disk.tensors import read_tensors
from nuwa_lip.errors import InputError
from nuwa_lip.models.bert import SIZES

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
PREFIX = "##"


def cut(source: Path, out: Path, captions: Iterable[str], length: int = 64) -> int:
    """Write a copy that knows the word pieces of these captions, and single letters → how many pieces.

    Args:
        source: folder of a BERT with a WordPiece tokenizer.
        out: folder for the copy, made if missing.
        captions: texts whose reading must not change.
        length: most word pieces of a caption, begin and end included.

    Raises:
        InputError: the source is not such a folder.
    """
    about = read_object(source / "config.json")
    content = read_object(source / "tokenizer.json")
    if content.get("model", {}).get("type") != "WordPiece":
        raise InputError(f"{source / 'tokenizer.json'} is not a WordPiece tokenizer, as a BERT has")
    kept = _pieces_in_use(content, captions)
    weights = read_tensors(source / "model.safetensors")
    state = {name: value for name, value in weights.items() if value.is_floating_point()}
    state[WORDS] = state[WORDS][torch.tensor(list(kept.values()))].contiguous()
    length = min(length, len(state[POSITIONS]))
    state[POSITIONS] = state[POSITIONS][:length].contiguous()
    make_folder(out)
    with written_whole(out / "model.safetensors") as part:
        save_file(state, part, metadata={"format": "pt"})
    write_json(out / "tokenizer.json", _tokenizer(content, kept, length), indent=None)
    sizes = {name: about[name] for name in SIZES if name in about}
    sizes |= {"vocab_size": len(kept), "max_position_embeddings": length}
    write_json(out / "config.json", {"model_type": "bert", **sizes})
    return len(kept)


def _pieces_in_use(content: dict[str, Any], captions: Iterable[str]) -> dict[str, int]:
    """The pieces to keep and their old ids, by rising id."""
    vocabulary: dict[str, int] = content["model"]["vocab"]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    used = {token["content"] for token in content["added_tokens"]}
    used |= {piece for piece in vocabulary if len(piece.removeprefix(PREFIX)) == 1 and piece.isascii()}
    for caption in set(captions):
        used.update(tokenizer.encode(caption).tokens)
    return dict(sorted(((piece, vocabulary[piece]) for piece in used), key=lambda pair: pair[1]))


def _tokenizer(content: dict[str, Any], kept: dict[str, int], length: int) -> dict[str, Any]:
    """tokenizer.json with the kept pieces, numbered anew."""
    numbers = {piece: number for number, piece in enumerate(kept)}
    content["model"]["vocab"] = numbers
    for token in content["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for name, token in content["post_processor"]["special_tokens"].items():
        token["ids"] = [numbers[name]]
    content["truncation"]["max_length"] = length
    content["padding"]["strategy"] = "BatchLongest"
    return content
