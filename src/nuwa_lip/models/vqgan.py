"""The networks of a `DFVQGAN`: encoder with relative estimation (Eq. 9), decoder with connections (Eq. 11).

With `mask=None` every module is the plain VQGAN to the last bit. Inside the encoder what stands in the hole
is never used: norms and attention select known positions themselves, a 3 x 3 convolution gets an input whose
hole is blank, and 1 x 1 convolutions carry nothing from one position to another.

Legend: B batch, H W pixels, i level (0 = finest), C_i its channels, T the last level, N positions of a level,
n_z width of a code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models import defect_free
from nuwa_lip.models.defect_free import Conv2d, GroupNorm, blank
from nuwa_lip.models.dfvqgan_config import DFVQGANConfig


class ResidualBlock(nn.Module):
    """A residual block: norm, swish and convolution, twice, added to the input.

    Args:
        c_in, c_out: channels before and after.
        groups: of the norms.
    """

    def __init__(self, c_in: int, c_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, c_in, eps=1e-6)
        self.conv1 = Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = GroupNorm(groups, c_out, eps=1e-6)
        self.conv2 = Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x [B, C_in, H, W] → [B, C_out, H, W]; mask bool [B, 1, H, W], True = defective."""
        h = self.conv1(self.norm1.swish(x, mask))
        h = self.conv2(self.norm2.swish(h, mask))
        return h + (x if self.shortcut is None else self.shortcut(x))


class AttentionBlock(nn.Module):
    """Single-head attention over all positions (Eq. 6)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.q = Conv2d(channels, channels, 1)
        self.k = Conv2d(channels, channels, 1)
        self.v = Conv2d(channels, channels, 1)
        self.out = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x [B, C, H, W] → [B, C, H, W]; mask bool [B, 1, H, W], True = defective."""
        h = self.norm(x.contiguous(), mask).flatten(2).mT  # [B, N, C]
        q, k, v = (_pointwise(f, h)[:, None] for f in (self.q, self.k, self.v))  # [B, 1, N, C]
        h = defect_free.attention(q, k, v, None if mask is None else mask.flatten(1))
        h = _pointwise(self.out, h[:, 0]).mT.reshape(x.shape)  # with channels last in memory
        return (h if mask is None else h.contiguous()) + x


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a 1 x 1 convolution as a matrix product on [B, N, C]: that gives the last bits of diffusers' attention."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


class Downsample(nn.Module):
    """Halving by a 3 x 3 convolution with stride 2; the odd row and column of padding stand right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] → [B, C, H / 2, W / 2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubling by repeated pixels, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] → [B, C, 2 H, 2 W]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Blocks(nn.ModuleList):
    """Modules that take (x, mask), one after another."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run all of them on x [B, C, H, W]; mask bool [B, 1, H, W], True = defective."""
        for block in self:
            x = block(x, mask)
        return x


def _level(c_in: int, c_out: int, blocks: int, attend: bool, groups: int) -> Blocks:
    """Build the residual blocks of a level, each followed by attention if wanted; the first changes the width."""
    modules: list[nn.Module] = []
    for n in range(blocks):
        modules.append(ResidualBlock(c_in if n == 0 else c_out, c_out, groups))
        if attend:
            modules.append(AttentionBlock(c_out, groups))
    return Blocks(modules)


def _mirrored_level(c_in: int, c_out: int, blocks: int, attend: bool, groups: int) -> Blocks:
    """Build `_level` backwards: attention before each block, and the last one changes the width."""
    modules: list[nn.Module] = []
    for n in range(blocks):
        if attend:
            modules.append(AttentionBlock(c_in, groups))
        modules.append(ResidualBlock(c_in, c_out if n == blocks - 1 else c_in, groups))
    return Blocks(modules)


def _middle(channels: int, attend: bool, groups: int) -> Blocks:
    first, last = (ResidualBlock(channels, channels, groups) for _ in range(2))
    return Blocks([first, AttentionBlock(channels, groups), last] if attend else [first, last])


