"""The codebook B of Eq. 10: nearest code, straight-through gradient, revival of dead codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DISTANCES = 2**22
"""Distances between latents and codes that are held at once."""


class Quantised(NamedTuple):
    """The result of quantising latents."""

    codes: Tensor
    """[B, n_z, h, w], B[ζ] with the gradient of the latents (straight-through)."""
    tokens: Tensor
    """int64 [B, h, w], ζ."""
    codebook_loss: Tensor
    """‖sg[E] - B[ζ]‖², mean over elements."""
    commitment_loss: Tensor
    """‖E - sg[B[ζ]]‖², mean over elements, without its factor β."""


class Quantiser(nn.Module):
    """Nearest-code quantiser (Eq. 10).

    Args:
        size: number of codes.
        dim: n_z, their width.
        normalise: compare latents and codes on the unit sphere (LlamaGen's recipe, with a small `dim`).
    """

    def __init__(self, size: int, dim: int, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.codebook = nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size))
        if normalise:
            nn.init.normal_(self.codebook)

    def _on_sphere(self, x: Tensor, dim: int) -> Tensor:
        return F.normalize(x, dim=dim) if self.normalise else x

    def tokens(self, latents: Tensor) -> Tensor:
        """Find ζ = argmin_j ‖z - B_j‖² (Eq. 10): latents [B, n_z, h, w] → int64 [B, h, w].

        It computes in float32 whatever the precision around it: neighbouring codes differ by less than bf16 resolves.
        """
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            z = self._on_sphere(latents.float(), 1).permute(0, 2, 3, 1)  # [B, h, w, n_z]
            codes = self._on_sphere(self.codebook.float(), 1)
            squares = codes.square().sum(1)  # [size]; ‖z‖² is the same for every code and left out
            # a few rows at a time: all distances at once would be more memory than the encoder needs
            rows = z.reshape(-1, z.shape[-1]).split(max(1, DISTANCES // len(codes)))
            nearest = [torch.addmm(squares, some, codes.T, alpha=-2).min(1).indices for some in rows]
            return torch.cat(nearest).view(z.shape[:-1])

    def project(self, latents: Tensor) -> Tensor:
        """Put latents [B, n_z, h, w] where they are compared with codes: float32, on the unit sphere if `normalise`."""
        return self._on_sphere(latents.float(), 1)

    @property
    def codes(self) -> Tensor:
        """Return B as the decoder gets it, [V, n_z]."""
        return self._on_sphere(self.codebook, 1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Look up B[ζ]: int64 [B, h, w] → [B, n_z, h, w]."""
        return self._on_sphere(F.embedding(tokens, self.codebook), -1).permute(0, 3, 1, 2).contiguous()

    def forward(self, latents: Tensor) -> Quantised:
        """Quantise [B, n_z, h, w] with the two terms of Eq. 13 and the straight-through gradient."""
        z = self.project(latents)
        tokens = self.tokens(z)
        codes = self.lookup(tokens).float()
        return Quantised(
            codes=z + (codes - z).detach(),
            tokens=tokens,
            codebook_loss=F.mse_loss(codes, z.detach()),
            commitment_loss=F.mse_loss(z, codes.detach()),
        )

    @torch.no_grad()
    def revive(self, dead: Tensor, latents: Tensor, generator: torch.Generator | None = None) -> None:
        """Replace dead codes by latents, so that they are used.

        Args:
            dead: bool [size].
            latents: [B, n_z, h, w], from which they are drawn.
            generator: on the CPU.
        """
        pool = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])  # [B h w, n_z]
        drawn = torch.randint(len(pool), (len(self.codebook),), generator=generator).to(pool.device)
        fresh = pool[drawn].to(self.codebook.dtype)
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
