"""Training a GLIDE from shards with the loop of our own stages.

One step: photos are cropped and given holes; the base network learns on all of them, reduced, the super-resolution
network on the first share of them; both are conditioned on the known pixels and learn the hole only, at a random time.

Legend: B photos of this process, S side of the finished square, s of the base network's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from nuwa_lip.baselines.glide.diffusion import Noise
from nuwa_lip.baselines.glide.folder import GLIDEParts, save_glide
from nuwa_lip.baselines.glide.model import GLIDE, Conditioning, enlarge, reduce_known
from nuwa_lip.baselines.glide.painter import paint
from nuwa_lip.baselines.glide.recipe import GLIDERecipe
from nuwa_lip.data.augment import augment
from nuwa_lip.data.masks import random_masks
from nuwa_lip.data.photos import PhotoBatch, Photos, PhotoSet
from nuwa_lip.data.shards import read_encoded
from nuwa_lip.data.skipped import Skipped
from nuwa_lip.data.streamed import StreamedPhotos
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training.sheet import grey_hole, sample_sheet
from nuwa_lip.training.stage import Stage, generator_for

SHEET_ROWS = 4


class TrainingPair(NamedTuple):
    """What one network learns from: x_t, t, the conditioning, and the target."""

    noisy: Tensor
    time: Tensor
    condition: Conditioning
    target: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Conditioning]:
        """The inputs of the network."""
        return self.noisy, self.time, self.condition

    def rows(self, rows: list[int]) -> TrainingPair:
        """Choose the rows of some photos."""
        coarse = None if self.condition.coarse is None else self.condition.coarse[rows]
        condition = Conditioning(self.condition.known[rows], self.condition.mask[rows], coarse)
        return TrainingPair(self.noisy[rows], self.time[rows], condition, self.target[rows])


class Part(NamedTuple):
    """A part of a batch, ready for the model."""

    text_ids: Tensor
    base: TrainingPair
    finer: TrainingPair


class GLIDEStage(Stage[GLIDE]):
    """The training of a GLIDE, for the loop of our own stages.

    Args:
        recipe: with a schedule whose number of steps is settled.
        photos: what to train on.
        accelerator: device, precision, processes.
        weights: a GLIDE to start from (fine-tuning), with the recipe's configuration; its tokenizer is kept.
    """

    def __init__(
        self, recipe: GLIDERecipe, photos: Photos, accelerator: Accelerator, weights: GLIDEParts | None = None
    ) -> None:
        config = recipe.model
        if weights is not None:
            self.tokenizer = weights.tokenizer
        else:
            self.tokenizer = CaptionTokenizer.train(captions_of(photos), config.text_vocab, config.text_length)
        torch.manual_seed(recipe.schedule.seed)
        model = GLIDE(config)
        if weights is not None:
            model.load_state_dict(weights.model.state_dict())
        model = model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.noises = {part: Noise(part, config.train_steps) for part in ("base", "finer")}  # type: ignore[arg-type]
        super().__init__(recipe, photos, accelerator, model)

    def step(self, step: int, batch: PhotoBatch) -> dict[str, Tensor]:
        """Take one optimizer step."""
        return self.learn(step, self.prepare(step, batch), self.losses)

    def losses(self, part: Part) -> dict[str, Tensor]:
        """Compute the losses of both networks."""
        base, finer = self.model(part.text_ids, part.base.inputs, part.finer.inputs)
        return {"base": hole_loss(base, part.base), "finer": hole_loss(finer, part.finer)}

    def prepare(self, step: int, photos: PhotoBatch) -> list[Part]:
        """Prepare crops, holes, captions, times and noise of a step, in `schedule.accumulate` parts."""
        recipe, device, seeds = self.recipe, self.accelerator.device, self.seeds(step)
        image, mask = self._crops(photos, seeds)
        captions = self.drop_captions(photos.captions, np.random.default_rng([12, *seeds]))
        torch.manual_seed(generator_for("cpu", 13, *seeds).initial_seed())  # dropout
        # each part begins with its share of the photos that the super-resolution network learns from
        count = recipe.schedule.accumulate
        finer = max(1, round(recipe.finer * len(image) / count)) * count
        base, fine = self._pairs(image, mask.to(device), finer, generator_for("cpu", 14, *seeds))
        parts = []
        for first, others in zip(_runs(0, finer, count), _runs(finer, len(image), count), strict=True):
            rows = [*first, *others]
            parts.append(Part(self.word_pieces([captions[i] for i in rows]), base.rows(rows), fine.rows(first)))
        return parts

    def _crops(self, photos: PhotoBatch, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Draw crops [B, 3, S, S] on the device and holes bool [B, 1, S, S]."""
        recipe, size = self.recipe, self.recipe.model.resolution
        generator = generator_for("cpu", 10, *seeds)
        images = photos.images.to(self.accelerator.device)
        image = augment(images, photos.aspects, size, recipe.augmentation, generator, photos.captions)
        return image, random_masks(len(image), size, size, recipe.masks, np.random.default_rng([11, *seeds]))

    def _pairs(
        self, image: Tensor, mask: Tensor, finer: int, generator: torch.Generator
    ) -> tuple[TrainingPair, TrainingPair]:
        """Make what the base network learns from, and the super-resolution network, from the first `finer` photos."""
        config = self.recipe.model
        small = F.avg_pool2d(image, config.factor)
        base = self._pair("base", small, Conditioning(*reduce_known(image, mask, config.factor)), generator)
        image, mask, small = image[:finer], mask[:finer], small[:finer]
        condition = Conditioning(image.masked_fill(mask, 0), mask, enlarge(small, config.factor))
        return base, self._pair("finer", image, condition, generator)

    def _pair(self, part: str, image: Tensor, condition: Conditioning, generator: torch.Generator) -> TrainingPair:
        """Draw noise and times on the CPU, so that they are equal on every device."""
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        time = torch.randint(self.recipe.model.train_steps, image.shape[:1], generator=generator).to(image.device)
        schedule = self.noises[part]
        velocity = self.recipe.model.prediction == "v"
        target = schedule.velocity(image, noise, time) if velocity else noise
        return TrainingPair(schedule.add(image, noise, time), time, condition, target)

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Draw photos, holes, what the base network paints, and the finished squares."""
        recipe = self.recipe
        photos = next(self.source.batches(SHEET_ROWS, seed=recipe.schedule.seed))
        image, mask = self._crops(photos, (recipe.schedule.seed, 10**9, 0))
        mask = mask.to(image.device)
        ids, empty = self.word_pieces(photos.captions), self.word_pieces([""] * SHEET_ROWS)
        generator = torch.Generator().manual_seed(0)
        small, finished = paint(self.average.model, ids, empty, image, mask, recipe.sampling, generator)
        columns = {"photo": image, "hole": grey_hole(image, mask), "base network": small, "super-resolution": finished}
        return sample_sheet(columns, photos.captions)

    def export(self, folder: Path) -> None:
        """Write the model folder."""
        save_glide(folder, GLIDEParts(self.average.model, self.tokenizer, self.recipe.sampling))


def hole_loss(output: Tensor, pair: TrainingPair) -> Tensor:
    """Average the squared error over each photo's hole; known pixels are given, so there is nothing to learn."""
    hole = pair.condition.mask.expand_as(output)
    error = (output - pair.target).square().masked_fill(~hole, 0)
    return (error.flatten(1).sum(1) / hole.flatten(1).sum(1).clamp(min=1)).mean()


def _runs(start: int, stop: int, count: int) -> list[list[int]]:
    """Divide the numbers from start to stop into `count` runs of equal length."""
    size = (stop - start) // count
    return [list(range(start + i * size, start + (i + 1) * size)) for i in range(count)]


def captions_of(photos: Photos) -> Iterable[str]:
    """Iterate over every caption of a set, from memory or read from its shards."""
    if isinstance(photos, PhotoSet):
        return itertools.chain.from_iterable(photos.captions)
    assert isinstance(photos, StreamedPhotos)
    return itertools.chain.from_iterable(sample.captions for sample in read_encoded(photos.shards, Skipped()))
