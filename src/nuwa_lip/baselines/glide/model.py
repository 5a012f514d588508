"""GLIDE for inpainting (Nichol et al. 2021), small enough to be trained beside our own models.

A caption goes through a transformer. A base network, conditioned on the known pixels and the mask, turns noise into a
small picture, step by step; a super-resolution network, conditioned on that picture too, does the same at full
size. Both are diffusers' UNets: they attend to the caption's pieces, and its last one is added to the time's embedding.

Legend: B batch, T text, D width of the text encoder, S side of a network's square.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.baselines.glide.config import GLIDEConfig
from nuwa_lip.errors import InputError
from nuwa_lip.models.text import TextTransformer, text_padding
from nuwa_lip.models.transformer import Encoder, initialise


class Conditioning(NamedTuple):
    """What a network sees of the picture beside its noisy version."""

    known: Tensor
    """[B, 3, S, S] in [-1, 1], zero in the hole."""
    mask: Tensor
    """bool [B, 1, S, S], True = to repaint."""
    coarse: Tensor | None = None
    """[B, 3, S, S], the base network's picture enlarged; None for the base network itself."""


class Text(NamedTuple):
    """An encoded caption."""

    states: Tensor
    """[B, T, D]"""
    words: Tensor
    """bool [B, T], False = padding."""
    whole: Tensor
    """[B, D], the state of the last piece."""


class GLIDE(nn.Module):
    """Text encoder, base network and super-resolution network.

    Raises:
        InputError: diffusers is not installed.
    """

    def __init__(self, config: GLIDEConfig) -> None:
        super().__init__()
        self.config = config
        encoder = Encoder(config.text_layers, config.text_width, config.text_heads, 4.0, config.dropout, 1.0)
        self.text = TextTransformer(config.text_vocab, config.text_length, encoder, config.text_width)
        initialise(self.text)
        self.base = _unet(config, config.base_channels, config.base_attention, config.base_blocks, finer=False)
        self.finer = _unet(config, config.finer_channels, config.finer_attention, config.finer_blocks, finer=True)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.text.embedding.weight.device

    def read(self, text_ids: Tensor) -> Text:
        """Encode captions: word pieces int64 [B, T], padded with `config.pad_id`."""
        padding = text_padding(text_ids, self.config.pad_id)
        states = self.text(text_ids, padding)
        last = (~padding).sum(1) - 1
        return Text(states, ~padding, states[torch.arange(len(states), device=states.device), last])

    def predict(self, text: Text, noisy: Tensor, time: Tensor, condition: Conditioning) -> Tensor:
        """Predict what `config.prediction` names, float32 [B, 3, S, S].

        Args:
            text: the encoded captions.
            noisy: x_t, [B, 3, S, S].
            time: t, int64 [B].
            condition: with `coarse` the super-resolution network predicts.
        """
        parts = [noisy, condition.known, condition.mask.to(noisy.dtype)]
        network = self.base
        if condition.coarse is not None:
            parts.append(condition.coarse)
            network = self.finer
        return network(
            torch.cat(parts, 1).contiguous(memory_format=torch.channels_last),
            time,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.words,
            class_labels=text.whole,
            return_dict=False,
        )[0].float()

    def forward(
        self, text_ids: Tensor, base: tuple[Tensor, Tensor, Conditioning], finer: tuple[Tensor, Tensor, Conditioning]
    ) -> tuple[Tensor, Tensor]:
        """Run one training pass of both networks.

        Args:
            text_ids: int64 [B, T].
            base: (noisy, time, condition) of the base network.
            finer: those of the super-resolution network, for the batch's first photos only.
        """
        text = self.read(text_ids)
        count = len(finer[0])
        first = Text(*(part[:count] for part in text))
        return self.predict(text, *base), self.predict(first, *finer)


def _unet(
    config: GLIDEConfig, channels: tuple[int, ...], attention: tuple[int, ...], blocks: int, *, finer: bool
) -> nn.Module:
    """Make one of the networks: x_t, known pixels and mask in (and the coarse picture), a picture out."""
    unet, _ = need_diffusers()
    attends = [i in attention for i in range(len(channels))]
    return unet(
        sample_size=config.resolution if finer else config.base_resolution,
        in_channels=10 if finer else 7,
        out_channels=3,
        block_out_channels=channels,
        layers_per_block=blocks,
        down_block_types=tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attends),
        mid_block_type="UNetMidBlock2DCrossAttn" if any(attends) else "UNetMidBlock2D",
        up_block_types=tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attends)),
        attention_head_dim=tuple(max(1, c // config.head_width) for c in channels),  # diffusers means their number
        norm_num_groups=config.groups,
        cross_attention_dim=config.text_width,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=config.text_width,
        dropout=config.dropout,
    )


def need_diffusers() -> tuple[Any, Any]:
    """Import diffusers' UNet and DDIM scheduler.

    Raises:
        InputError: it is not installed.
    """
    try:
        from diffusers import DDIMScheduler, UNet2DConditionModel
    except ImportError as error:
        raise InputError("GLIDE needs diffusers: pip install 'nuwa-lip[baselines]'") from error
    return UNet2DConditionModel, DDIMScheduler


def reduce_known(image: Tensor, mask: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Average the known pixels, [B, ., S, S] → [B, ., S/factor, S/factor], and mark True where any pixel was hole.

    Args:
        image: [B, 3, S, S]; anything in the hole.
        mask: bool [B, 1, S, S].
    """
    share = F.avg_pool2d((~mask).float(), factor)
    means = F.avg_pool2d(image.masked_fill(mask, 0), factor) / share.clamp(min=1e-6)
    hole = share < 1 - 0.5 / factor**2
    return means.masked_fill(hole, 0), hole


def enlarge(image: Tensor, factor: int) -> Tensor:
    """Enlarge the base network's picture for the super-resolution network."""
    return F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
