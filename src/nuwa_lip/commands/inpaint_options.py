"""How `nuwa-lip inpaint` repaints: its options, and the ranges that they must keep to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nuwa_lip.disk import check_writable
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import STANDARD

BOX, CIRCLE = "X Y W H", "X Y R"
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Says how to repaint."""

    model: str = "nuwa-lip-mini"
    """Bundled name, model folder or hub id; or another's model: migan, a diffusers folder or id, an .onnx file."""
    num: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """Number of candidates; they become OUT-1, OUT-2, ..., the best first."""
    seed: int | None = None
    """Candidate i gets the seed SEED + i; random by default, and printed."""
    grid: bool = False
    """Write all candidates as one sheet too, with their numbers and seeds."""
    overwrite: bool = False
    """Replace results that exist; without it a folder goes on with the photos that have none."""
    force: bool = False
    """Replace results that exist, write-protected ones too."""
    guidance_scale: float | None = None
    """Above 1 follows the caption more closely; the default here, and down to --blend, is the model's own."""
    temperature: float | None = None
    """Below 1 safer, above 1 wilder."""
    top_k: int | None = None
    """Sample from the K likeliest tokens; 0 from all."""
    top_p: float | None = None
    """Sample from the likeliest tokens that together have this probability."""
    order: Literal["raster", "random", "border"] | None = None
    """Order in which the hole is filled: row by row, at random, from its border inwards."""
    steps: int | None = None
    """Number of parallel steps that fill the hole; as many steps as tokens, or more, fill it token by token."""
    schedule: Literal["cosine", "constant", "confidence"] | None = None
    """How many tokens each step decides: few at first, equally many, or those with the highest confidence first."""
    revisions: int | None = None
    """Draw about half of what is painted anew beside the rest, so many times; 0: leave it as it was painted first."""
    squares: int | None = None
    """Paint a hole that must be enlarged much anew at a finer scale, in this many squares at most; 0: leave it soft."""
    blend: Literal["on", "off"] | None = None
    """Fit the colours of what is painted to the known pixels at the hole's edge."""
    padding_mask_crop: int | None = None
    """Pixels of context around a hole."""
    dilate: int = 0
    """Number of pixels by which the hole is widened on every side."""
    box: Annotated[tuple[tuple[int, int, int, int], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar=BOX)] = ()
    """Repaint a rectangle: left, top, width, height in pixels; several are possible, also with --circle."""
    circle: Annotated[tuple[tuple[int, int, int], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar=CIRCLE)] = ()
    """Repaint a disc: middle from the left, middle from the top, radius in pixels; several are possible."""
    invert: bool = False
    """Repaint what is black in the mask."""
    mask_orientation: Literal["displayed", "stored"] | None = None
    """How the mask lies upon a photo that its EXIF turns; by default as it fits, as displayed if it fits both ways."""
    save_mask: bool = False
    """Write the hole as the mask was read, as OUT-mask.png."""
    provenance: bool = True
    """Do not say in the results' XMP that they were repainted, by which model, from which seed and known pixels."""
    credential: Path | None = None
    """Sign the results as Content Credentials with this certificate of yours: PEM, those that vouch for it below it."""
    key: Path | None = None
    """Private key of --credential, PEM."""
    sidecar: bool = False
    """Write beside each result, as OUT.png.json, all that it was made from, for `inpaint --from OUT.png.json`."""
    manifest: bool = False
    """With a folder: add a line for each photo to OUT/manifest.jsonl: its results and seeds, or why it has none."""
    json: Path | None = None
    """Write what was done as JSON: names, sizes, holes, seeds, scores, seconds, and what failed."""
    rank: Literal["likelihood", "clip"] = "likelihood"
    """What puts the best candidate first."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model."""
    weights: Literal["packed", "int8", "int8-weights", "int4"] | None = None
    """Form of the weights for decoding on a CPU: packed changes the speed only, the others have fewer bits."""
    device: str = "auto"
    """cpu, cuda, ...; by default a GPU if there is one, and the CPU with --weights."""
    cluster: bool = False
    """With a folder: repaint it on Ray, a process a device, on the cluster that RAY_ADDRESS names or else here."""
    compile: bool = False
    """Compile the decoding step, for large models and many photos; on a CPU it needs a C++ compiler."""


def check_options(options: Options) -> None:
    """Check the ranges of the options.

    Raises:
        InputError: one of them is out of range.
    """
    least = {
        "num": 1,
        "seed": 0,
        "steps": 1,
        "revisions": 0,
        "squares": 0,
        "padding_mask_crop": 0,
        "dilate": 0,
        "top_k": 0,
        "guidance_scale": 0,
        "temperature": 0,
    }
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and not value >= smallest:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small: {smallest} at least")
    if options.top_p is not None and not 0 < options.top_p <= 1:
        raise InputError(f"--top-p {options.top_p} is not above 0 and at most 1")
    if options.seed is not None and options.seed > MAX_SEED:
        raise InputError(f"--seed {options.seed} is too large: {MAX_SEED} at most")
    if options.json == STANDARD:
        raise InputError("--json - is standard output, where the report is: name a file")
    if options.json is not None:
        check_writable(options.json)
    if (options.credential is None) != (options.key is None):
        raise InputError("--credential CERTIFICATE.pem and --key KEY.pem belong together: give both")
    if options.credential is not None and options.sidecar:
        raise InputError("--sidecar makes the same bytes again, as no signature is made twice: leave out --credential")
