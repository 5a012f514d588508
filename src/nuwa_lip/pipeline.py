"""The inpainting pipeline: the whole of the paper's Fig. 3 on one page, top down.

photo, mask → windows around the holes → known pixels at the model's size → DF-VQGAN encodes them (Eq. 7)
→ MP-S2S predicts the hole's tokens from caption, pixels and known tokens (Eq. 15) → DF-VQGAN decodes with the
symmetrical connections (Eq. 11, 12) → back to the window's size, blended with its surroundings if asked for → only the
hole's pixels are pasted.

Legend: B = 1 window, S side of the model's square, h w token grid, n candidates.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nuwa_lip import arguments as calls
from nuwa_lip import hub
from nuwa_lip.clip import clip_scores, load_clip
from nuwa_lip.errors import InputError
from nuwa_lip.fast.cuda_graphs import without_plans
from nuwa_lip.fast.kernels import compile_step
from nuwa_lip.fast.quantise import is_quantised, quantise
from nuwa_lip.hub import SamplingDefaults
from nuwa_lip.images.photo import Hole, Patch, Photo
from nuwa_lip.images.seams import blend as blend_in
from nuwa_lip.images.windows import Box, View, find_windows, look
from nuwa_lip.models import DFVQGAN, MPS2S
from nuwa_lip.sampling import candidate_seeds, sample
from nuwa_lip.tokenizer import CaptionTokenizer

if TYPE_CHECKING:
    from nuwa_lip.images.photo import Picture

Callback = Callable[["InpaintPipeline", int, int, dict[str, Any]], Any]
WINDOW_STRIDE = 0x9E3779B97F4A7C15  # between the seeds of two windows of one candidate; far from any seed + i
MAX_ENLARGEMENT = 2
SMALL = 64_000_000
"""Parameters of an MP-S2S whose steps are too short to be divided among cores."""
_cores_lock = threading.Lock()
"""Held while the number of cores that new threads begin with is another one than it should be."""


@dataclass
class InpaintOutput:
    """Candidates, best first within each photo; photo after photo if there were several."""

    images: Any
    """Pictures of the size and mode of the input; or float32 [N, H, W, C] or [N, C, H, W] from 0 to 1."""
    scores: list[float]
    """Mean log-probability of each candidate's repainted tokens."""
    seeds: list[int]
    """The seed that gives each candidate again."""


@dataclass
class Candidate:
    """One way to repaint a photo."""

    seed: int
    patches: list[Patch] = field(default_factory=list)
    """One for each window."""
    tokens: int = 0
    total: float = 0.0
    """Log-probability of all these tokens."""

    @property
    def score(self) -> float:
        """Mean log-probability of a token."""
        return self.total / self.tokens


