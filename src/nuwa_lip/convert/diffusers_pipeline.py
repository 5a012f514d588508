"""A custom pipeline for diffusers: the line that loads an inpainting model changes, the call stays.

    pipe = DiffusionPipeline.from_pretrained(MODEL, custom_pipeline="pipeline.py", trust_remote_code=True)
    pipe(prompt="a red door", image=photo, mask_image=mask).images[0]

MODEL is what `nuwa-lip export --format diffusers` has written, or any other model with a model_index.json that
`InpaintPipeline.from_pretrained` takes. Photos of any size and mode are taken, and every known pixel comes back equal
to the bit. The export copies this file as it is: it imports the installed nuwa_lip and nothing else of this package.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline

from nuwa_lip import InpaintPipeline


class NuwaLipInpaintPipeline(DiffusionPipeline):
    """Repaints the hole of a photo through `nuwa_lip.InpaintPipeline`, which is loaded at the first call."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: dict[str, Any] = {}
        self._loaded: InpaintPipeline | None = None

    @property
    def inner(self) -> InpaintPipeline:
        """Return the pipeline that does the work.

        Raises:
            InputError: its model is missing or damaged.
        """
        if self._loaded is None:
            name = self.config._name_or_path  # type: ignore[attr-defined] # diffusers puts it there
            self._loaded = InpaintPipeline.from_pretrained(name)
            if self._wanted:
                self._loaded = self._loaded.to(**self._wanted)
        return self._loaded

    def to(self, *args: Any, **kwargs: Any) -> NuwaLipInpaintPipeline:
        """Move it to a device, a dtype, or both; they are told by kind, as diffusers tells them."""
        for value in (*args, *kwargs.values()):
            kind = "dtype" if isinstance(value, torch.dtype) else "device"
            if value is not None and not isinstance(value, bool):
                self._wanted[kind] = value
        if self._loaded is not None:
            self._loaded = self._loaded.to(**self._wanted)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Repaint one photo or several; the arguments are `InpaintPipeline`'s, named as diffusers names them.

        Raises:
            InputError: an argument cannot be used.
        """
        return self.inner(*args, **kwargs)
