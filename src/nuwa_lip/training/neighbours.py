"""Fitting what neighbours tell of a token, from photos alone, before a decoder learns to use it.

Of every photo some positions are asked for, and of the tokens around each of them a share is hidden, now most, now
none, as in decoding. No decoder runs: thousands of small steps take minutes, which inside the decoder would take
hours.

Legend: B photos, R positions of each, P neighbours, V codes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from nuwa_lip.errors import InputError
from nuwa_lip.hub import ModelParts
from nuwa_lip.models.neighbours import Neighbours
from nuwa_lip.training.mps2s import MPS2SStage
from nuwa_lip.training.recipes import MPS2SRecipe
from nuwa_lip.training.stage import make_optimizer
from nuwa_lip.training.tokens import TokenBatch, TokenCache

POSITIONS = 16
"""R: more of the same photo tell little that is new."""


class NeighboursStage(MPS2SStage):
    """Fits the features of a decoder's `Neighbours`; what leads from these into the decoder stays as it is.

    Args:
        recipe, cache, accelerator, weights, max_file_size: as for `MPS2SStage`.

    Raises:
        InputError: the model has no neighbours, its decoder uses them already, or there are several processes.
    """

    def __init__(
        self,
        recipe: MPS2SRecipe,
        cache: TokenCache,
        accelerator: Accelerator,
        weights: ModelParts | None = None,
        max_file_size: int | None = None,
    ) -> None:
        if not recipe.model.neighbours:
            raise InputError("model.neighbours is 0: there are none to train; try 2")
        if accelerator.num_processes > 1:
            raise InputError(f"neighbours are trained by one process, within minutes, not {accelerator.num_processes}")
        super().__init__(recipe, cache, accelerator, weights, max_file_size)
        if self.neighbours.before.weight.any() or self.neighbours.after.weight.any():
            raise InputError(
                "the decoder uses its neighbours already: go on with the recipe captions, which trains both"
            )
        readout = nn.Linear(2 * recipe.model.width, recipe.model.codebook_size).to(accelerator.device)
        self.readout, readout_optimizer = accelerator.prepare(readout, make_optimizer(readout, recipe.schedule))
        self.modules["readout"], self.optimizers["readout"] = readout, readout_optimizer

    def step(self, step: int, batch: TokenBatch) -> dict[str, Tensor]:
        """One optimizer step."""
        tokens = batch.whole.flatten(1)
        drawn = [
            own.random(POSITIONS * (2 + self.neighbours.places.shape[1])) for own in self.chances(8, step, len(tokens))
        ]
        part = tokens.to(self.accelerator.device), torch.from_numpy(np.stack(drawn)).to(self.accelerator.device)
        figures = self.learn(step, [part], lambda part: {"loss": self.loss(*part)})
        self.descend(self.readout, self.optimizers["readout"])
        return figures

    def held_out_loss(self, step: int, batch: TokenBatch) -> Tensor:
        """Compute nothing: neighbours are fitted to all that is there.

        Raises:
            InputError: always.
        """
        raise InputError("--validation is not for the recipe neighbours: leave it out")

    def loss(self, tokens: Tensor, drawn: Tensor) -> Tensor:
        """Nats for each token that is asked for.

        Args:
            tokens: int64 [B, N], whole photos.
            drawn: float64 [B, R · (2 + P)] from 0 to below 1: positions, shares of what is hidden, and what is.
        """
        near = self.neighbours
        places, share, hidden = drawn.split([POSITIONS, POSITIONS, drawn.shape[1] - 2 * POSITIONS], 1)
        targets = (places * tokens.shape[1]).long()  # [B, R]
        around = near.around(tokens, targets)
        # the share is more often small than large: with few neighbours there is little to learn
        hide = (hidden.view(around.shape) < share.square()[..., None]) & (around != near.outside)
        logits = self.readout(near.features(around.masked_fill(hide, near.undecided)))
        return F.cross_entropy(logits.float().flatten(0, 1), tokens.gather(1, targets).flatten())

    @property
    def neighbours(self) -> Neighbours:
        """The part that learns."""
        near = self.raw.decoder.neighbours
        assert near is not None
        return near


def radius(asked: int, there: int) -> int:
    """Return how far a model's neighbours are that goes on from another: as asked for, or else as they are there.

    Args:
        asked: of the recipe; 0: nothing.
        there: of the model that it starts from; 0: none.

    Raises:
        InputError: the two differ, so that what was learned would mean something else.
    """
    if asked and there and asked != there:
        raise InputError(f"model.neighbours is {asked}, but the model was trained with {there}: give that, or nothing")
    return asked or there