class InpaintPipeline:
    """Repaints the hole of a photo from a caption.

    Args:
        dfvqgan, mps2s, tokenizer: the parts of a model.
        sampling: what to use where a call does not say.
        card: the model card, saved along.
    """

    clip: str | Path = "openai/clip-vit-base-patch32"
    """Weights for rank="clip": a local folder, or a hub id that is in the local cache."""

    def __init__(
        self,
        dfvqgan: DFVQGAN,
        mps2s: MPS2S,
        tokenizer: CaptionTokenizer,
        sampling: SamplingDefaults | None = None,
        card: str | None = None,
    ) -> None:
        self.dfvqgan, self.mps2s, self.tokenizer = dfvqgan, mps2s, tokenizer
        self.sampling = sampling or SamplingDefaults()
        self.card = card
        self.compiled = False

    @classmethod
    def from_pretrained(
        cls, name: str | Path, torch_dtype: torch.dtype | None = None, weights: str | None = None
    ) -> Self:
        """Load a model: bundled name, local folder, or hub id; safetensors only.

        Args:
            name: "nuwa-lip-mini", a folder, or "organisation/name".
            torch_dtype: precision of the weights, float32 by default.
            weights: form of what every decoding step on a CPU reads (see `nuwa_lip.fast.quantise`): "packed" for speed
                alone, "int8", "int8-weights" or "int4" for few bits, best with torch_dtype=torch.bfloat16; None: as
                they are.

        Raises:
            InputError: there is no such model, it is not whole, or there are no such weights.
        """
        parts = hub.load_model(name, dtype=torch_dtype or torch.float32)
        if parts.mps2s is None or parts.tokenizer is None:
            raise InputError(f"{name} holds a DF-VQGAN only (stage 1)")
        if weights is not None:
            quantise(parts.mps2s, weights)
        return cls(parts.dfvqgan, parts.mps2s, parts.tokenizer, parts.sampling, parts.card)

    @property
    def resolution(self) -> int:
        """S, the side of the working window in pixels."""
        return self.dfvqgan.config.resolution

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.dfvqgan.last_layer.device

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the model, as `torch.nn.Module.to` does; photos stay on the CPU.

        To a GPU: cuDNN's attention is then left out in this process (`fast.cuda_graphs.without_plans`).

        Raises:
            InputError: its weights have a form that stays where it was made, or the device lacks what is needed.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "mps":
            raise InputError("Apple's GPU (mps) has no float64, in which tokens are drawn: take the CPU")
        if is_quantised(self.mps2s):
            if device in (None, self.device) and dtype in (None, self.dfvqgan.last_layer.dtype):
                return self
            raise InputError(
                "such weights stay as they are, on the CPU: load the model without `weights`, and move that"
            )
        self.dfvqgan.to(*args, **kwargs)
        self.mps2s.to(*args, **kwargs)
        without_plans(self.device)
        return self

    def compile(self) -> Self:
        """Make decoding faster for all photos but the first ones, by `torch.compile`; see `kernels.compile_step`.

        On a GPU a step of one token becomes a CUDA graph besides (`nuwa_lip.fast.cuda_graphs`).

        Raises:
            InputError: the tools that it needs are not installed, or do not work.
        """
        compile_step(self.mps2s)
        self.compiled = True
        return self

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a model folder; options are those of `hub.save_model`: dtype, max_file_size."""
        hub.save_model(folder, **self._parts(), **options)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **options: Any) -> str:
        """Upload to the Hugging Face hub, and return the address."""
        return hub.push_to_hub(repo_id, private=private, **self._parts(), **options)

    def _parts(self) -> dict[str, Any]:
        if is_quantised(self.mps2s):
            raise InputError("such weights cannot be saved: load the model without `weights`, and save that")
        names = ("dfvqgan", "mps2s", "tokenizer", "sampling", "card")
        return {name: getattr(self, name) for name in names}

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
        blend: bool | None = None,
        composite: bool = True,
        height: int | None = None,
        width: int | None = None,
        strength: float = 1.0,
        negative_prompt: str | Sequence[str] | None = None,
    ) -> InpaintOutput:
        """Repaint one photo, or several.

        Args:
            prompt: what the picture shows, or one for each photo; "" is allowed.
            image: Pillow image of any mode, array [H, W, C] or tensor [C, H, W] (uint8, or floats from 0
                to 1); a list, or a batch dimension, for several.
            mask_image: the same size; white (128 to 255, True, 0.5 to 1) is repainted; None: what is
                transparent in the photo.
            num_images_per_prompt: n candidates for each photo.
            guidance_scale: above 1 follows the caption more closely. None, here and below: as the model says.
            temperature: 0 and more; below 1 safer, above 1 wilder.
            top_k: sample from the k likeliest tokens only; 0 from all.
            top_p: sample from the likeliest tokens that together have this probability, 0 to 1.
            order: "raster", or another that `nuwa_lip.sampling.loop` knows; with "confidence" among equals only.
            num_inference_steps: predict the hole's tokens in so many parallel steps; as many as there are tokens, or
                more: one by one.
            schedule: "cosine" decides few tokens in the first of these steps and more in later ones, "constant" as
                many in each, "confidence" those of which the model is surest.
            padding_mask_crop: pixels of context around a hole instead of what is chosen.
            generator: with seed s candidate i gets the seed s + i; a list has one for each candidate.
            output_type: "pil", "np" or "pt".
            rank: what puts the best first: the model's likelihood, or CLIP's similarity to the caption.
            callback_on_step_end: called as f(pipe, step, steps, {}) after each step in a window, from 1.
            blend: fit the colours of what is painted to the known pixels at the hole's edge (`nuwa_lip.images.seams`).
            composite: off, to study a model: the whole of each window is the model's, known pixels too.
            height, width, strength, negative_prompt: of diffusers' pipelines; they do not apply here, and any but the
                default is refused with what to do instead.

        Raises:
            InputError: something given cannot be used.
        """
        given: dict[str, Any] = {
            "guidance_scale": guidance_scale,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "order": order,
            "num_inference_steps": num_inference_steps,
            "schedule": schedule,
            "blend": blend,
        }
        with _cores_lock:
            torch.get_num_threads()  # settles this thread's number, if it computes for the first time
        sampling = replace(self.sampling, **{key: value for key, value in given.items() if value is not None})
        calls.check(num_images_per_prompt, padding_mask_crop, output_type, rank)
        calls.refuse(
            height=height, width=width, strength=None if strength == 1 else strength, negative_prompt=negative_prompt
        )
        photos, masks, prompts = calls.together(image, mask_image, prompt)
        pairs = calls.read(photos, masks, output_type)
        seeds = candidate_seeds(generator, num_images_per_prompt, len(photos))
        if rank == "clip":
            load_clip(self.clip)  # its absence is told before the work
        step = None if callback_on_step_end is None else partial(_call_back, callback_on_step_end, self)

        pictures, scores, used = [], [], []
        for (photo, hole), text, own in zip(pairs, prompts, seeds, strict=True):
            candidates = [Candidate(seed) for seed in own]
            self._repaint(candidates, photo, hole, text, sampling, padding_mask_crop, step)
            if not composite:
                for c in candidates:
                    c.patches = [patch._replace(mask=np.ones_like(patch.mask)) for patch in c.patches]
            results = [photo.repainted(c.patches, hole.opaque) for c in candidates]
            merits = [c.score for c in candidates]
            if rank == "clip":
                merits = clip_scores([photo.to_pil(pixels) for pixels in results], text, self.clip)
            for i in sorted(range(len(candidates)), key=lambda i: -merits[i]):  # noqa: B023 - called at once
                pictures.append(calls.output(photo, results[i], output_type))
                scores.append(candidates[i].score)
                used.append(candidates[i].seed)
        return InpaintOutput(calls.gather(pictures, output_type), scores, used)

    @torch.inference_mode()
    def _repaint(
        self,
        candidates: list[Candidate],
        photo: Photo,
        hole: Hole,
        prompt: str,
        sampling: SamplingDefaults,
        padding: int | None,
        callback: Callable[[int, int], None] | None,
    ) -> None:
        """Give every candidate a patch for each window; no window sees what another one has painted."""
        windows = find_windows(hole.mask, self.resolution, padding)
        enlarged = max(max(w.height, w.width) for w in windows) / self.resolution
        if enlarged > MAX_ENLARGEMENT:
            warnings.warn(
                f"the hole is large: what is painted is enlarged {enlarged:.1f} times and may look soft",
                stacklevel=4,
            )
        for number, window in enumerate(windows):
            seeds = [window_seed(candidate.seed, number) for candidate in candidates]
            view = look(photo, hole.mask, window, self.resolution)
            images, logp, tokens = self._fill(view, prompt, seeds, sampling, callback)
            box = window.within(photo.size)
            painted = [_back(image, window, photo.size) for image in images]
            if sampling.blend:
                hidden = photo.hidden(hole.mask, box)
                known = photo.rgb(box, hidden)
                painted = [blend_in(rgb, known, hole.mask[box], hidden) for rgb in painted]
            for candidate, rgb, mean in zip(candidates, painted, logp.tolist(), strict=True):
                candidate.patches.append(Patch(box, hole.mask[box], rgb))
                candidate.tokens += tokens
                candidate.total += mean * tokens

    def _fill(
        self,
        view: View,
        prompt: str,
        seeds: list[int],
        sampling: SamplingDefaults,
        callback: Callable[[int, int], None] | None,
    ) -> tuple[list[Tensor], Tensor, int]:
        """Fill one window → (n images [1, 3, S, S] in [-1, 1], mean log-probabilities [n], K)."""
        mask = torch.from_numpy(view.mask)[None, None].to(self.device)  # [1, 1, S, S]
        image = torch.from_numpy(view.image).permute(2, 0, 1)[None].to(self.device) * 2 - 1
        image = image.masked_fill(mask, 0)

        encoding = self.dfvqgan.encode(image, mask)
        assert encoding.token_mask is not None
        caption, none = (self.tokenizer([text]).to(self.device) for text in (prompt, ""))
        memory = self.mps2s.encode(caption, image, mask, encoding.tokens, encoding.token_mask)
        unconditional = self.mps2s.retell(memory, none) if sampling.guidance_scale != 1 else None
        with _one_core(sum(p.numel() for p in self.mps2s.parameters()) < SMALL):
            tokens, logp = sample(
                self.mps2s,
                memory,
                num_candidates=len(seeds),
                unconditional=unconditional,
                guidance_scale=sampling.guidance_scale,
                temperature=sampling.temperature,
                top_k=sampling.top_k or None,
                top_p=sampling.top_p,
                order=sampling.order,
                num_inference_steps=sampling.num_inference_steps,
                schedule=sampling.schedule,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                graph=self.compiled,
                callback=callback,
            )
        # one by one: a candidate's picture must not depend on how many there are
        images = [self.dfvqgan.decode(one[None], encoding.skips) for one in tokens]
        return images, logp, int(memory.token_mask.sum())


@contextmanager
def _one_core(really: bool) -> Iterator[None]:
    """Compute on one core: several wait for each other after each operation, long if others use them too.

    Each thread has a number of its own, and begins with the one that was set last, in whatever thread: for that, not to
    be the 1 of this one, another thread sets the usual number at once.
    """
    before = torch.get_num_threads()
    if not really or before == 1:
        yield
        return
    usual = threading.Thread(target=torch.set_num_threads, args=(before,))
    try:
        with _cores_lock:
            torch.set_num_threads(1)
            usual.start()
            usual.join()
        yield
    finally:
        torch.set_num_threads(before)


def window_seed(seed: int, number: int) -> int:
    """The seed of a candidate's window; the first has the candidate's own."""
    return (seed + number * WINDOW_STRIDE) % 2**64


def _back(image: Tensor, window: Box, size: tuple[int, int]) -> np.ndarray:
    """The model's image [1, 3, S, S] → the window's part inside the photo, float32 [h, w, 3] from 0 to 1."""
    rows, columns = window.within(size)
    # one axis after the other: a window may reach far beyond a strip of a photo
    image = _resize(image, (window.height, image.shape[3]))
    image = image[:, :, rows.start - window.top : rows.stop - window.top]
    image = _resize(image, (image.shape[2], window.width))
    image = image[0, :, :, columns.start - window.left : columns.stop - window.left]
    return ((image + 1) / 2).clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[2:] == size:
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=True)


def _call_back(function: Callback, pipe: InpaintPipeline, step: int, total: int) -> None:
    function(pipe, step, total, {})
