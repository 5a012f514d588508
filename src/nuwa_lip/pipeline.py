"""The inpainting pipeline: the whole of the paper's Fig. 3 on one page, top-down.

A photo, its mask and a caption come in. For each hole

1. a window around it is reduced to the model's size, known pixels only (`images.windows.look`),
2. a painter fills it; NÜWA-LIP, the paper's model, in three steps (`painters.nuwa_lip`): DF-VQGAN encodes the known
   pixels (Eq. 7), MP-S2S predicts the hole's tokens from caption, known pixels and known tokens (Eq. 15), DF-VQGAN
   decodes all tokens with the symmetrical connections (Eq. 11, 12),
3. the painting is enlarged to the window, and blended with its surroundings if asked for (`images.seams`),
4. and, where that enlarged it much, painted anew at a finer scale, square by square (`painters.second_pass`);

then the holes' pixels, and no others, are pasted into the photo.

Legend: S side of the model's square, K defective tokens, n candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from nuwa_lip import arguments
from nuwa_lip.arguments import Task
from nuwa_lip.fast.cores import settle_cores
from nuwa_lip.images.photo import Patch, Photo
from nuwa_lip.images.preview import Progress, Step
from nuwa_lip.images.seams import blend as blend_in
from nuwa_lip.images.windows import View, look, put_back, share_windows, warn_if_enlarged, window_seed
from nuwa_lip.painters.painter import Callback as PainterCallback
from nuwa_lip.painters.second_pass import paint_anew, plan_passes
from nuwa_lip.pretrained import Pretrained
from nuwa_lip.sampling import Sampling, candidate_seeds, read_scores
from nuwa_lip.sampling.clip import clip_scores, load_clip

if TYPE_CHECKING:
    from nuwa_lip.images.hole import Hole
    from nuwa_lip.images.pictures import Picture

Callback = Callable[["InpaintPipeline", int, int, dict[str, Any]], Any]


@dataclass
class InpaintOutput:
    """Holds the candidates, best first within each photo, photo after photo if there were several."""

    images: Any
    """Upright: a list of Pillow images of the input's mode, or float32 [N, H, W, C] or [N, C, H, W] from 0 to 1."""
    scores: list[float]
    """Mean log-probability of each candidate's repainted tokens, at most 0."""
    seeds: list[int]
    """The seed that gives each candidate again."""


@dataclass
class Candidate:
    """Holds one way to repaint a photo."""

    seed: int
    patches: list[Patch] = field(default_factory=list)
    """One for each window."""
    tokens: int = 0
    total: float = 0.0
    """Log-probability of all these tokens together."""

    @property
    def score(self) -> float:
        """Return the mean log-probability of a token."""
        return self.total / self.tokens

    def pasted(self, composite: bool) -> list[Patch]:
        """Return the patches of the hole's pixels; without `composite`, of all pixels of each window."""
        if composite:
            return self.patches
        return [patch._replace(mask=np.ones_like(patch.mask)) for patch in self.patches]


