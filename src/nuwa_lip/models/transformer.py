"""Pre-norm transformer: self-attention, GEGLU, LayerScale; the encoders, and what the decoder shares with them.

Legend: B batch, N rows of a sequence, D width, d width of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nuwa_lip.models.rotary import Rotation, rotate


class SelfAttention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        """Attend from x [B, N, D] to itself.

        Args:
            x: states.
            mask: bool, broadcast to [B, heads, N, N], True = may be attended.
            rotation: of the rows; None: their positions are known from x alone.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, N, d]
        y = F.scaled_dot_product_attention(rotate(q, rotation), rotate(k, rotation), v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """Feed-forward layer whose hidden units are gated by a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] → [..., D]."""
        value, gate = self.hidden(x).chunk(2, -1)
        return self.out(value * F.gelu(gate))


class Branch(nn.Module):
    """Residual connection around one layer: x + scale · dropout(layer(norm(x))).

    Args:
        layer: what is added.
        width: D.
        dropout: share of what the layer adds that is dropped, 0 to 1.
        layer_scale: initial value of the scale.
    """

    def __init__(self, layer: nn.Module, width: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Tensor, *args: object) -> Tensor:
        """Add what the layer makes of x [B, N, D] and `args` to x."""
        return x + self.scale * self.dropout(self.layer(self.norm(x), *args))


class Block(nn.Module):
    """A layer of an encoder: self-attention, then feed-forward.

    Args:
        width: D, a multiple of `heads`.
        heads: attention heads.
        mlp_ratio: hidden units of the feed-forward layer as a multiple of `width`.
        dropout: share of what each layer adds that is dropped, 0 to 1; never inside attention, where it would rule
            out the fused kernels.
        layer_scale: initial value of the factors on what each layer adds.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.attention = Branch(SelfAttention(width, heads), width, dropout, layer_scale)
        self.mlp = Branch(GEGLU(width, round(width * mlp_ratio)), width, dropout, layer_scale)

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        """Map x [B, N, D] → [B, N, D].

        Args:
            x, mask, rotation: as for `SelfAttention.forward`.
        """
        return self.mlp(self.attention(x, mask, rotation))


class Encoder(nn.Module):
    """Blocks and a last norm: [B, N, D] → [B, N, D].

    Args:
        layers: number of blocks.
        width, heads, mlp_ratio, dropout, layer_scale: as for `Block`.
    """

    def __init__(
        self, layers: int, width: int, heads: int, mlp_ratio: float, dropout: float, layer_scale: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout, layer_scale) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        """Map x [B, N, D] → [B, N, D].

        Args:
            x, mask, rotation: as for `SelfAttention.forward`.
        """
        for block in self.blocks:
            x = block(x, mask, rotation)
        return self.norm(x)


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Draw normal weights, in place; those that write into a residual stream shrink with its depth, as in GPT-2."""
    layers = max(1, sum(isinstance(child, Branch) for child in module.modules()))
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            nn.init.normal_(child.weight, std=std / math.sqrt(layers) if name.endswith(".out") else std)
        if isinstance(child, nn.Linear) and child.bias is not None:
            nn.init.zeros_(child.bias)
