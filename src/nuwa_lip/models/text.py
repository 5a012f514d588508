"""The text encoder E^t: our own transformer, or a ready-made one of `transformers` (BERT, CLIP, T5) in its place.

Legend: B batch, T text, D width of the text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.models.bert import SIZES, BertText
from nuwa_lip.models.transformer import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READY_MADE = ("bert", "clip_text_model", "t5")
"""`model_type` of the models of transformers that can be used."""


def text_padding(text_ids: Tensor, pad_id: int) -> Tensor:
    """Find the padding, bool [B, T], True = padding: the trailing run of `pad_id`, never the first position."""
    words = (text_ids != pad_id).flip(1).cumsum(1).flip(1)  # words from here on
    padding = words == 0
    padding[:, :1] = False  # attention over nothing has no value
    return padding


class TextTransformer(nn.Module):
    """Word pieces with learned positions through a transformer: int64 [B, T] → [B, T, D].

    Args:
        vocab: most different word pieces.
        length: most word pieces of a caption.
        encoder: the transformer.
        width: D.
    """

    def __init__(self, vocab: int, length: int, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab, width)
        self.position = nn.Embedding(length, width)
        self.encoder = encoder

    def forward(self, text_ids: Tensor, padding: Tensor) -> Tensor:
        """Encode int64 [B, T] → [B, T, D]; padding as of `text_padding`."""
        x = self.embedding(text_ids) + self.position.weight[: text_ids.shape[1]]
        return self.encoder(x, ~padding[:, None, None])


def ready_made(description: dict[str, Any]) -> BertText | ReadyMadeText:
    """Build a text encoder from a description that `describe` has given, with its first weights.

    Raises:
        InputError: it is of a kind that is not supported, or that needs transformers, which is not installed.
    """
    kind = description.get("model_type")
    if kind not in READY_MADE:
        raise InputError(f"text_encoder is of type {kind!r}; supported are {', '.join(READY_MADE)}")
    return BertText(description) if kind == "bert" else ReadyMadeText(description)


class ReadyMadeText(nn.Module):
    """CLIP's or T5's text encoder by transformers, rebuilt from its description without a network: [B, T] → [B, T, D].

    Args:
        description: what `describe` returns.

    Raises:
        InputError: transformers is not installed.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__()
        try:
            from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel
        except ImportError as error:
            raise InputError("this text encoder needs transformers: pip install 'nuwa-lip[transformers]'") from error
        self.clip = description["model_type"] == "clip_text_model"
        model: PreTrainedModel
        if self.clip:
            model = CLIPTextModel(CLIPTextConfig.from_dict(description))
        else:
            model = T5EncoderModel(T5Config.from_dict(description))
        self.model = _stack(model)
        if self.clip:
            # positions are given in `forward`: a buffer that no file holds would stay on the meta device
            self.model.get_submodule("embeddings").register_buffer("position_ids", None)
        self.width: int = model.config.hidden_size  # T5 calls it d_model and answers to both

    def forward(self, text_ids: Tensor, padding: Tensor) -> Tensor:
        """Encode int64 [B, T] → [B, T, D]; padding as of `text_padding`."""
        options = {}
        if self.clip:
            options["position_ids"] = torch.arange(text_ids.shape[1], device=text_ids.device)[None]
        output = self.model(input_ids=text_ids, attention_mask=(~padding).long(), **options)
        return output.last_hidden_state

    def load(self, model: PreTrainedModel) -> None:
        """Copy the weights of the model that was described."""
        self.model.load_state_dict(_stack(model).state_dict())


def _stack(model: PreTrainedModel) -> nn.Module:
    """Return the layers alone: a model around them may add a projection, or name T5's embedding a second time."""
    stack = model.encoder if model.config.model_type == "t5" else getattr(model, "text_model", model)
    assert isinstance(stack, nn.Module)
    return stack


def describe(model: PreTrainedModel) -> dict[str, Any]:
    """Return the configuration of a text model of transformers as `MPS2SConfig.text_encoder` keeps it.

    Args:
        model: a `BertModel`, `CLIPTextModel`, `CLIPTextModelWithProjection` or `T5EncoderModel`.

    Raises:
        InputError: it is of another kind.
    """
    if model.config.model_type not in READY_MADE:
        raise InputError(
            f"a text encoder of type {model.config.model_type!r} cannot be used; "
            "give a BertModel, a CLIPTextModel or a T5EncoderModel"
        )
    if model.config.model_type == "bert":
        return describe_bert(model.config.to_dict())
    passing = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "transformers_version")
    return {key: value for key, value in model.config.to_dict().items() if key not in passing}


def describe_bert(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `describe` does, from the content of a BERT's config.json."""
    return {"model_type": "bert", **{name: config[name] for name in SIZES if name in config}}
