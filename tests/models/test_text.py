"""The text encoder: padding, and ready-made encoders of transformers in its place."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2S, MPS2SConfig
from nuwa_lip.models.bert import BertText
from nuwa_lip.models.text import ReadyMadeText, describe, ready_made, text_padding

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 40, "max_position_embeddings": 20}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 4}
IDS = torch.tensor([[5, 6, 7, 2, 0, 0], [5, 9, 2, 0, 0, 0]])


def make_clip(kind: str = "CLIPTextModel") -> Any:
    config = transformers.CLIPTextConfig(**SIZES, projection_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    return getattr(transformers, kind)(config).eval()


def make_t5() -> Any:
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=99, d_model=32, d_ff=40, num_layers=2, num_heads=4, d_kv=8)
    return transformers.T5EncoderModel(config).eval()


def make_bert() -> Any:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False).eval()


MAKERS = {
    "bert": make_bert,
    "clip": make_clip,
    "clip with projection": lambda: make_clip("CLIPTextModelWithProjection"),
    "t5": make_t5,
}


@pytest.fixture(scope="module", params=MAKERS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, MPS2S]:
    """A text model, and an MP-S2S around it."""
    model = MAKERS[request.param]()
    return model, MPS2S.with_text_encoder(MPS2SConfig.preset("tiny"), model).eval()


def states(mps2s: MPS2S, ids: Tensor) -> Tensor:
    assert isinstance(mps2s.text, BertText | ReadyMadeText)
    return mps2s.text(ids, text_padding(ids, 0))


def test_padding_is_the_trailing_run_only() -> None:
    ids = torch.tensor([[1, 0, 5, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    expected = [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert text_padding(ids, 0).int().tolist() == expected
    assert text_padding(ids, 5).int().tolist() == [[0] * 5, [0] * 5, [0, 0, 0, 0, 1]]


@torch.no_grad()
def test_the_text_model_works_as_it_did_before(pair: tuple[Any, MPS2S]) -> None:
    model, mps2s = pair
    assert (mps2s.config.text_vocab, mps2s.config.text_length) == (
        99,
        32 if mps2s.config.text_encoder["model_type"] == "t5" else 20,  # type: ignore[index]
    )
    before = model(input_ids=IDS, attention_mask=(IDS != 0).long()).last_hidden_state
    real = IDS != 0
    torch.testing.assert_close(states(mps2s, IDS)[real], before[real], atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_is_rebuilt_from_its_configuration_and_weights(pair: tuple[Any, MPS2S]) -> None:
    _, mps2s = pair
    values = json.loads(json.dumps(dataclasses.asdict(mps2s.config)))
    with torch.device("meta"):
        again = MPS2S(MPS2SConfig(**values))
    again.load_state_dict(mps2s.state_dict(), assign=True)
    assert again.config == mps2s.config
    again.eval().to("cpu")  # nothing may be left on the meta device
    assert not any(value.is_meta for value in (*again.parameters(), *again.buffers()))
    assert torch.equal(states(again, IDS), states(mps2s, IDS))


@torch.no_grad()
def test_it_makes_the_logits_follow_the_caption(pair: tuple[Any, MPS2S]) -> None:
    _, mps2s = pair
    hole = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hole[..., 2:5, 3:6] = True
    pixels = hole.repeat_interleave(4, 2).repeat_interleave(4, 3)
    tokens = torch.randint(64, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    image = torch.zeros(1, 3, 32, 32)

    def run(ids: Tensor) -> Tensor:
        return mps2s(ids, image, pixels, tokens, hole)[0]

    assert not torch.allclose(run(IDS[:1]), run(IDS[1:]), atol=1e-4)
    torch.testing.assert_close(run(IDS[:1]), run(IDS[:1, :4]), atol=1e-5, rtol=0)


def test_gradients_reach_the_text_model(pair: tuple[Any, MPS2S]) -> None:
    _, mps2s = pair
    states(mps2s, IDS).sum().backward()
    assert isinstance(mps2s.text, BertText | ReadyMadeText)
    assert any(p.grad is not None and p.grad.any() for p in mps2s.text.parameters())
    mps2s.zero_grad()


def test_other_models_are_refused() -> None:
    with pytest.raises(InputError, match="'distilbert'"):
        config = transformers.DistilBertConfig(vocab_size=9, dim=8, hidden_dim=8, n_layers=1, n_heads=1)
        MPS2S.with_text_encoder(MPS2SConfig.preset("tiny"), transformers.DistilBertModel(config))
    with pytest.raises(InputError, match="'gpt2'"):
        ready_made({"model_type": "gpt2"})


def test_a_bert_that_cannot_be_rebuilt_is_refused() -> None:
    description = describe(make_bert())
    with pytest.raises(InputError, match="hidden_act"):
        BertText({**description, "hidden_act": "relu"})
    with pytest.raises(InputError, match="no layer_norm_eps"):
        BertText({name: value for name, value in description.items() if name != "layer_norm_eps"})
    with pytest.raises(InputError, match="lack"):
        BertText(description).load_bert({})


def test_without_a_text_perspective_there_is_no_place_for_one() -> None:
    config = dataclasses.replace(MPS2SConfig.preset("tiny"), perspectives=("pixels",))
    with pytest.raises(InputError, match="add 'text'"):
        MPS2S.with_text_encoder(config, make_t5())
