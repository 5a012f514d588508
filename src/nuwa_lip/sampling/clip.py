"""CLIP's similarity of pictures to a caption: the official protocol chooses among candidates by it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.pictures import viewable


@lru_cache(maxsize=1)
def load_clip(name: str | Path, need: str = "rank 'clip'") -> tuple[Any, Any]:
    """Load a CLIP that is on this machine already, and the processor that prepares its inputs.

    Args:
        name: folder of weights, or hub id in the local cache; nothing is downloaded.
        need: what needs CLIP, for the message.

    Raises:
        InputError: transformers or the weights are missing.
    """
    try:
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise InputError(f"{need} needs transformers: pip install 'nuwa-lip[transformers]'") from error
    try:
        model = CLIPModel.from_pretrained(name, local_files_only=True, use_safetensors=True).eval()
        return model, CLIPProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{need} needs CLIP's weights; {str(name)!r} is neither a folder of them nor in the local "
            f"cache: fetch it once with 'hf download {name}'"
        ) from error


@torch.inference_mode()
def clip_scores(images: list[Image.Image], prompt: str, name: str | Path) -> list[float]:
    """Compute the cosine similarity of each picture to the caption, -1 to 1.

    Args:
        images: pictures of any mode.
        prompt: the caption; CLIP reads its first 77 tokens.
        name: as for `load_clip`.

    Raises:
        InputError: transformers or the weights are missing.
    """
    model, processor = load_clip(name)
    inputs = processor(
        text=[prompt],
        images=[viewable(image) for image in images],
        return_tensors="pt",
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
    )
    return model(**inputs).logits_per_text[0].div(model.logit_scale.exp()).tolist()
