"""Meissonic's transformer, put together from diffusers' own blocks under the names of its published weights.

Fourteen blocks in which words and image tokens attend to one another but have weights of their own, as in FLUX, then
28 with shared weights; the grid may be halved before them and doubled after them. Unlike aMUSEd's it is told the step.

Legend: B captions, h w token grid, N tokens within the blocks, T words, D width, V codes.
"""

from typing import Any

import torch
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings, TimestepEmbedding, get_timestep_embedding
from diffusers.models.normalization import RMSNorm
from diffusers.models.resnet import Downsample2D, Upsample2D
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from diffusers.models.unets.uvit_2d import ConvMlmLayer, UVit2DConvEmbed
from torch import Tensor, nn

from nuwa_lip.painters.masked_token import MaskedToken
from nuwa_lip.sampling import Sampling

EPS, CONDITION = 1e-6, 256
"""Of all norms; channels of each number that the picture is said to have, such as its size."""


class Meissonic(MaskedToken):
    """Holds a Meissonic; arguments as for `MaskedToken`."""

    usual = Sampling(guidance_scale=9.0, num_inference_steps=64, schedule="confidence")  # its makers' settings

    def _network(self, tokens: Tensor, hidden: Tensor, pooled: Tensor, said: Tensor, left: int) -> Tensor:
        return self.transformer(tokens, hidden, pooled, said, left)


class MeissonicTransformer(nn.Module):
    """Predicts all tokens from those that are known and a caption.

    Args:
        config: as the published config.json has it.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        heads, head = config["num_attention_heads"], config["attention_head_dim"]
        D, pooled, V = heads * head, config["pooled_projection_dim"], config["codebook_size"]
        resample: dict[str, Any] = {"use_conv": True, "padding": 0, "kernel_size": 2, "norm_type": "rms_norm"}
        resample |= {"eps": EPS, "elementwise_affine": True, "bias": False}
        self.embed = UVit2DConvEmbed(D, D, config["vocab_size"], True, EPS, False)
        self.down_block, self.up_block = nn.Module(), nn.Module()
        if config["downsample"]:
            self.down_block.downsample = Downsample2D(D, name="Conv2d_0", **resample)
        if config["upsample"]:
            del resample["use_conv"]
            self.up_block.upsample = Upsample2D(D, use_conv_transpose=True, name="conv", interpolate=False, **resample)
        self.context_embedder = nn.Linear(config["joint_attention_dim"], D)
        self.encoder_proj_layer_norm = RMSNorm(D, EPS, True)
        self.cond_embed = TimestepEmbedding(5 * CONDITION + pooled, D, sample_proj_bias=False)
        self.time_text_embed = CombinedTimestepTextProjEmbeddings(D, pooled)
        self.pos_embed = FluxPosEmbed(theta=10000, axes_dim=config["axes_dims_rope"])
        self.project_to_hidden_norm, self.project_to_hidden = RMSNorm(D, EPS, True), nn.Linear(D, D, bias=False)
        self.transformer_blocks = nn.ModuleList(
            FluxTransformerBlock(D, heads, head) for _ in range(config["num_layers"])
        )
        self.single_transformer_blocks = nn.ModuleList(
            FluxSingleTransformerBlock(D, heads, head) for _ in range(config["num_single_layers"])
        )
        self.project_from_hidden_norm, self.project_from_hidden = RMSNorm(D, EPS, True), nn.Linear(D, D, bias=False)
        self.mlm_layer = ConvMlmLayer(D, D, False, True, EPS, V)

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the weights."""
        return self.project_to_hidden.weight.dtype

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.project_to_hidden.weight.device

    def forward(self, tokens: Tensor, hidden: Tensor, pooled: Tensor, said: Tensor, left: int) -> Tensor:
        """Compute logits [B, V, h, w].

        Args:
            tokens: int64 [B, h, w].
            hidden: [B, T, D'], words.
            pooled: [B, D''], the caption as a whole.
            said: [B, 5], size, crop and aesthetic score.
            left: number of steps that follow.
        """
        numbers = get_timestep_embedding(said.flatten(), CONDITION, flip_sin_to_cos=True, downscale_freq_shift=0)
        told = torch.cat([pooled, numbers.view(len(tokens), -1)], 1).to(self.dtype)
        time = torch.tensor([left], device=tokens.device).to(self.dtype) * 1000
        condition = self.time_text_embed(time, self.cond_embed(told).to(hidden.dtype))
        words = self.encoder_proj_layer_norm(self.context_embedder(hidden))
        x = self.embed(tokens)
        x = self.down_block.downsample(x) if hasattr(self.down_block, "downsample") else x  # type: ignore[operator]
        h, w = x.shape[2:]
        x = self.project_to_hidden(self.project_to_hidden_norm(x.flatten(2).mT))  # [B, N, D]

        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).view(-1, 3)
        rotary = self.pos_embed(torch.cat([torch.zeros(words.shape[1], 3), places]).to(x.device))
        for block in [*self.transformer_blocks, *self.single_transformer_blocks]:
            words, x = block(x, words, condition, rotary)

        x = self.project_from_hidden(self.project_from_hidden_norm(x)).mT.unflatten(2, (h, w))
        x = self.up_block.upsample(x) if hasattr(self.up_block, "upsample") else x  # type: ignore[operator]
        return self.mlm_layer(x)
