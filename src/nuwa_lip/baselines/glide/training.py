"""Training a GLIDE from shards with the loop of our own stages.

One step: photos are cropped and given holes; the base network learns on all of them, reduced, the super-resolution
network on the first share of them; both are told the known pixels and asked about the hole only, at a random time.

Legend: B photos of this process, S side of the finished square, s of the base network's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from nuwa_lip.baselines.glide.diffusion import Noise
from nuwa_lip.baselines.glide.folder import GLIDEParts, save_glide
from nuwa_lip.baselines.glide.model import GLIDE, Told, enlarge, reduce_known
from nuwa_lip.baselines.glide.painter import paint
from nuwa_lip.baselines.glide.recipe import GLIDERecipe
from nuwa_lip.data.augment import augment
from nuwa_lip.data.masks import random_masks
from nuwa_lip.data.photos import PhotoBatch, Photos, PhotoSet, StreamedPhotos
from nuwa_lip.data.shards import Skipped, read_encoded
from nuwa_lip.tokenizer import CaptionTokenizer
from nuwa_lip.training.runs import RunFolder
from nuwa_lip.training.sheet import grey_hole, sample_sheet
from nuwa_lip.training.stage import Stage, generator_for

SHEET_ROWS = 4


class Lesson(NamedTuple):
    """What one network learns from: x_t, t, what it is told, and what it should say."""

    noisy: Tensor
    time: Tensor
    told: Told
    answer: Tensor

    @property
    def question(self) -> tuple[Tensor, Tensor, Told]:
        """What the network is given."""
        return self.noisy, self.time, self.told

    def rows(self, rows: list[int]) -> Lesson:
        """That of some photos."""
        coarse = None if self.told.coarse is None else self.told.coarse[rows]
        told = Told(self.told.known[rows], self.told.mask[rows], coarse)
        return Lesson(self.noisy[rows], self.time[rows], told, self.answer[rows])


class Part(NamedTuple):
    """A part of a batch, ready for the model."""

    text_ids: Tensor
    base: Lesson
    finer: Lesson


class GLIDEStage(Stage[GLIDE]):
    """A GLIDE's training as the loop drives it.

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
        """One optimizer step."""
        return self.learn(step, self.prepare(step, batch), self.losses)

    def losses(self, part: Part) -> dict[str, Tensor]:
        """Of both networks."""
        base, finer = self.model(part.text_ids, part.base.question, part.finer.question)
        return {"base": hole_loss(base, part.base), "finer": hole_loss(finer, part.finer)}

    def prepare(self, step: int, photos: PhotoBatch) -> list[Part]:
        """Crops, holes, captions, times and noise of a step, in `schedule.accumulate` parts."""
        recipe, device, seeds = self.recipe, self.accelerator.device, self.seeds(step)
        image, mask = self._crops(photos, seeds)
        captions = self.drop_captions(photos.captions, np.random.default_rng([12, *seeds]))
        torch.manual_seed(generator_for("cpu", 13, *seeds).initial_seed())  # dropout
        # each part begins with its share of the photos that the super-resolution network learns from
        count = recipe.schedule.accumulate
        finer = max(1, round(recipe.finer * len(image) / count)) * count
        base, fine = self._lessons(image, mask.to(device), finer, generator_for("cpu", 14, *seeds))
        parts = []
        for first, others in zip(_runs(0, finer, count), _runs(finer, len(image), count), strict=True):
            rows = [*first, *others]
            parts.append(Part(self.word_pieces([captions[i] for i in rows]), base.rows(rows), fine.rows(first)))
        return parts

    def _crops(self, photos: PhotoBatch, seeds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Crops [B, 3, S, S] on the device, holes bool [B, 1, S, S]."""
        recipe, size = self.recipe, self.recipe.model.resolution
        generator = generator_for("cpu", 10, *seeds)
        images = photos.images.to(self.accelerator.device)
        image = augment(images, photos.aspects, size, recipe.augmentation, generator, photos.captions)
        return image, random_masks(len(image), size, size, recipe.masks, np.random.default_rng([11, *seeds]))

    def _lessons(self, image: Tensor, mask: Tensor, finer: int, generator: torch.Generator) -> tuple[Lesson, Lesson]:
        """What the base network learns from the batch, and the super-resolution network from its first `finer`."""
        config = self.recipe.model
        small = F.avg_pool2d(image, config.factor)
        base = self._lesson("base", small, Told(*reduce_known(image, mask, config.factor)), generator)
        image, mask, small = image[:finer], mask[:finer], small[:finer]
        told = Told(image.masked_fill(mask, 0), mask, enlarge(small, config.factor))
        return base, self._lesson("finer", image, told, generator)

    def _lesson(self, part: str, image: Tensor, told: Told, generator: torch.Generator) -> Lesson:
        """Noise and times are drawn on the CPU: the same on every device."""
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        time = torch.randint(self.recipe.model.train_steps, image.shape[:1], generator=generator).to(image.device)
        schedule = self.noises[part]
        velocity = self.recipe.model.prediction == "v"
        answer = schedule.velocity(image, noise, time) if velocity else noise
        return Lesson(schedule.add(image, noise, time), time, told, answer)

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Photos, holes, what the base network paints, and the finished squares."""
        recipe = self.recipe
        photos = next(self.source.batches(SHEET_ROWS, seed=recipe.schedule.seed))
        image, mask = self._crops(photos, (recipe.schedule.seed, 10**9, 0))
        mask = mask.to(image.device)
        ids, empty = self.word_pieces(photos.captions), self.word_pieces([""] * SHEET_ROWS)
        generator = torch.Generator().manual_seed(0)
        small, finished = paint(self.average.model, ids, empty, image, mask, recipe.sampling, generator)
        columns = {"photo": image, "hole": grey_hole(image, mask), "base network": small, "super-resolution": finished}
        return sample_sheet(columns, photos.captions)

    def export(self, run: RunFolder) -> None:
        """Write the model folder."""
        save_glide(run.path / "model", GLIDEParts(self.average.model, self.tokenizer, self.recipe.sampling))


def hole_loss(said: Tensor, lesson: Lesson) -> Tensor:
    """Mean squared error over each photo's hole: known pixels are given and put back, there is nothing to learn."""
    hole = lesson.told.mask.expand_as(said)
    error = (said - lesson.answer).square().masked_fill(~hole, 0)
    return (error.flatten(1).sum(1) / hole.flatten(1).sum(1).clamp(min=1)).mean()


def _runs(start: int, stop: int, count: int) -> list[list[int]]:
    """The numbers from start to stop in so many runs of equal length."""
    size = (stop - start) // count
    return [list(range(start + i * size, start + (i + 1) * size)) for i in range(count)]


def captions_of(photos: Photos) -> Iterable[str]:
    """Every caption of a set, from memory or read from its shards."""
    if isinstance(photos, PhotoSet):
        return itertools.chain.from_iterable(photos.captions)
    assert isinstance(photos, StreamedPhotos)
    return itertools.chain.from_iterable(sample.captions for sample in read_encoded(photos.shards, Skipped()))
