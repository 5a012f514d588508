"""Models of others that are known by name: what each is good for, its licence, its size, and what it needs.

Ids, licences and sizes are as their cards and repositories say; where a size is not stated, it is reckoned from the
number of parameters. `nuwa-lip pull` shows the licence before it fetches anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Use = Literal["painter", "eraser", "tokenizer"]
WHOLE = ("*.json", "*.txt", "*.safetensors", "README.md", "LICENSE*")
"""The files of a pipeline of diffusers, without pickles."""
BUT = ("*.fp16.*", "*.non_ema.*", "*.bf16.*")
"""Second copies of the same weights."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A published model."""

    id: str
    """On the Hugging Face hub."""
    use: Use
    """painter: fills a hole from a caption; eraser: without one; tokenizer: comes in by `nuwa-lip convert`."""
    licence: str
    size: float
    """About how many GB are fetched."""
    needs: str
    """The extra to install and the machine to have."""
    about: str
    files: tuple[str, ...] = WHOLE
    """Patterns of the files to fetch."""
    terms: str = ""
    """What else its licence asks for, in a few words."""

    @property
    def address(self) -> str:
        """Return where its card and licence can be read."""
        return f"https://huggingface.co/{self.id}"


KNOWN = (
    Known(
        id="amused/amused-256",
        use="painter",
        licence="openrail++",
        size=3.2,
        needs="extra painters; 6 GB of memory, a CPU is enough",
        about="masked tokens at 256 px; its known tokens are encoded free of the hole",
        terms="its restrictions of use must be passed on",
    ),
    Known(
        id="amused/amused-512",
        use="painter",
        licence="openrail++",
        size=3.3,
        needs="extra painters; 6 GB of memory, a GPU is better",
        about="the same at 512 px",
        terms="its restrictions of use must be passed on",
    ),
    Known(
        id="stable-diffusion-v1-5/stable-diffusion-inpainting",
        use="painter",
        licence="CreativeML openrail-m",
        size=4.3,
        needs="extra painters; 6 GB of memory, minutes on a CPU",
        about="diffusion at 512 px, for small machines",
        terms="its restrictions of use must be passed on",
    ),
    Known(
        id="diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        use="painter",
        licence="openrail++",
        size=13.9,
        needs="extra painters; a GPU of 10 GB",
        about="diffusion at 1024 px",
        terms="its restrictions of use must be passed on",
    ),
    Known(
        id="kandinsky-community/kandinsky-2-2-decoder-inpaint",
        use="painter",
        licence="Apache-2.0",
        size=5.3,
        needs="extra painters; a GPU of 8 GB",
        about="diffusion at 768 px",
    ),
    Known(
        id="black-forest-labs/FLUX.2-klein-4B",
        use="painter",
        licence="Apache-2.0",
        size=16.0,
        needs="extra painters; a GPU of 13 GB",
        about="a distilled transformer, four steps, about one megapixel",
    ),
    Known(
        id="black-forest-labs/FLUX.1-Fill-dev",
        use="painter",
        licence="FLUX.1 [dev] non-commercial",
        size=33.0,
        needs="extra painters; a GPU of 24 GB; an account that has accepted its licence",
        about="trained for inpainting, 12 billion parameters",
        terms="no commercial use; gated",
    ),
    Known(
        id="andraniksargsyan/migan",
        use="eraser",
        licence="MIT",
        size=0.03,
        needs="extra erase; any machine",
        about="MI-GAN: takes things away in about a second on a CPU",
        files=("migan_pipeline_v2.onnx", "README.md", "LICENSE*"),
    ),
    Known(
        id="Carve/LaMa-ONNX",
        use="eraser",
        licence="Apache-2.0",
        size=0.21,
        needs="extra erase; 2 GB of memory",
        about="LaMa at 512 px",
        files=("lama_fp32.onnx", "README.md", "LICENSE*"),
    ),
    Known(
        id="MeissonFlow/Meissonic",
        use="tokenizer",
        licence="Apache-2.0",
        size=0.6,
        needs="nothing more",
        about="VQ of aMUSEd's shape, 8192 codes, 16 px a token",
        files=("vqvae/*.json", "vqvae/*.safetensors", "README.md", "LICENSE*"),
    ),
    Known(
        id="peizesun/llamagen_t2i",
        use="tokenizer",
        licence="MIT",
        size=0.3,
        needs="nothing more",
        about="LlamaGen VQ-16, 16384 codes, 16 px a token",
        files=("vq_ds16_t2i.pt", "README.md", "LICENSE*"),
    ),
    Known(
        id="showlab/magvitv2",
        use="tokenizer",
        licence="MIT",
        size=0.38,
        needs="nothing more",
        about="MAGVIT-v2 of Show-o, 8192 codes, 16 px a token",
        files=("*.json", "*.safetensors", "*.bin", "README.md", "LICENSE*"),
    ),
)


def known(name: str) -> Known | None:
    """Find a known model by its id, whatever its case; None if there is none."""
    return next((one for one in KNOWN if one.id.lower() == name.lower()), None)
