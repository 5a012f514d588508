"""Any inpainting pipeline of diffusers as a painter: Stable Diffusion, SDXL, FLUX, Qwen-Image and others.

The class is the one that the folder's model_index.json names or, where that paints whole pictures only, the one of the
same family for inpainting. The square's side comes from its configuration. It is given the window with grey in the hole
and paints from nothing but noise (strength 1); whatever it does to known pixels is thrown away by the pipeline.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nuwa_lip.painters.folders import class_of, side_of, warn_if_cut
from nuwa_lip.painters.painter import Callback, Needs, Painting, Window, counted
from nuwa_lip.sampling import Sampling


class Diffusion:
    """Holds a pipeline of diffusers.

    Args:
        pipe: one for inpainting.
        steps: its steps by default; None: those that it takes itself.
        guidance: the same, for its guidance scale.
    """

    def __init__(self, pipe: Any, steps: int | None = None, guidance: float | None = None) -> None:
        self.pipe, self.takes = pipe, inspect.signature(type(pipe).__call__).parameters
        usual = {name: one.default for name, one in self.takes.items()}
        # where the scale is None it stands for a number within a distilled network; the true one has another name
        self.scale = "guidance_scale" if usual.get("guidance_scale") is not None else "true_cfg_scale"
        if pipe.config.get("is_distilled"):
            steps, guidance = steps or 4, 1.0 if guidance is None else guidance
        guidance = usual.get(self.scale, 1.0) if guidance is None else guidance
        multiple = pipe.image_processor.config.vae_scale_factor
        self.needs = Needs(
            resolution=side_of(pipe) // multiple * multiple,
            multiple=multiple,
            value_range=(0.0, 1.0),
            hole=128 / 255,
            options=frozenset({"prompt", "blend", "num_inference_steps"} | {"guidance_scale"} & {self.scale, *usual}),
            sampling=Sampling(guidance_scale=guidance, num_inference_steps=steps or usual["num_inference_steps"]),
        )

    @property
    def device(self) -> torch.device:
        """Return the device that holds the model."""
        return self.pipe.device

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Move the model."""
        self.pipe.to(*args, **kwargs)

    @torch.no_grad()
    def paint(
        self, window: Window, prompt: str, seeds: list[int], sampling: Sampling, callback: Callback | None
    ) -> Painting:
        """Paint candidates, one by one; it knows no probabilities.

        Args:
            window, prompt, seeds, sampling, callback: as for `Painter.paint`.
        """
        side, S = self.needs.resolution, sampling.num_inference_steps or 1
        warn_if_cut(prompt, *(part for name, part in self.pipe.components.items() if name.startswith("tokenizer")))
        mask = window.mask.float()
        if hasattr(self.pipe, "vqvae"):  # at the tokens' size already, lest those at the edge be taken for known
            mask = F.max_pool2d(mask, self.pipe.vae_scale_factor)
        given: dict[str, Any] = {"prompt": prompt, "image": _picture(window.image), "mask_image": _picture(mask)}
        wanted: dict[str, Any] = {"height": side, "width": side, "strength": 1.0, self.scale: sampling.guidance_scale}
        if self.scale == "true_cfg_scale":
            wanted["negative_prompt"] = " "
        given |= {name: value for name, value in wanted.items() if name in self.takes}
        images = []
        for seed, progress in counted(seeds, callback):

            def after(pipe: Any, step: int, time: Any, tensors: Any, progress: Callback = progress) -> dict[str, Any]:
                progress(step + 1, getattr(pipe, "num_timesteps", S))
                return {}

            report = {"callback_on_step_end": after} if "callback_on_step_end" in self.takes else {}
            generator = torch.Generator().manual_seed(seed)
            out = self.pipe(generator=generator, num_inference_steps=S, output_type="np", **given, **report)
            images.append(torch.from_numpy(out.images[0]).permute(2, 0, 1)[None])
        return Painting(images, torch.zeros(len(seeds)))


def load_diffusion(
    folder: Path, dtype: torch.dtype, steps: int | None = None, guidance: float | None = None
) -> Diffusion:
    """Load a pipeline from a folder: safetensors only, nothing fetched.

    Args:
        folder: as its maker has saved it.
        dtype: precision of the weights.
        steps, guidance: defaults in place of diffusers'.

    Raises:
        InputError: it is of another kind.
    """
    kind = class_of(folder)
    # a safety checker would paint some pictures black
    less = {"safety_checker": None} if "safety_checker" in inspect.signature(kind.__init__).parameters else {}
    pipe = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True, **less)
    pipe.set_progress_bar_config(disable=True)
    return Diffusion(pipe, steps, guidance)


def _picture(x: Tensor) -> Image.Image:
    """Make a picture of values from 0 to 1, [1, C, H, W]."""
    values = (x[0].cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(values if values.shape[2] == 3 else values[..., 0])