class InpaintPipeline(Pretrained):
    """Repaints the hole of a photo from a caption; `Pretrained` loads, moves, compiles and saves its painter."""

    clip: str | Path = "openai/clip-vit-base-patch32"
    """Weights for rank="clip": a local folder, or a hub id that is in the local cache."""

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Picture | Photo | Sequence[Picture | Photo],
        mask_image: Picture | Hole | Sequence[Picture | Hole] | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        order: str | None = None,
        num_inference_steps: int | None = None,
        schedule: str | None = None,
        padding_mask_crop: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        rank: Literal["likelihood", "clip"] = "likelihood",
        callback_on_step_end: Callback | None = None,
        revisions: int | None = None,
        squares: int | None = None,
        blend: bool | None = None,
        composite: bool = True,
        mask_orientation: Literal["displayed", "stored"] | None = None,
        height: int | None = None,
        width: int | None = None,
        strength: float = 1.0,
        negative_prompt: str | Sequence[str] | None = None,
    ) -> InpaintOutput:
        """Repaint one photo, or several.

        Args:
            prompt: what the picture shows, or one for each photo; "" is allowed.
            image: Pillow image of any mode, array [H, W, C] or tensor [C, H, W] (uint8, or floats from 0 to 1); a list,
                or a batch dimension, for several.
            mask_image: as large as the photo; white (128 to 255, True, 0.5 to 1) is repainted, or what is drawn on a
                transparent layer; None repaints what is transparent in the photo. For n photos one mask, a list of n,
                or an array or a tensor [n, H, W].
            num_images_per_prompt: n candidates for each photo.
            guidance_scale: above 1 follows the caption more closely. None, here and below: the model's own setting.
            temperature: 0 and more; below 1 safer, above 1 wilder.
            top_k: draw from the k likeliest tokens only; 0: from all.
            top_p: draw from the likeliest tokens that together have this probability, above 0 and at most 1.
            order: "raster" (row by row), "random", or "border" (from the hole's border inwards); with the schedule
                "confidence" it matters among equals only.
            num_inference_steps: number of parallel steps that predict the hole's tokens; as many steps as tokens, or
                more, predict them one by one.
            schedule: "cosine" decides few tokens in the first of these steps and more in later ones, "constant" equally
                many in each, "confidence" those with the highest confidence first.
            padding_mask_crop: pixels of context on each side of a hole; by default a window is 1.5 times as long as its
                hole, and at least as large as the model's square.
            generator: seed s gives candidate i the seed s + i; a list has one generator for each candidate.
            output_type: "pil", "np" or "pt".
            rank: puts the best first by the model's likelihood, or by CLIP's similarity to the caption.
            callback_on_step_end: called as f(pipe, step, steps, {"preview": p}) after each step in a window, from 1;
                `p.picture()` is the photo as painted so far (`nuwa_lip.images.preview`), which other models than
                NÜWA-LIP may leave out.
            revisions: how many times about half of what is painted is drawn anew beside the rest, in random order; each
                takes a third to a half of the steps again.
            squares: what must be enlarged much is painted anew at a finer scale, in this many squares a hole at most,
                each of which takes time (`painters.second_pass`); 0: it stays soft.
            blend: fit the colours of what is painted to the known pixels at the hole's edge (`nuwa_lip.images.seams`).
            composite: False pastes the whole of each window, known pixels too, to study a model.
            mask_orientation: how a mask lies upon a photo that its EXIF turns, "displayed" or "stored"; None: as it
                fits, and as displayed where it fits both ways.
            height: an argument of diffusers' pipelines that does not apply here: any value but the default is refused
                with what to do instead. So are the following ones.
            width: see `height`.
            strength: see `height`.
            negative_prompt: see `height`.

        Not every painter takes every option (`Needs.options`): one that means nothing to it is refused.

        Raises:
            InputError: an argument cannot be used.
        """
        settle_cores()
        given = arguments.given(
            guidance_scale=guidance_scale,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            order=order,
            num_inference_steps=num_inference_steps,
            schedule=schedule,
            revisions=revisions,
            squares=squares,
            blend=blend,
        )
        sampling = replace(self.sampling, **given)
        arguments.check(num_images_per_prompt, padding_mask_crop, output_type, rank, callback_on_step_end, composite)
        arguments.refuse(height=height, width=width, strength=strength, negative_prompt=negative_prompt)
        arguments.check_options(self.options, given)
        tasks = arguments.read_tasks(image, mask_image, prompt, output_type, mask_orientation)
        arguments.warn_of_captions(self.options, tasks)
        seeds = candidate_seeds(generator, num_images_per_prompt, len(tasks))
        if rank == "clip":
            load_clip(self.clip)  # fail early if it is missing
        callback = None if callback_on_step_end is None else partial(callback_on_step_end, self)

        pictures, best_first = [], []
        for task, own in zip(tasks, seeds, strict=True):
            candidates = [Candidate(seed) for seed in own]
            self._repaint(task, candidates, sampling, padding_mask_crop, callback)
            results = [task.photo.repainted(c.pasted(composite), task.hole.opaque) for c in candidates]
            merits = [c.score for c in candidates]
            if rank == "clip":
                merits = clip_scores([task.photo.to_pil(pixels) for pixels in results], task.prompt, self.clip)
            ranked = sorted(zip(merits, candidates, results, strict=True), key=lambda one: -one[0])
            best_first += [candidate for _, candidate, _ in ranked]
            pictures += [arguments.output(task.photo, pixels, output_type) for *_, pixels in ranked]
        images = arguments.gather(pictures, output_type)
        return InpaintOutput(images, [c.score for c in best_first], [c.seed for c in best_first])

    @torch.inference_mode()
    def _repaint(
        self,
        task: Task,
        candidates: list[Candidate],
        sampling: Sampling,
        padding: int | None,
        callback: Step | None,
    ) -> None:
        """Give every candidate a patch for each window; no window sees what another one has painted."""
        photo, mask = task.photo, task.hole.mask
        windows = share_windows(mask, self.resolution, padding)
        plans = [plan_passes(own, window, self.resolution, sampling.squares) for window, own in windows]
        scales = [p[-1].scale if p else w.longer / self.resolution for p, (w, _) in zip(plans, windows, strict=True)]
        warn_if_enlarged(max(scales))
        for number, ((window, own), passes) in enumerate(zip(windows, plans, strict=True)):
            progress = callback and Progress(callback, photo, window, own, self.painter.needs.signed)
            if progress:
                progress.squares = len(candidates) * sum(len(one.squares) for one in passes)
            view = look(photo, mask, window, self.resolution)
            seeds = [window_seed(candidate.seed, number) for candidate in candidates]
            images, logp, tokens = self._fill(view, task.prompt, seeds, sampling, progress)
            scores = read_scores(logp)

            box = window.within(photo.size)
            hidden = photo.hidden(mask, box)
            known = photo.rgb(box, hidden)
            for candidate, image, seed, mean in zip(candidates, images, seeds, scores, strict=True):
                rgb = put_back(image, window, photo.size)
                if sampling.blend:
                    rgb = blend_in(rgb, known, own, hidden)
                if passes:
                    first = np.where(hidden[..., None], rgb, known)
                    finer = paint_anew(self.painter, first, own, passes, task.prompt, seed, sampling, progress)
                    rgb = np.where(own[..., None], finer, rgb)
                    rgb = blend_in(rgb, known, own, hidden) if sampling.blend else rgb
                candidate.patches.append(Patch(box, own, rgb))
                candidate.tokens += tokens
                candidate.total += mean * tokens

    def _fill(
        self,
        view: View,
        prompt: str,
        seeds: list[int],
        sampling: Sampling,
        callback: PainterCallback | None,
    ) -> tuple[list[Tensor], Tensor, int]:
        """Fill one window: returns n images [1, 3, S, S] in [-1, 1], mean log-probabilities [n], and K."""
        needs = self.painter.needs
        painting = self.painter.paint(needs.window(view, self.device), prompt, seeds, sampling, callback)
        return [needs.signed(image) for image in painting.images], painting.scores, painting.tokens
