"""What a call of the pipeline is given and gives back: all that can be refused is refused here, before the work."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nuwa_lip.errors import InputError
from nuwa_lip.images.hole import Hole, as_hole
from nuwa_lip.images.photo import Photo, as_photo, upright
from nuwa_lip.images.pictures import BY_CHANNELS

if TYPE_CHECKING:
    from nuwa_lip.images.pictures import Picture

NOT_HERE = {
    "height": "the result has the photo's size: leave it out, and resize the photo if need be",
    "width": "the result has the photo's size: leave it out, and resize the photo if need be",
    "strength": "nothing of the hole's content is ever used: leave it out",
    "negative_prompt": "the model knows no such prompt: leave it out, and say in `prompt` what is to be seen",
}
"""Arguments of diffusers' inpainting pipelines that mean nothing here, and why."""
MAX_COUNT = 100_000
DEFAULTS = {"strength": 1}
"""Those of them whose default is not None or "" alone."""


class Task(NamedTuple):
    """Holds one photo to repaint."""

    photo: Photo
    hole: Hole
    prompt: str


def given(**options: Any) -> dict[str, Any]:
    """Keep the options that are not None: those that the caller has given."""
    return {name: value for name, value in options.items() if value is not None}


def check(
    count: int, padding: int | None, output_type: str, rank: str, callback: object = None, composite: object = True
) -> None:
    """Check the arguments that are plain numbers, names and functions.

    Args:
        count: `num_images_per_prompt`, 1 or more.
        padding: `padding_mask_crop`, 0 or more.
        output_type: "pil", "np" or "pt".
        rank: "likelihood" or "clip".
        callback: `callback_on_step_end`, a function.
        composite: True or False.

    Raises:
        InputError: one of these is of another type, or out of range.
    """
    if not _is_whole(count) or not 1 <= count <= MAX_COUNT:
        raise InputError(f"num_images_per_prompt is {_shown(count)}; it must be a whole number, 1 to {MAX_COUNT:,}")
    if padding is not None and (not _is_whole(padding) or padding < 0):
        raise InputError(f"padding_mask_crop is {_shown(padding)}; it must be 0 or more, a whole number")
    if not isinstance(output_type, str) or output_type not in ("pil", "np", "pt"):
        raise InputError(f"output_type is {_shown(output_type)}; it must be 'pil', 'np' or 'pt'")
    if not isinstance(rank, str) or rank not in ("likelihood", "clip"):
        raise InputError(f"rank is {_shown(rank)}; it must be 'likelihood' or 'clip'")
    if callback is not None and not callable(callback):
        raise InputError(f"callback_on_step_end is {_shown(callback)}; it must be a function")
    if not isinstance(composite, bool):
        raise InputError(f"composite is {_shown(composite)}; it must be True or False")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Show a value as the user gave it, in a part of one line."""
    return f"{' '.join(repr(value).split()):.60}"


def refuse(**diffusers: object) -> None:
    """Refuse the arguments of diffusers' pipelines that do not apply here, unless they have their default.

    Raises:
        InputError: one of them has another value.
    """
    for name, value in diffusers.items():
        default = value is None or (isinstance(value, (str, int, float)) and value in ("", DEFAULTS.get(name, "")))
        if not default:
            raise InputError(f"{name} is {_shown(value)}, but {NOT_HERE[name]}")


def check_options(options: frozenset[str], given: Mapping[str, object]) -> None:
    """Refuse options that mean nothing to a painter.

    Raises:
        InputError: one of those that are given is none of its `options`.
    """
    for name, value in given.items():
        if name not in options:
            taken = ", ".join(sorted(options - {"prompt"}))
            raise InputError(f"{name} is {_shown(value)}, but this model has no such option: leave it out ({taken})")


def warn_of_captions(options: frozenset[str], tasks: Sequence[Task]) -> None:
    """Warn if there is a caption for a painter that reads none."""
    unread = "" if "prompt" in options else next((task.prompt for task in tasks if task.prompt), "")
    if unread:
        warnings.warn(f"this model reads no caption: {_shown(unread)} changes nothing", stacklevel=3)


def read_tasks(
    image: Any, mask: Any, prompt: str | Sequence[str], output_type: str, mask_orientation: str | None = None
) -> list[Task]:
    """Read photos, masks and prompts into tasks; a single one of a kind serves all tasks.

    Args:
        image: a picture, a list of them, or a batch of arrays or tensors [N, ...].
        mask: the same, for the masks, or [n, H, W] for n photos; None repaints what is transparent in each photo.
        prompt: a text, or a list of them.
        output_type: "np" and "pt" need photos of one size and mode.
        mask_orientation: as for `as_hole`.

    Raises:
        InputError: one of them cannot be used, or they do not go together.
    """
    pictures, masks, prompts = _together(image, mask, prompt)
    photos = [as_photo(picture) for picture in pictures]
    shapes = {(*photo.size, photo.pixels.shape[2]): photo.mode for photo in photos}
    if output_type != "pil" and len(shapes) > 1:
        found = ", ".join(f"{width}x{height} {mode}" for (height, width, _), mode in shapes.items())
        raise InputError(
            f"photos of several sizes or modes cannot be one array: {found}; use output_type='pil', not {output_type!r}"
        )
    tasks = []
    for photo, one, text in zip(photos, masks, prompts, strict=True):
        hole = as_hole(one, photo, orientation=mask_orientation)
        tasks.append(Task(photo, hole, text))  # noqa: PERF401 - a warning counts the frames up to the caller
    return tasks


def _together(
    image: Any, mask: Any, prompt: str | Sequence[str]
) -> tuple[list[Picture | Photo], list[Picture | Hole | None], list[str]]:
    """Bring photos, masks and prompts to lists of one length; one of a kind serves all."""
    photos = _as_list(image)
    masks = [None] if mask is None else _as_masks(mask, len(photos))
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
    """Leave a list as it is, take a batch of arrays or tensors apart, make a list of a single picture."""
    if isinstance(pictures, (list, tuple)):
        return list(pictures)
    return list(pictures) if getattr(pictures, "ndim", 0) == 4 else [pictures]


def _as_masks(masks: Any, photos: int) -> list[Any]:
    """Bring masks to a list as `_as_list` does; beside several photos, three dimensions are one mask for each.

    Raises:
        InputError: they are of another number of photos, or channels of one mask: which of these, nobody can tell.
    """
    if getattr(masks, "ndim", 0) != 3 or photos == 1 or len(masks) == 1:
        return _as_list(masks)
    if isinstance(masks, np.ndarray) and masks.shape[2] in BY_CHANNELS:
        return [masks]
    if len(masks) != photos:
        raise InputError(
            f"mask_image has shape {list(masks.shape)} beside {photos} images: give [{photos}, H, W], one mask for "
            "each, or [H, W] for all"
        )
    return list(masks)


def output(photo: Photo, pixels: np.ndarray, output_type: str) -> Any:
    """Turn a result's stored pixels into the kind of picture that was asked for.

    Args:
        photo: the photo that was repainted.
        pixels: [H, W, C], as `Photo.repainted` gives them.
        output_type: "pil", or float32 from 0 to 1 in "np" [H, W, C] or "pt" [C, H, W]; all are upright.
    """
    if output_type == "pil":
        return photo.shown(pixels)
    values = upright(pixels, photo.orientation).astype(np.float32) / np.float32(photo.scale)
    return values if output_type == "np" else torch.from_numpy(values).permute(2, 0, 1)


def gather(pictures: list[Any], output_type: str) -> Any:
    """Give Pillow pictures as a list, arrays or tensors as one."""
    if output_type == "pil":
        return pictures
    return np.stack(pictures) if output_type == "np" else torch.stack(pictures)
