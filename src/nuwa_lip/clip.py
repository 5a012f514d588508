"""CLIP's similarity of pictures to a caption: the official protocol's way to choose among candidates."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images import viewable


def clip_scores(images: list[Image.Image], prompt: str, name: str | Path) -> list[float]:
    """Cosine similarity of each picture to the caption, by a CLIP that is on this machine already.

    Args:
        images: pictures of any mode.
        prompt: the caption; CLIP reads its first 77 tokens.
        name: folder of weights, or hub id in the local cache; nothing is downloaded.

    Raises:
        InputError: transformers or the weights are missing.
    """
    try:
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise InputError("rank 'clip' needs transformers: pip install 'nuwa-lip[transformers]'") from error
    try:
        model = CLIPModel.from_pretrained(name, local_files_only=True, use_safetensors=True).eval()
        processor = CLIPProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"rank 'clip' needs CLIP's weights; {str(name)!r} is neither a folder of them nor in the local "
            f"cache: fetch it once with 'hf download {name}'"
        ) from error
    inputs = processor(
        text=[prompt], images=[viewable(image) for image in images], return_tensors="pt", truncation=True
    )
    with torch.inference_mode():
        return model(**inputs).logits_per_text[0].div(model.logit_scale.exp()).tolist()
