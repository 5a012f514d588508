"""Models of others that are known by a short name: hub id, licence, size, and what they need.

They are as their cards and repositories say; a size that is not stated is reckoned from the number of parameters.
"""

from collections.abc import Mapping
from typing import NamedTuple

WHOLE = ("*.json", "*.txt", "*.safetensors", "README.md", "LICENSE*")
"""The files of a pipeline of diffusers, without pickles."""
COPIES = ("*.fp16.*", "*.non_ema.*", "*.bf16.*")
"""Second copies of the same weights, which are not fetched."""


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
    files: tuple[str, ...] = ()
    """Patterns of the files that are needed, where these are neither one nor a whole pipeline."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Return the patterns of the files to fetch, licence and card among them."""
        return self.files or ((self.file, "README.md", "LICENSE*") if self.file else WHOLE)

    @property
    def address(self) -> str:
        """Return where its card and licence can be read."""
        return f"https://huggingface.co/{self.id}"


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
CONVERT = "nothing more; 'nuwa-lip convert' brings it in"
TOKENIZERS = {
    "llamagen-vq16": Known(
        "peizesun/llamagen_t2i", "MIT", "0.3 GB", CONVERT, files=("vq_ds16_t2i.pt", "README.md", "LICENSE*")
    ),
    "magvitv2": Known(
        "showlab/magvitv2",
        "MIT",
        "0.4 GB",
        CONVERT,
        files=("*.json", "*.safetensors", "*.bin", "README.md", "LICENSE*"),
    ),
}
"""Short names of tokenizers for `nuwa-lip pull`, which paint nothing by themselves."""


def find_known(name: str, among: Mapping[str, Known] = KNOWN) -> Known | None:
    """Find a model by its short name or its hub id.

    Args:
        name: of the model.
        among: the painters, or other models by their short names.
    """
    return among.get(name) or next((known for known in among.values() if known.id == name), None)
