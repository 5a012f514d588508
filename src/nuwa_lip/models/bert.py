"""A BERT text encoder in plain PyTorch, so that a model with one needs no `transformers` (Devlin et al. 2019).

Legend: B batch, T word pieces, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nuwa_lip.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_eps",
)
"""What of transformers' `BertConfig` decides the network."""


class BertText(nn.Module):
    """Word pieces with learned positions through post-norm blocks: int64 [B, T] → [B, T, D].

    Args:
        description: the fields of `SIZES`, named as in transformers' `BertConfig`.

    Raises:
        InputError: a field is missing, or the activation is not GELU.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        missing = [name for name in SIZES if name not in description]
        if missing:
            raise InputError(f"text_encoder has no {missing[0]}; it must have {', '.join(SIZES)}")
        if description.get("hidden_act", "gelu") != "gelu":
            raise InputError(f"text_encoder's hidden_act is {description['hidden_act']!r}; only 'gelu' is supported")
        vocab, width, layers, heads, hidden, length, eps = (description[name] for name in SIZES)
        self.width: int = width
        self.embedding = nn.Embedding(vocab, width)
        self.position = nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, hidden, dropout=0.0, activation="gelu", layer_norm_eps=eps, batch_first=True
            )
            for _ in range(layers)
        )

    def forward(self, text_ids: Tensor, padding: Tensor) -> Tensor:
        """Read captions, int64 [B, T] → states [B, T, D]; `padding` (bool [B, T]) is not attended to."""
        x = self.norm(self.embedding(text_ids) + self.position.weight[: text_ids.shape[1]])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        return x

    def load(self, model: PreTrainedModel) -> None:
        """Copy the weights of transformers' `BertModel`."""
        self.load_bert(model.state_dict())

    def load_bert(self, state: Mapping[str, Tensor]) -> None:
        """Copy weights under the names that transformers' `BertModel` gives them.

        Raises:
            InputError: a weight is missing.
        """
        try:
            self.load_state_dict(_renamed(state, len(self.layers)))
        except KeyError as error:
            raise InputError(f"the text encoder's weights lack {error.args[0]}; it is not a BERT") from error


def _renamed(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights under this module's names; every piece is of type 0, so that type joins the positions."""
    found = {
        "embedding.weight": state["embeddings.word_embeddings.weight"],
        "position.weight": state["embeddings.position_embeddings.weight"]
        + state["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": state["embeddings.LayerNorm.weight"],
        "norm.bias": state["embeddings.LayerNorm.bias"],
    }
    names = {
        "self_attn.out_proj.": "attention.output.dense.",
        "norm1.": "attention.output.LayerNorm.",
        "linear1.": "intermediate.dense.",
        "linear2.": "output.dense.",
        "norm2.": "output.LayerNorm.",
    }
    for layer in range(layers):
        ours, theirs = f"layers.{layer}.", f"encoder.layer.{layer}."
        for kind in ("weight", "bias"):
            found |= {f"{ours}{name}{kind}": state[f"{theirs}{old}{kind}"] for name, old in names.items()}
            joined = [state[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(joined)
    return found
