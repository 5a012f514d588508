"""Sheets of a training's samples, drawn from tensors.

Legend: B rows, H W height and width of a column's pictures.
"""

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from nuwa_lip.images.sheets import HOLE, draw_sheet


def sample_sheet(columns: Mapping[str, Tensor], captions: Sequence[str]) -> Image.Image:
    """Draw columns of pictures, heading → [B, 3, H, W] in [-1, 1], with each row above its caption."""
    pictures = [[to_pil(image) for image in images] for images in columns.values()]
    rows = list(zip(zip(*pictures, strict=True), captions, strict=True))
    return draw_sheet(rows, tuple(columns), cell=160)


def grey_hole(images: Tensor, masks: Tensor) -> Tensor:
    """Paint the holes, bool [B, 1, H, W], of photos [B, 3, H, W] grey."""
    return images.masked_fill(masks, HOLE / 127.5 - 1)


def to_pil(image: Tensor) -> Image.Image:
    """Turn a picture [3, H, W] in [-1, 1] into RGB."""
    pixels = ((image.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
