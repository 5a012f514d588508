"""Self-distillation: a tokenizer that was trained on whole photos learns to read those with a hole (Eq. 7).

Its encoder, given a photo with a hole, is to give the codes that its own first weights give of the complete photo, at
every known position; and without a hole what it gave before. Codes and decoder stay as they are, so that tokens keep
their meaning, and whatever was trained on them (another project's transformer) its worth.

Legend: B photos, V codes, n known positions of a batch, n_z width of a code.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from nuwa_lip.data.photos import PhotoBatch, Photos
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGAN
from nuwa_lip.training.dfvqgan import Batch, DFVQGANStage
from nuwa_lip.training.recipes import DFVQGANRecipe


class DistilStage(DFVQGANStage):
    """Trains the encoder alone, towards the codes of the complete photos.

    Args:
        recipe, photos, accelerator, weights, max_file_size: as for `DFVQGANStage`; weights are needed.

    Raises:
        InputError: there are no weights to start from, or several processes.
    """

    def __init__(
        self,
        recipe: DFVQGANRecipe,
        photos: Photos,
        accelerator: Accelerator,
        weights: DFVQGAN | None = None,
        max_file_size: int | None = None,
    ) -> None:
        if weights is None:
            raise InputError("distilling needs a trained tokenizer: give it by --init-from")
        if accelerator.num_processes > 1:
            raise InputError(f"a tokenizer is distilled by one process, not by {accelerator.num_processes}")
        super().__init__(recipe, photos, accelerator, weights, max_file_size)
        for part in (self.raw.decoder, self.raw.quantiser):
            part.requires_grad_(False)
        self.teacher = deepcopy(weights).to(accelerator.device).eval().requires_grad_(False)

    def step(self, step: int, batch: PhotoBatch) -> dict[str, Tensor]:
        """Take one optimizer step of the encoder."""
        shares: list[Tensor] = []

        def losses(part: Batch) -> dict[str, Tensor]:
            found, share = self.distances(self.raw, part)
            shares.append(share)
            return found

        figures = self.learn(step, self.prepare(step, batch).parts(self.recipe.schedule.accumulate), losses)
        self.average.update(self.raw, step)
        return {**figures, "agreement": torch.stack(shares).mean()}

    @torch.no_grad()
    def held_out_loss(self, step: int, batch: PhotoBatch) -> Tensor:
        """Compute both losses together of held-out photos."""
        with self.accelerator.autocast():
            found, _ = self.distances(self.average.model, self.prepare(step, batch))
        return found["codes"] + found["plain"]

    def distances(self, model: DFVQGAN, part: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Compute how far a model is from its aim → losses, and the share of known codes that are right.

        Args:
            model: the learner, or its average.
            part: photos with holes.

        Returns:
            "codes", the cross-entropy of the complete photo's code at known positions, where a code is as likely as it
            is near (in units of what the teacher itself is off), and "plain", the squared error of the latents without
            a hole in units of their variance.
        """
        with torch.no_grad():
            target = self.teacher.encode(part.image)
        known, plain = model.encode(part.image, part.mask), model.encode(part.image).latents
        assert known.token_mask is not None
        here = ~known.token_mask[:, 0]  # [B, h, w]
        quantiser = self.teacher.quantiser
        wanted, right = quantiser.project(target.latents), target.tokens[here]  # [n]
        off = (wanted - quantiser.lookup(target.tokens).float()).square().sum(1).mean().clamp(min=1e-6)
        rows = quantiser.project(known.latents).permute(0, 2, 3, 1)[here]  # [n, n_z]
        codes = quantiser.codes.float()
        far = rows.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * rows @ codes.T  # [n, V]
        share = (known.tokens[here] == right).float().sum() / max(1, len(right))
        cross = F.cross_entropy(-far / off, right) if len(right) else 0 * known.latents.sum()
        return {"codes": cross, "plain": F.mse_loss(plain, target.latents) / target.latents.var()}, share
