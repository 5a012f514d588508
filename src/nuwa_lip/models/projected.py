"""A projected discriminator (Sauer et al. 2021): it judges pictures by the features of a fixed, pretrained network.

EfficientNet-Lite0, the best of the networks which that paper tried, gives maps at three scales. Fixed random
convolutions mix their channels, and the scales from coarse to fine, so that no head can rely on a few features. What
learns is a small head on each scale, whose spectral norm bounds how steep it is, and a small PatchGAN on the pixels,
whose group norms lift fine texture, which is faint beside the rest of a picture.

A model that was trained with this discriminator cannot be judged by EfficientNet-Lite0 afterwards.

Legend: B batch, H W picture, l scale (0 = finest), C_l channels of its map.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

CELL = 16
"""Pixels on the side of what a head judges at a time by features."""
EPSILON = 1e-3
"""ε of EfficientNet's batch norms."""
NORM = ("weight", "bias", "running_mean", "running_var")
"""The parameters and statistics of such a norm."""


class Group(NamedTuple):
    """Blocks of one width in EfficientNet; the first of them has the stride."""

    channels: int
    blocks: int
    kernel: int
    stride: int


GROUPS = (Group(24, 2, 3, 2), Group(40, 2, 5, 2), Group(80, 3, 3, 2), Group(112, 3, 5, 1))
MAPS = {0: 24, 1: 40, 3: 112}
"""The groups whose last map is judged and their channels: at a quarter, an eighth and a sixteenth of the picture."""


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does it: what is odd stands right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W] with stride, padded right and below."""
        sides = [_padding(n, self.kernel_size[0], self.stride[0]) for n in (x.shape[3], x.shape[2])]
        return super().forward(F.pad(x, (*sides[0], *sides[1])))


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return whole // 2, whole - whole // 2


class InvertedResidual(nn.Module):
    """EfficientNet's block: widen sixfold by 1 x 1, filter each channel by itself, narrow by 1 x 1.

    Args:
        c_in: C, channels of the input.
        c_out: C', channels of the result.
        kernel: width of the filters.
        stride: of the filters; with 1, and C' = C, the input is added.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and c_in == c_out
        self.conv_pw = nn.Conv2d(c_in, 6 * c_in, 1)
        self.conv_dw = SameConv(6 * c_in, 6 * c_in, kernel, stride, groups=6 * c_in)
        self.conv_pwl = nn.Conv2d(6 * c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Expand, filter each channel, project: [B, C, H, W] → [B, C', H', W']."""
        h = self.conv_pwl(F.relu6(self.conv_dw(F.relu6(self.conv_pw(x)))))
        return x + h if self.shortcut else h


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to a sixteenth of the picture, its batch norms folded into the convolutions.

    Args:
        state: the weights in timm's names (`tf_efficientnet_lite0`), in any precision; further ones are left out.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, 32, 3, 2)
        self.conv_dw, self.conv_pw = SameConv(32, 32, 3, groups=32), nn.Conv2d(32, 16, 1)
        widths = [16, *(group.channels for group in GROUPS)]
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(
                    InvertedResidual(c_out if n else c_in, c_out, group.kernel, 1 if n else group.stride)
                    for n in range(group.blocks)
                )
            )
            for group, (c_in, c_out) in zip(GROUPS, pairwise(widths), strict=True)
        )
        self._load(state)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of [B, 3, H, W] in [-1, 1], sides multiples of 16: [B, C_l, H / 4 / 2^l, W / 4 / 2^l]."""
        x = (images * 127.5 + 0.5) / 128  # 0 to 255, less 127, divided by 128
        x = self.conv_pw(F.relu6(self.conv_dw(F.relu6(self.conv_stem(x)))))
        found = []
        for i, group in enumerate(self.groups):
            x = group(x)
            if i in MAPS:
                found.append(x)
        return found

    @torch.no_grad()
    def _load(self, state: Mapping[str, Tensor]) -> None:
        _fold(self.conv_stem, state, "conv_stem", "bn1")
        _fold(self.conv_dw, state, "blocks.0.0.conv_dw", "blocks.0.0.bn1")
        _fold(self.conv_pw, state, "blocks.0.0.conv_pw", "blocks.0.0.bn2")
        for i, group in enumerate(self.groups, 1):
            for n, block in enumerate(group.children()):
                for norm, name in enumerate(("conv_pw", "conv_dw", "conv_pwl"), 1):
                    _fold(getattr(block, name), state, f"blocks.{i}.{n}.{name}", f"blocks.{i}.{n}.bn{norm}")


def _fold(conv: nn.Conv2d, state: Mapping[str, Tensor], name: str, norm: str) -> None:
    """Load a convolution that has no bias, and the batch norm after it, as one convolution."""
    weight, bias, mean, variance = (state[f"{norm}.{part}"].float() for part in NORM)
    scale = weight * (variance + EPSILON).rsqrt()
    conv.weight.copy_(state[f"{name}.weight"].float() * scale[:, None, None, None])
    conv.bias.copy_(bias - mean * scale)  # type: ignore[union-attr]


class ProjectedDiscriminator(nn.Module):
    """D: judges cells of 16 pixels by their features at three scales, and cells of 4 by the pixels around them.

    Args:
        features: `EfficientNetLite0`.
        filters: channels of the mixed maps and of the heads.
    """

    def __init__(self, features: nn.Module, filters: int = 64) -> None:
        super().__init__()
        self.features = features
        self.mix_channels = nn.ModuleList(nn.Conv2d(c, filters, 1, bias=False) for c in MAPS.values())
        self.mix_scales = nn.ModuleList(nn.Conv2d(filters, filters, 3, padding=1, bias=False) for _ in range(2))
        for conv in (*self.mix_channels, *self.mix_scales):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")  # type: ignore[arg-type]
            conv.requires_grad_(False)
        self.heads = nn.ModuleList(_head(filters, filters, halvings) for halvings in (2, 1, 0))
        self.pixels = nn.Sequential(
            nn.Conv2d(3, filters // 2, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters // 2, filters, 4, 2, padding=1, bias=False),
            nn.GroupNorm(8, filters),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.GroupNorm(8, filters),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Judge [B, 3, H, W] in [-1, 1] → [B, 4, H / 4, W / 4], high where a head takes a cell for real.

        What is judged of a cell of 16 pixels stands at each cell of 4 in it, so that all heads weigh the same.
        """
        maps = [mix(x) for mix, x in zip(self.mix_channels, self.features(images), strict=True)]
        for i in (1, 0):  # the finer scales see the coarser ones
            maps[i] = maps[i] + F.interpolate(self.mix_scales[i](maps[i + 1]), scale_factor=2.0, mode="nearest")
        coarse = torch.cat([head(x) for head, x in zip(self.heads, maps, strict=True)], 1)
        return torch.cat([F.interpolate(coarse, scale_factor=4.0, mode="nearest"), self.pixels(images)], 1)


def _head(c_in: int, filters: int, halvings: int) -> nn.Sequential:
    """Build a head that halves a map `halvings` times, and judges what is left by 3 x 3."""
    layers: list[nn.Module] = []
    for n in range(halvings):
        layers += [_conv(filters if n else c_in, filters, 4, 2), nn.LeakyReLU(0.2)]
    if not halvings:
        layers += [_conv(c_in, filters, 3, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, _conv(filters, 1, 3, 1))


def _conv(c_in: int, c_out: int, kernel: int, stride: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(c_in, c_out, kernel, stride, padding=1))
