"""Meissonic's transformer: the names of its weights, its grid, and that everything it is told counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.painters.loading import load_painter
from nuwa_lip.painters.meissonic import Meissonic, MeissonicTransformer
from tests.tiny_pipelines import save_meissonic

CONFIG: dict[str, Any] = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
CONFIG |= {"joint_attention_dim": 6, "pooled_projection_dim": 16, "axes_dims_rope": [2, 2, 4], "vocab_size": 40}
CONFIG |= {"codebook_size": 32, "downsample": True, "upsample": True}
NAMES = {
    "down_block.downsample.norm.weight",
    "down_block.downsample.conv.weight",
    "up_block.upsample.conv.weight",
    "embed.embeddings.weight",
    "cond_embed.linear_1.weight",
    "time_text_embed.text_embedder.linear_2.bias",
    "context_embedder.bias",
    "encoder_proj_layer_norm.weight",
    "project_from_hidden.weight",
    "transformer_blocks.0.attn.norm_added_q.weight",
    "transformer_blocks.0.attn.to_add_out.bias",
    "transformer_blocks.0.ff_context.net.0.proj.weight",
    "single_transformer_blocks.0.proj_mlp.weight",
    "single_transformer_blocks.0.attn.norm_k.weight",
    "mlm_layer.conv2.weight",
}
"""Some of those that the published code gives them."""


def random(config: dict[str, Any]) -> MeissonicTransformer:
    torch.manual_seed(0)
    model = MeissonicTransformer(config).eval().requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.mark.parametrize("halved", [True, False])
def test_everything_that_it_is_told_counts(halved: bool) -> None:
    model = random(CONFIG | {"downsample": halved, "upsample": halved})
    assert ("down_block.downsample.conv.weight" in model.state_dict()) == halved
    tokens, said = torch.randint(40, (2, 8, 6)), torch.tensor([[16.0, 16, 0, 0, 6]] * 2)
    given = {"tokens": tokens, "hidden": torch.randn(2, 5, 6), "pooled": torch.randn(2, 16), "said": said, "left": 3}
    logits = model(**given)
    assert logits.shape == (2, 32, 8, 6)
    others = {"tokens": tokens.roll(1, 2), "hidden": given["hidden"] + 1, "pooled": given["pooled"] + 1}
    for name, value in (others | {"said": said + 1, "left": 2}).items():
        assert not torch.allclose(model(**(given | {name: value})), logits, atol=1e-4), name
    alone = model(tokens[:1], given["hidden"][:1], given["pooled"][:1], said[:1], 3)
    assert torch.allclose(alone, logits[:1], atol=1e-5)


def test_weights_have_the_published_names() -> None:
    assert set(random(CONFIG).state_dict()) >= NAMES


def test_a_folder_is_recognised_and_incomplete_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = load_painter(save_meissonic(tmp_path / "model"))
    assert isinstance(painter, Meissonic) and painter.needs.resolution == 1024
    assert (painter.needs.sampling.num_inference_steps, painter.needs.sampling.guidance_scale) == (64, 9)
    config = tmp_path / "model" / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"num_single_layers": 2', '"num_single_layers": 3'))
    with pytest.raises(InputError, match="model cannot be loaded: RuntimeError: .*MeissonicTransformer") as caught:
        load_painter(tmp_path / "model")
    assert "\n" not in str(caught.value)
