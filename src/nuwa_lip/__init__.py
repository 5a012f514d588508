"""NÜWA-LIP: language-guided image inpainting that keeps every known pixel.

The names below are imported when they are first used: `import nuwa_lip` and `nuwa-lip --help` are quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nuwa_lip.pipeline import InpaintOutput, InpaintPipeline

__version__ = "0.1.0"
__all__ = ["InpaintOutput", "InpaintPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("InpaintOutput", "InpaintPipeline"):
        from nuwa_lip import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'nuwa_lip' has no attribute {name!r}")
