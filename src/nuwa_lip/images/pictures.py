"""Pictures as users have them (Pillow images, arrays, tensors): their pixels as an array, and as a viewer shows them.

Legend: H W height and width, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images.exif import decode, turn_upright

if TYPE_CHECKING:
    from torch import Tensor

    Picture = Image.Image | np.ndarray | Tensor

DEEP = "16-bit colours"  # key of an image's info: what Pillow has no mode for, uint16 [H, W, C]
BY_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def as_array(values: Any, name: str) -> np.ndarray:
    """Bring an array or a tensor to [H, W, C], without a copy where none is needed.

    Args:
        values: array [H, W], [H, W, C] or [1, H, W], tensor [H, W] or [C, H, W]; each may stand in a batch of one.
        name: the argument's name, for the message.

    Raises:
        InputError: it is something else, it is empty, or C is not 1 to 4.
    """
    if isinstance(values, np.ndarray):
        array = values
    elif hasattr(values, "detach"):
        try:
            tensor = values.detach().cpu()
            array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        except (TypeError, RuntimeError) as error:  # sparse, or without data
            raise InputError(f"{name} is a tensor that cannot be read: {first_line(error)}") from error
        if array.ndim > 2:
            array = np.moveaxis(array, -3, -1)
    else:
        raise InputError(f"{name} is {type(values).__name__}: give a Pillow image, a numpy array or a torch tensor")
    shape = list(values.shape)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in BY_CHANNELS and array.shape[0] == 1:
        array = array[0]  # an array [1, H, W]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in BY_CHANNELS or not array.size:
        raise InputError(f"{name} has shape {shape}: give [H, W], [H, W, C] or, as a tensor, [C, H, W]")
    return array


def load(image: Image.Image, name: str) -> Image.Image:
    """Decode a picture that Pillow has only opened so far, before its orientation is read: Pillow turns TIFF itself.

    Args:
        image: a Pillow image.
        name: what it is, for the message.

    Raises:
        InputError: it is damaged, closed, or has no pixels.
    """
    try:
        decode(image)
    except Exception as error:  # decoders of damaged files raise anything
        raise InputError(f"{name} cannot be decoded: {first_line(error)}") from error
    if not image.width * image.height:
        raise InputError(f"{name} is {image.width}x{image.height}: it has no pixels")
    return image


def viewable(image: Image.Image) -> Image.Image:
    """Convert any picture to what a viewer shows: upright, RGB, on white where it is transparent."""
    image = turn_upright(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which Pillow would cut rather than scale
        image = reduce_depth(image)
    return image.convert("RGB")


def reduce_depth(image: Image.Image) -> Image.Image:
    """Reduce a picture of 16 bits (modes I and I;16), or of numbers from 0 to 1 (mode F), to 8 bits."""
    values = np.asarray(image)
    return Image.fromarray(to_bytes(values) if image.mode == "F" else (values >> 8).clip(0, 255).astype(np.uint8))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Convert floating-point numbers from 0 to 1 to uint8; what is hidden may be anything, even NaN."""
    return np.rint(np.nan_to_num(values).clip(0, 1) * 255).astype(np.uint8)
