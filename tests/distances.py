"""How far the known latents of photos with holes are from those of the complete photos."""

from __future__ import annotations

import torch
from torch import Tensor

from nuwa_lip.models import DFVQGAN


@torch.inference_mode()
def latent_distances(dfvqgan: DFVQGAN, image: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean Euclidean distances at known tokens: of the defect-free encoder, of the plain one with the hole zeroed."""
    whole = dfvqgan.encode(image).latents
    defect_free = dfvqgan.encode(image, mask)
    zeroed = dfvqgan.encode(image.masked_fill(mask, 0)).latents
    assert defect_free.token_mask is not None
    known = ~defect_free.token_mask[:, 0]
    assert not torch.equal(defect_free.latents, zeroed)
    ours, theirs = ((z - whole).norm(dim=1)[known].mean() for z in (defect_free.latents, zeroed))
    return float(ours), float(theirs)
