"""Folders of diffusers' layout: which class paints holes with what lies there, and how large a square."""

import inspect
import warnings
from pathlib import Path
from typing import Any

from nuwa_lip.disk import read_object
from nuwa_lip.errors import InputError

INDEX = "model_index.json"
"""What such a folder has at its top."""
WANTED = {"prompt", "image", "mask_image", "generator", "num_inference_steps", "output_type"}
"""Arguments that a pipeline for inpainting from a caption has."""


def silence() -> None:
    """Switch off the progress bars and advice of diffusers and transformers, which is not for who only paints.

    Raises:
        ImportError: one of them is missing.
    """
    import transformers  # isort: skip - first, because without it diffusers has stand-ins that fail late
    import diffusers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def kind_of(folder: Path) -> str:
    """Return the name of the class that a folder's pipeline was saved as.

    Raises:
        InputError: its model_index.json cannot be read.
    """
    return str(read_object(folder / INDEX).get("_class_name"))


def class_of(folder: Path) -> Any:
    """Choose diffusers' class for inpainting with the weights of a folder.

    Raises:
        InputError: there is none.
    """
    import diffusers

    name = kind_of(folder)
    for one in (name, name.replace("Pipeline", "InpaintPipeline")):
        kind = getattr(diffusers, one, None)
        if kind is not None and set(inspect.signature(kind.__call__).parameters) >= WANTED:
            return kind
    raise InputError(f"{folder} is a {name}: diffusers has no pipeline for inpainting from a caption with it")


def warn_if_cut(text: str, *tokenizers: Any) -> None:
    """Warn if a caption is longer than each of a model's tokenizers takes: what is beyond is not read."""
    longest = max(tokenizers, key=lambda one: one.model_max_length, default=None)
    ids = [] if longest is None else longest(text, truncation=False).input_ids
    if longest is not None and len(ids) > longest.model_max_length:
        kept = longest.decode(ids[: longest.model_max_length - 1], skip_special_tokens=True)
        warnings.warn(f"the caption is too long, and cut after '... {kept[-40:]}'", stacklevel=2)


def side_of(pipe: Any) -> int:
    """Return the side that a pipeline was trained on, in pixels."""
    parts = (getattr(pipe, name, None) for name in ("unet", "transformer"))
    sizes: list[Any] = [part.config.get("sample_size") for part in parts if part is not None]
    size = next((size for size in sizes if size), getattr(pipe, "default_sample_size", 128))
    return (size if isinstance(size, int) else min(size)) * pipe.vae_scale_factor
