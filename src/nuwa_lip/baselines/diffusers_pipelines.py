"""aMUSEd and Stable Diffusion inpainting through diffusers, from a local folder or the hub's cache.

Both get the window with grey in its hole. aMUSEd's tokens are defective if any pixel under them is, as ours are;
left to itself it would take those at the hole's edge, which are half grey, for known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.baselines.squares import Painter, fastest
from nuwa_lip.errors import InputError, first_line

DEFAULTS = {"amused": "amused/amused-512", "stable-diffusion": "stable-diffusion-v1-5/stable-diffusion-inpainting"}
"""Hub ids of the published weights."""


def load_pipeline(name: str, options: BaselineOptions) -> Painter:
    """Load one of `DEFAULTS` as a painter of squares.

    Args:
        name: "amused" or "stable-diffusion".
        options: `model` is a folder or a hub id.

    Raises:
        InputError: diffusers, transformers or the weights are missing, or the weights are of another pipeline.
    """
    pipe = _load(name, options)
    factor = pipe.vae_scale_factor
    if name == "amused":
        side = pipe.transformer.config.sample_size * factor
    else:
        side = pipe.unet.config.sample_size * factor
    given: dict[str, Any] = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
    given = {key: value for key, value in given.items() if value is not None}

    def fill(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
        if name == "amused":
            cells = np.asarray(mask.reshape(side // factor, factor, side // factor, factor).any((1, 3)))
            extra: dict[str, Any] = {"mask_image": _white(cells)}
        else:
            extra = {"mask_image": _white(mask), "height": side, "width": side, "strength": 1.0}
        generator = torch.Generator().manual_seed(seed)
        out = pipe(prompt=caption, image=Image.fromarray(image), generator=generator, **extra, **given)
        return np.asarray(out.images[0].convert("RGB"))

    return Painter(fill, side)


def _load(name: str, options: BaselineOptions) -> Any:
    try:
        import transformers  # noqa: F401 - without it diffusers has stand-ins that fail late
        from diffusers import AmusedInpaintPipeline, DiffusionPipeline
    except ImportError as error:
        raise InputError(
            f"--baseline {name} needs diffusers and transformers: pip install 'nuwa-lip[baselines]'"
        ) from error
    # aMUSEd's folders name its other pipeline, Stable Diffusion's for inpainting name their own (there are several)
    kind = AmusedInpaintPipeline if name == "amused" else DiffusionPipeline
    source = options.model or DEFAULTS[name]
    try:
        pipe = kind.from_pretrained(source, local_files_only=not options.download, use_safetensors=True)
    except Exception as error:  # of many libraries: no such folder, not cached, no network, another pipeline
        reason = first_line(error)
        raise InputError(
            f"--baseline {name}: {source!r} is neither a folder of its weights (safetensors) nor in the hub's cache: "
            f"fetch it by 'hf download {source}' or by --download, or give a folder by --baseline-model ({reason})"
        ) from error
    if "Inpaint" not in type(pipe).__name__ or not hasattr(pipe, "unet" if name != "amused" else "transformer"):
        raise InputError(f"{source} is a {type(pipe).__name__}; --baseline {name} takes one for inpainting")
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.safety_checker = None  # it would paint some pictures black, which are then measured
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(fastest())


def _white(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)
