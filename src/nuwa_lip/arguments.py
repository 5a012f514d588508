"""What a call of the pipeline is given and gives back: all that can be refused is refused here, before the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import Hole, Photo, as_hole, as_photo, upright

if TYPE_CHECKING:
    from nuwa_lip.images.photo import Picture

NOT_HERE = {
    "height": "the result has the photo's size: leave it out, and resize the photo if need be",
    "width": "the result has the photo's size: leave it out, and resize the photo if need be",
    "strength": "nothing of the hole's content is ever used: leave it out",
    "negative_prompt": "the model knows no such prompt: leave it out, and say in `prompt` what is to be seen",
}
"""Arguments of diffusers' inpainting pipelines that mean nothing here, and why."""


def check(count: int, padding: int | None, output_type: str, rank: str) -> None:
    """Raises: InputError: one of these is out of range."""
    if count < 1:
        raise InputError(f"num_images_per_prompt is {count}; it must be 1 or more")
    if padding is not None and padding < 0:
        raise InputError(f"padding_mask_crop is {padding}; it must be 0 or more")
    if output_type not in ("pil", "np", "pt"):
        raise InputError(f"output_type is {output_type!r}; it must be 'pil', 'np' or 'pt'")
    if rank not in ("likelihood", "clip"):
        raise InputError(f"rank is {rank!r}; it must be 'likelihood' or 'clip'")


def refuse(**given: object) -> None:
    """Raises: InputError: an argument of diffusers' pipelines that does not apply here is given."""
    for name, value in given.items():
        if value not in (None, ""):
            raise InputError(f"{name} is {value!r}, but {NOT_HERE[name]}")


def together(
    image: Any, mask: Any, prompt: str | Sequence[str]
) -> tuple[list[Picture | Photo], list[Picture | Hole | None], list[str]]:
    """Photos, masks and prompts as lists of one length; one of a kind serves all.

    Raises:
        InputError: their numbers do not go together, or a prompt is no text.
    """
    photos, masks = _as_list(image), [None] if mask is None else _as_list(mask)
    prompts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
    count = max(len(photos), len(masks), len(prompts))
    lists: list[list[Any]] = [photos, masks, prompts]
    if any(len(items) not in (1, count) for items in lists):
        numbers = f"{len(photos)} images, {len(masks)} masks and {len(prompts)} prompts"
        raise InputError(f"{numbers} do not go together: give as many of each, or one")
    photos, masks, prompts = (items if len(items) == count else items * count for items in lists)
    for text in prompts:
        if not isinstance(text, str):
            raise InputError(f'the prompt is {type(text).__name__}: give text, "" for none')
    return photos, masks, prompts


def _as_list(pictures: Any) -> list[Any]:
    """A list as it is, a batch of arrays or tensors taken apart, a single picture as a list of one."""
    if isinstance(pictures, (list, tuple)):
        return list(pictures)
    return list(pictures) if getattr(pictures, "ndim", 0) == 4 else [pictures]


def read(
    pictures: list[Picture | Photo], masks: list[Picture | Hole | None], output_type: str
) -> list[tuple[Photo, Hole]]:
    """Photos and their holes.

    Raises:
        InputError: one of them cannot be used, or the results cannot be the one array that is asked for.
    """
    photos = [as_photo(picture) for picture in pictures]
    shapes = {(*photo.size, photo.pixels.shape[2]): photo.mode for photo in photos}
    if output_type != "pil" and len(shapes) > 1:
        found = ", ".join(f"{width}x{height} {mode}" for (height, width, _), mode in shapes.items())
        raise InputError(
            f"photos of several sizes or modes cannot be one array: {found}; use output_type='pil', not {output_type!r}"
        )
    pairs = []
    for photo, mask in zip(photos, masks, strict=True):
        pairs.append((photo, as_hole(mask, photo)))  # noqa: PERF401 - a warning counts the frames up to the caller
    return pairs


def output(photo: Photo, pixels: np.ndarray, output_type: str) -> Any:
    """A result's stored pixels as the kind of picture that was asked for; arrays upright, for they have no EXIF."""
    if output_type == "pil":
        return photo.to_pil(pixels)
    values = upright(pixels, photo.orientation).astype(np.float32) / np.float32(photo.scale)
    return values if output_type == "np" else torch.from_numpy(values).permute(2, 0, 1)


def gather(pictures: list[Any], output_type: str) -> Any:
    """All of them as a list, or one array or tensor."""
    if output_type == "pil":
        return pictures
    return np.stack(pictures) if output_type == "np" else torch.stack(pictures)