class Encoder(nn.Module):
    """E and E^DF: `stage` is a step e_1 ... e_T of Eq. 9, each ending at a halving, and the last one at z."""

    def __init__(self, config: DFVQGANConfig) -> None:
        super().__init__()
        c = config.channels
        self.conv_in = Conv2d(3 * config.patch**2, c[0], 3, padding=1)
        self.levels = nn.ModuleList(
            _level(c[max(i - 1, 0)], c[i], blocks, i in config.attention_levels, config.groups)
            for i, blocks in enumerate(config.blocks("encoder"))
        )
        self.downs = nn.ModuleList(Downsample(c[i]) for i in range(len(c) - 1))
        self.middle = _middle(c[-1], config.mid_attention, config.groups)
        self.norm_out = GroupNorm(config.groups, c[-1], eps=1e-6)
        self.conv_out = Conv2d(c[-1], config.latent_channels, 3, padding=1)
        self.to_code = Conv2d(config.latent_channels, config.codebook_dim, 1)

    def blank(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Write zeros into the hole of a level's output [B, C, H, W], which nothing else reads."""
        return blank(h, mask)

    def stage(self, i: int, h: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run e_{i+1}, level i on h_i at its resolution → (h_{i+1} or z, the activation for the connection).

        Args:
            i: the level.
            h: h_i, [B, C_i, H, W]; cells of the image at level 0.
            mask: m_i, bool [B, 1, H, W], True = defective; with one the activation's hole is blank.
        """
        if i == 0:
            h = self.conv_in(h, mask)
        h = activation = self.blank(self.levels[i](h, mask), mask)
        if i < len(self.downs):
            return self.downs[i](h), activation
        h = self.middle(h, mask)
        return self.to_code(self.conv_out(self.norm_out.swish(h, mask))), activation


class Refinement(nn.Module):
    """A correction by convolutions at full resolution, so that cells of several pixels leave no grid.

    Zero at first: a decoder whose weights are from before begins as it was.

    Args:
        features: C_0, channels of the cells' features.
        channels: of the convolutions at full resolution.
        patch: pixels on the side of a cell.
    """

    def __init__(self, features: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.features = nn.Conv2d(features, channels, 1)
        self.conv1 = nn.Conv2d(3 + channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, picture: Tensor, features: Tensor) -> Tensor:
        """Refine pictures [B, 3, H, W] with their cells' features [B, C_0, H / patch, W / patch] → better pictures."""
        h = F.interpolate(self.features(features), scale_factor=float(self.patch), mode="nearest")
        h = F.silu(self.conv1(torch.cat([picture, h], 1)))
        return picture + self.conv_out(F.silu(self.conv2(h)))


class Decoder(nn.Module):
    """G: plain operations; known activations of the encoder are mixed in at each connected level (Eq. 12)."""

    def __init__(self, config: DFVQGANConfig) -> None:
        super().__init__()
        self.mirrored = config.mirrored_decoder
        c = config.decoder_channels or config.channels
        finer, coarser = (c[0], *c[:-1]), (*c[1:], c[-1])
        ends = (c, finer) if self.mirrored else (coarser, c)  # widths that each level starts and ends with
        self.from_code = nn.Conv2d(config.codebook_dim, config.latent_channels, 1)
        self.conv_in = nn.Conv2d(config.latent_channels, c[-1], 3, padding=1)
        self.middle = _middle(c[-1], config.mid_attention, config.groups)
        build = _mirrored_level if self.mirrored else _level
        self.levels = nn.ModuleList(
            build(start, end, blocks, i in config.attention_levels, config.groups)
            for i, (start, end, blocks) in enumerate(zip(*ends, config.blocks("decoder"), strict=True))
        )
        # each keeps the width of the level that it leaves
        self.ups = nn.ModuleList(Upsample(width) for width in (c[:-1] if self.mirrored else c[1:]))
        self.norm_out = GroupNorm(config.groups, c[0], eps=1e-6)
        self.patch = config.patch
        self.conv_out = nn.Conv2d(c[0], 3 * config.patch**2, 3, padding=1)
        wanted = config.refinement > 0
        self.refinement = Refinement(c[0], config.refinement, config.patch) if wanted else None

    def forward(
        self, codes: Tensor, connect: Callable[[int, Tensor], Tensor], paste: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Decode codes [B, n_z, h, w] → pictures [B, 3, H, W].

        Args:
            codes: of the tokens.
            connect: mixes the encoder's known activations into level i's C_i features (Eq. 12): (i, h) → h.
            paste: puts the known pixels into a picture, for the refinement to see.
        """
        h = self.middle(self.conv_in(self.from_code(codes)))
        for i in reversed(range(len(self.levels))):
            h = self.levels[i](connect(i, h)) if self.mirrored else connect(i, self.levels[i](h))
            if i > 0:
                h = self.ups[i - 1](h)
        h = self.norm_out.swish(h)
        cells = self.conv_out(h)
        picture = cells if self.patch == 1 else F.pixel_shuffle(cells, self.patch)
        return picture if self.refinement is None else self.refinement(paste(picture), h)
