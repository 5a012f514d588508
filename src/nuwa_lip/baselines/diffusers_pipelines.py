"""aMUSEd and Stable Diffusion inpainting as diffusers has them, from a local folder or the hub's cache.

They paint as `nuwa_lip.painters.diffusion` lets every pipeline of diffusers paint, in the baselines' windows.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.baselines.squares import Painter, fastest
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.painters.diffusion import Diffusion, load_diffusion
from nuwa_lip.painters.folders import kind_of, silence
from nuwa_lip.painters.painter import Window

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
    painter, device = _load(name, options), fastest()
    painter.to(device)
    given = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
    sampling = replace(painter.needs.sampling, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]

    def fill(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device) / 255
        window = Window(pixels, torch.from_numpy(mask)[None, None].to(device))
        painted = painter.paint(window, caption, [seed], sampling, None).images[0][0]
        return (painted.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()

    return Painter(fill, painter.needs.resolution)


def _load(name: str, options: BaselineOptions) -> Diffusion:
    source = options.model or DEFAULTS[name]
    try:
        silence()
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise InputError(
            f"--baseline {name} needs diffusers and transformers: pip install 'nuwa-lip[baselines]'"
        ) from error
    try:
        folder = Path(source)
        if not folder.is_dir():
            how = {"local_files_only": not options.download, "use_safetensors": True}
            folder = Path(DiffusionPipeline.download(source, **how))
        kind = kind_of(folder)
        painter = load_diffusion(folder, torch.float32)
    except Exception as error:  # of many libraries: no such folder, not cached, no network, another pipeline
        reason = first_line(error)
        raise InputError(
            f"--baseline {name}: {source!r} is neither a folder of its weights (safetensors) nor in the hub's cache: "
            f"fetch it by 'hf download {source}' or by --download, or give a folder by --baseline-model ({reason})"
        ) from error
    if ("Amused" if name == "amused" else "StableDiffusionInpaint") not in kind:
        raise InputError(f"{source} is a {kind}; --baseline {name} takes one for inpainting")
    return painter
