"""The published GLIDE (64 to 256 px) through its official package, `glide_text2im`, repainting the hole only.

The package makes the networks and runs the diffusion; here weights are read as tensors, captions are guided, and known
pixels are put into every step at both sizes, by the mask itself rather than a rectangle around it.

Legend: S 64 or 256 px. The package's masks are 1 where a pixel is known, ours are True where it is not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nuwa_lip.baselines.glide.model import reduce_known
from nuwa_lip.baselines.squares import Painter, fastest, from_square, to_square
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.published import read_weights

FILES = {"base": "base_inpaint.pt", "finer": "upsample_inpaint.pt"}
URL = "https://openaipublic.blob.core.windows.net/diffusion/dec-2021/"
MEND = "git clone https://github.com/openai/glide-text2im, and pip install it or add the checkout to PYTHONPATH"
STEPS, GUIDANCE, FINER_STEPS = 100, 5.0, "fast27"  # as published
COOLER = 0.997
"""Factor on the super-resolution's first noise: less grain, as published."""
SIDE, FACTOR = 256, 4


class Network(NamedTuple):
    """One of the two networks with its diffusion."""

    model: Any
    diffusion: Any
    options: dict[str, Any]

    def words(self, caption: str) -> tuple[list[int], list[bool]]:
        """Encode a caption: word pieces and which of them count."""
        pieces = self.model.tokenizer.encode(caption) if caption else []
        return self.model.tokenizer.padded_tokens_and_mask(pieces, self.options["text_ctx"])


def load_published(folder: Path, *, steps: int | None, guidance: float | None) -> Painter:
    """Load the published weights as a painter of squares.

    Args:
        folder: with base_inpaint.pt and upsample_inpaint.pt.
        steps, guidance: of the base network; None: as published.

    Raises:
        InputError: the official package or a file is missing.
    """
    try:
        from glide_text2im import model_creation as official
    except ImportError as error:
        raise InputError(f"the published GLIDE needs the official package glide_text2im: {MEND}") from error
    base = official.model_and_diffusion_defaults()
    finer = official.model_and_diffusion_defaults_upsampler()
    base |= {"timestep_respacing": str(steps or STEPS)}
    finer |= {"timestep_respacing": FINER_STEPS}
    networks = {
        name: _network(official.create_model_and_diffusion, options, folder / FILES[name])
        for name, options in (("base", base), ("finer", finer))
    }
    scale = GUIDANCE if guidance is None else guidance

    @torch.inference_mode()
    def fill(image: np.ndarray, mask: np.ndarray, caption: str, seed: int) -> np.ndarray:
        x, m = (part.to(fastest()) for part in to_square(image, mask))
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # the package draws from torch's own
            small = _paint(networks["base"], caption, *reduce_known(x, m, FACTOR), scale=scale)
            low = ((small + 1) * 127.5).round() / 127.5 - 1
            return from_square(_paint(networks["finer"], caption, x, m, coarse=low))

    return Painter(fill, SIDE)


def _network(create: Callable[..., Any], options: dict[str, Any], path: Path) -> Network:
    options = {**options, "inpaint": True, "use_fp16": False}
    if not path.is_file():
        raise InputError(f"{path} is missing: fetch {URL}{path.name} and save it there")
    model, diffusion = create(**options)
    try:
        model.load_state_dict(read_weights(path))
    except RuntimeError as error:
        raise InputError(f"{path} is not the published {path.name}: {first_line(error)}") from error
    return Network(model.eval().to(fastest()), diffusion, options)


def _paint(
    network: Network, caption: str, known: Tensor, mask: Tensor, *, scale: float = 1.0, coarse: Tensor | None = None
) -> Tensor:
    """Run one network's diffusion: [1, 3, S, S] in [-1, 1], known pixels as given.

    Args:
        known: [1, 3, S, S], zero in the hole.
        mask: bool [1, 1, S, S], True = to repaint.
        scale: of guidance, 1: none.
        coarse: what the super-resolution enlarges.
    """
    captions = [caption] if scale == 1 else [caption, ""]
    pieces, counts = zip(*(network.words(text) for text in captions), strict=True)
    rows = len(captions)
    given = {
        "tokens": torch.tensor(pieces, device=known.device),
        "mask": torch.tensor(counts, dtype=torch.bool, device=known.device),
        "inpaint_image": known.repeat(rows, 1, 1, 1),
        "inpaint_mask": (~mask).float().repeat(rows, 1, 1, 1),
    }
    if coarse is not None:
        given["low_res"] = coarse.repeat(rows, 1, 1, 1)

    def predict(x: Tensor, time: Tensor, **inputs: Any) -> Tensor:
        if rows == 1:
            return network.model(x, time, **inputs)
        said = network.model(x[:1].repeat(rows, 1, 1, 1), time, **inputs)
        noise, rest = said[:, :3], said[:, 3:]  # the rest is the variance
        noise = noise[1:] + scale * (noise[:1] - noise[1:])
        return torch.cat([noise.repeat(rows, 1, 1, 1), rest], 1)

    shape = (rows, *known.shape[1:])
    first = torch.randn(shape, device=known.device) * (1.0 if coarse is None else COOLER)
    painted = network.diffusion.p_sample_loop(
        predict,
        shape,
        noise=first,
        device=known.device,
        clip_denoised=True,
        model_kwargs=given,
        denoised_fn=lambda x: torch.where(mask, x, known),
    )[:1]
    return torch.where(mask, painted, known)
