"""Painters of others that are known by a short name: hub id, licence, size, and what they need."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """Describes one published model."""

    id: str
    """On the Hugging Face hub."""
    licence: str
    size: str
    """Of what is fetched."""
    needs: str
    """Extra to install, and the machine."""
    file: str | None = None
    """The one file of the repository that is needed; None: a whole pipeline of diffusers."""
    steps: int | None = None
    """Steps that it was made for, if they are not those that diffusers takes by default."""
    guidance: float | None = None
    """The same, for its guidance scale."""


PAINTERS, ERASE = "nuwa-lip[painters]", "nuwa-lip[erase]"
RAIL = "openrail++ (restricts uses, which must be passed on)"
KNOWN = {
    "migan": Known(
        "andraniksargsyan/migan", "MIT", "28 MB", f"{ERASE}; any machine; no caption", "migan_pipeline_v2.onnx"
    ),
    "lama": Known("Carve/LaMa-ONNX", "Apache-2.0", "208 MB", f"{ERASE}; any machine; no caption", "lama_fp32.onnx"),
    "amused-256": Known("amused/amused-256", RAIL, "3.3 GB", f"{PAINTERS}; 4 GB; minutes on a CPU"),
    "amused-512": Known("amused/amused-512", RAIL, "3.3 GB", f"{PAINTERS}; 4 GB; a GPU is better"),
    "meissonic": Known("MeissonFlow/Meissonic", "Apache-2.0", "6 GB", f"{PAINTERS}; a GPU with 8 GB; 1024 pixels"),
    "sd-1.5": Known(
        "stable-diffusion-v1-5/stable-diffusion-inpainting",
        "CreativeML openrail-m (restricts uses)",
        "4 GB",
        f"{PAINTERS}; 5 GB; minutes on a CPU",
    ),
    "sdxl": Known("diffusers/stable-diffusion-xl-1.0-inpainting-0.1", RAIL, "7 GB", f"{PAINTERS}; a GPU with 8 GB"),
    "flux2-klein-4b": Known(
        "black-forest-labs/FLUX.2-klein-4B",
        "Apache-2.0",
        "16 GB",
        f"{PAINTERS}; a GPU with 13 GB",
        steps=4,
        guidance=1.0,
    ),
    "flux1-fill": Known(
        "black-forest-labs/FLUX.1-Fill-dev",
        "FLUX.1-dev non-commercial; gated: accept it at https://huggingface.co/black-forest-labs/FLUX.1-Fill-dev",
        "34 GB",
        f"{PAINTERS}; a GPU with 24 GB and more",
    ),
    "z-image-turbo": Known(
        "Tongyi-MAI/Z-Image-Turbo", "Apache-2.0", "33 GB", f"{PAINTERS}; a GPU with 16 GB", steps=9, guidance=0.0
    ),
}
"""Short names for `--model`; the hub ids are taken too."""


def find_known(name: str) -> Known | None:
    """Find a model by its short name or its hub id."""
    return KNOWN.get(name) or next((known for known in KNOWN.values() if known.id == name), None)
