"""LlamaGen's and Show-o's tokenizers, stated anew in small: their modules' names, their arithmetic, random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 4


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2) for f in (self.q, self.k, self.v))  # [B, C, N]
        weights = (q.mT @ k * x.shape[1] ** -0.5).softmax(-1)  # [B, N, N]
        return x + self.proj_out((v @ weights.mT).view_as(x))


class Resample(nn.Module):
    """Halving or doubling, as taming-transformers has it."""

    def __init__(self, channels: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0))


class Level(nn.Module):
    """Blocks under the names that the project gives them, with attention behind each, and a step to the next level."""

    def __init__(
        self, names: tuple[str, str], widths: tuple[int, int], blocks: int, attend: bool, step: str | None
    ) -> None:
        super().__init__()
        c_in, c_out = widths
        self.names = names
        setattr(self, names[0], nn.ModuleList(Block(c_in if n == 0 else c_out, c_out) for n in range(blocks)))
        setattr(self, names[1], nn.ModuleList(Attention(c_out) for _ in range(blocks if attend else 0)))
        self.step = step
        if step:
            setattr(self, step, Resample(c_out, step == "downsample"))

    def forward(self, x: Tensor) -> Tensor:
        blocks, attentions = (getattr(self, name) for name in self.names)
        for n, block in enumerate(blocks):
            x = block(x)
            x = attentions[n](x) if len(attentions) else x
        return getattr(self, self.step)(x) if self.step else x


class LlamaGenNet(nn.Module):
    """An encoder or a decoder, whose levels stand in the order in which they run."""

    def __init__(self, channels: list[int], ends: tuple[int, int], encoder: bool) -> None:
        super().__init__()
        last = len(channels) - 1
        order = range(last + 1) if encoder else range(last, -1, -1)
        step, width = "downsample" if encoder else "upsample", channels[0] if encoder else channels[-1]
        self.encoder = encoder
        self.conv_in = nn.Conv2d(ends[0], width, 3, padding=1)
        levels = []
        for i in order:
            final = i == (last if encoder else 0)
            levels.append(
                Level(
                    ("res", "attn"),
                    (width, channels[i]),
                    2 if encoder else 3,
                    i == last,
                    None if final else step,
                )
            )
            width = channels[i]
        self.conv_blocks = nn.ModuleList(levels)
        middle = channels[-1]
        self.mid = nn.ModuleList([Block(middle, middle), Attention(middle), Block(middle, middle)])
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, ends[1], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for module in (*self.conv_blocks, *self.mid) if self.encoder else (*self.mid, *self.conv_blocks):
            x = module(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class LlamaGen(nn.Module):
    """VQ-16 is LlamaGen([128, 128, 256, 256, 512]), VQ-8 LlamaGen([128, 256, 256, 512])."""

    def __init__(self, channels: list[int], codes: int = 64, dim: int = 4, latents: int = 8) -> None:
        super().__init__()
        self.encoder = LlamaGenNet(channels, (3, latents), True)
        self.decoder = LlamaGenNet(channels, (latents, 3), False)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(codes, dim)
        self.quantize.register_buffer("codebook_used", torch.zeros(100))
        self.quant_conv, self.post_quant_conv = nn.Conv2d(latents, dim, 1), nn.Conv2d(dim, latents, 1)

    def latents(self, image: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(image))

    def tokens(self, latents: Tensor) -> Tensor:
        codes = F.normalize(self.quantize.embedding.weight, dim=-1)
        return torch.einsum("bchw,vc->bhwv", F.normalize(latents, dim=1), codes).argmax(-1)

    def decode(self, tokens: Tensor) -> Tensor:
        codes = F.normalize(self.quantize.embedding.weight, dim=-1)[tokens]
        return self.decoder(self.post_quant_conv(codes.permute(0, 3, 1, 2)))


class MagvitNet(nn.Module):
    """An encoder or a decoder, whose levels stand from the finest to the coarsest in either."""

    def __init__(self, channels: list[int], blocks: list[int], ends: tuple[int, int], encoder: bool) -> None:
        super().__init__()
        last, step = len(channels) - 1, "downsample" if encoder else "upsample"
        before = [channels[0], *channels[:-1]] if encoder else [*channels[1:], channels[-1]]
        levels = [
            Level(
                ("block", "attn"),
                (before[i], channels[i]),
                blocks[i],
                False,
                None if i == (last if encoder else 0) else step,
            )
            for i in range(last + 1)
        ]
        self.conv_in = nn.Conv2d(ends[0], channels[0 if encoder else -1], 3, padding=1)
        setattr(self, "down" if encoder else "up", nn.ModuleList(levels))
        self.mid = nn.Module()
        middle = channels[-1]
        self.mid.block_1, self.mid.attn_1, self.mid.block_2 = (
            Block(middle, middle),
            Attention(middle),
            Block(middle, middle),
        )
        out = channels[-1 if encoder else 0]
        self.norm_out, self.conv_out = norm(out), nn.Conv2d(out, ends[1], 3, padding=1)
        code = ends[1] if encoder else ends[0]
        setattr(self, "quant_conv" if encoder else "post_quant_conv", nn.Conv2d(code, code, 1))

    def forward(self, x: Tensor) -> Tensor:
        middle = (self.mid.block_1, self.mid.attn_1, self.mid.block_2)
        if hasattr(self, "down"):
            for module in (self.conv_in, *self.down, *middle):
                x = module(x)
            return self.quant_conv(self.conv_out(F.silu(self.norm_out(x))))
        x = self.conv_in(self.post_quant_conv(x))
        for module in (*middle, *reversed(self.up)):
            x = module(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Magvit(nn.Module):
    """Show-o has channels [128, 256, 256, 512, 512] and [128, 128, 256, 256, 512], blocks 4 3 4 3 4 and 4 4 3 4 3."""

    def __init__(
        self, encoder: list[int], decoder: list[int], blocks: list[int], decoder_blocks: list[int], bits: int
    ) -> None:
        super().__init__()
        self.encoder = MagvitNet(encoder, blocks, (3, bits), True)
        self.decoder = MagvitNet(decoder, decoder_blocks, (bits, 3), False)
        self.quantize = nn.Module()
        powers = 2 ** torch.arange(bits - 1, -1, -1)
        signs = (torch.arange(2**bits)[:, None] & powers).bool()
        self.quantize.register_buffer("embedding", signs.float() * 2 - 1)
        self.quantize.register_buffer("power_vals", powers)

    def latents(self, image: Tensor) -> Tensor:
        return self.encoder(image)

    def tokens(self, latents: Tensor) -> Tensor:
        return ((latents > 0) * self.quantize.power_vals[:, None, None]).sum(1)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.quantize.embedding[tokens].permute(0, 3, 1, 2))


def spread(model: nn.Module) -> nn.Module:
    """Draw weights with which nothing vanishes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight += 0.3 * torch.randn(weight.shape)
    return model.eval().requires_grad_(False)
