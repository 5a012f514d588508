"""A ready-made BERT as the text encoder of stage 2: it is frozen, so that its states of a caption are computed once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip.disk import read_object
from nuwa_lip.disk.tensors import read_tensors
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.bert import BertText
from nuwa_lip.models.text import describe_bert
from nuwa_lip.tokenizer import CaptionTokenizer


def with_bert(config: MPS2SConfig, folder: Path) -> MPS2SConfig:
    """The configuration whose captions are read by the BERT in a folder.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    description = describe_bert(read_object(folder / "config.json"))
    return dataclasses.replace(
        config,
        text_encoder=description,
        text_vocab=description["vocab_size"],
        text_length=description["max_position_embeddings"],
        pad_id=CaptionTokenizer.from_file(folder / "tokenizer.json").pad_id,
    )


def start_from_bert(model: MPS2S, folder: Path) -> CaptionTokenizer:
    """Give a model the weights of a BERT → its tokenizer."""
    assert isinstance(model.text, BertText)
    model.text.load_bert(read_tensors(folder / "model.safetensors"))
    return CaptionTokenizer.from_file(folder / "tokenizer.json")


class Remembered:
    """What a frozen text encoder says of captions, each worked out once.

    Args:
        encode: word pieces int64 [B, T] and their padding bool [B, T] → states [B, T, D].
    """

    def __init__(self, encode: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.encode = encode
        self.states: dict[tuple[int, ...], Tensor] = {}

    @torch.no_grad()
    def __call__(self, text_ids: Tensor, padding: Tensor) -> Tensor:
        """Give the states of captions, [B, T, D]: remembered ones, and those of new captions worked out together."""
        captions = [tuple(row[~hidden].tolist()) for row, hidden in zip(text_ids, padding, strict=True)]
        new = [i for i, caption in enumerate(captions) if caption not in self.states]
        if new:  # together: alone, each would read all weights for a few pieces
            for i, found in zip(new, self.encode(text_ids[new], padding[new]), strict=True):
                self.states[captions[i]] = found[: len(captions[i])].half()
        states = [self.states[caption].float() for caption in captions]
        return torch.stack([F.pad(one, (0, 0, 0, text_ids.shape[1] - len(one))) for one in states])
