"""Fitting a caption prior: what a caption alone says of the codes in each region of a photo.

Every photo is a bag of codes for each of r x r regions. The prior tilts their average, over all photos, so that the
bags of a photo become likely given its caption. No decoder runs, and all tokens of a photo count at once, so that an
epoch of ten thousand photos takes a minute of one CPU core.

Legend: B photos, r regions on a side, V codes, h w token grid.
"""

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from nuwa_lip.errors import InputError
from nuwa_lip.hub import ModelParts
from nuwa_lip.models.caption_prior import CaptionPrior
from nuwa_lip.models.memory import mean_state
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.tokens import TokenBatch, TokenCache

SMOOTHING = 200.0
"""Tokens in every region that are taken to be like those of all regions."""


class PriorStage(MPS2SStage):
    """Fits what a caption alone says of the codes in each region of a photo (`CaptionPrior`), as a tilt of the average.

    Args:
        recipe, cache, accelerator, weights, max_file_size: as for `MPS2SStage`.

    Raises:
        InputError: the model has no caption prior, or there are several processes.
    """

    def __init__(
        self,
        recipe: MPS2SRecipe,
        cache: TokenCache,
        accelerator: Accelerator,
        weights: ModelParts | None = None,
        max_file_size: int | None = None,
    ) -> None:
        if not recipe.model.caption_prior:
            raise InputError("model.caption_prior is 0: there is no prior to train; try 4")
        if accelerator.num_processes > 1:
            raise InputError(f"a prior is trained by one process, which takes minutes, not {accelerator.num_processes}")
        super().__init__(recipe, cache, accelerator, weights, max_file_size)
        self.average_log = self.log_frequencies()

    def step(self, step: int, batch: TokenBatch) -> dict[str, Tensor]:
        """One optimizer step."""
        captions = self.drop_captions(batch.captions, np.random.default_rng([8, *self.seeds(step)]))
        part = self.word_pieces(captions), batch.whole.to(self.accelerator.device)
        return self.learn(step, [part], lambda part: {"loss": self.prior_loss(*part)})

    def held_out_loss(self, step: int, batch: TokenBatch) -> Tensor:
        """Compute nothing: a prior is fitted to all that is there.

        Raises:
            InputError: always.
        """
        raise InputError("--validation is not for the recipe prior: leave it out")

    def prior_loss(self, text_ids: Tensor, tokens: Tensor) -> Tensor:
        """Nats for each token of the whole photo, when only the caption and the region are known."""
        prior = self.unwrapped_prior
        states, padding = self.raw.encode_text(text_ids, len(text_ids))
        assert states is not None
        tilt = prior(mean_state(states, padding))
        likely = (self.average_log + self.raw.decoder.head(tilt)).log_softmax(-1)  # [B, r², V]
        return -(likely * self.counts(tokens)).sum(-1).mean() * likely.shape[1] / tokens[0].numel()

    @property
    def unwrapped_prior(self) -> CaptionPrior:
        """The part that learns."""
        prior = self.raw.decoder.prior
        assert prior is not None
        return prior

    def counts(self, tokens: Tensor) -> Tensor:
        """How often each code stands in each region: [B, h, w] → float32 [B, r², V]."""
        regions, codes = self.unwrapped_prior.regions**2, self.recipe.model.codebook_size
        cells = torch.arange(tokens[0].numel(), device=tokens.device)
        places = self.unwrapped_prior.region_of(cells) * codes + tokens.flatten(1)
        found = torch.zeros(len(tokens), regions * codes, device=tokens.device)
        return found.scatter_add_(1, places, torch.ones_like(places, dtype=found.dtype)).unflatten(1, (regions, codes))

    def log_frequencies(self) -> Tensor:
        """Of each code in each region over all photos, float32 [r², V], rare ones smoothed by those of all regions."""
        found = sum(
            self.counts(tokens.long()).sum(0) for part in self.cache.parts for tokens in part.array("whole").split(256)
        )
        assert isinstance(found, Tensor)
        everywhere = (found.sum(0) + 0.5) / (found.sum() + 0.5 * found.shape[1])
        smoothed = found + SMOOTHING * everywhere
        return (smoothed / smoothed.sum(1, keepdim=True)).log().to(self.accelerator.device)
