"""`nuwa-lip inpaint`: repaint the hole of a photo, or of every photo in a folder."""

from __future__ import annotations

import importlib
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from PIL import Image

from nuwa_lip.commands.captions import caption_for, is_captions_file, read_captions
from nuwa_lip.commands.folder_jobs import Job, check_names, plan, results_folder
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images.files import check_fits, check_output, read_image, save_image
from nuwa_lip.images.hole import Hole, examine, grow, read_hole
from nuwa_lip.images.photo import Photo, as_photo
from nuwa_lip.images.sheets import draw_sheet, show_hole

if TYPE_CHECKING:
    from nuwa_lip.pipeline import InpaintOutput, InpaintPipeline

GRID_COLUMNS = 4
MAX_SEED = 2**63 - 1
LARGE = 4_000_000
"""Bytes of a file that takes about as long to decode as torch to be imported."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Says how to repaint."""

    model: str = "nuwa-lip-mini"
    """Bundled name, model folder or hub id."""
    num: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """Number of candidates; they become OUT-1, OUT-2, ..., the best first."""
    seed: int | None = None
    """Candidate i gets the seed SEED + i; random by default, and printed."""
    grid: bool = False
    """Write all candidates as one sheet."""
    overwrite: bool = False
    """Replace results that exist."""
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
    blend: Literal["on", "off"] | None = None
    """Fit the colours of what is painted to the known pixels at the hole's edge."""
    padding_mask_crop: int | None = None
    """Pixels of context around a hole."""
    dilate: int = 0
    """Number of pixels by which the hole is widened on every side."""
    invert: bool = False
    """Repaint what is black in the mask."""
    mask_orientation: Literal["displayed", "stored"] | None = None
    """How the mask lies upon a photo that its EXIF turns; by default as it fits, as displayed if it fits both ways."""
    save_mask: bool = False
    """Write the hole as the mask was read, as OUT-mask.png."""
    rank: Literal["likelihood", "clip"] = "likelihood"
    """What puts the best candidate first."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model."""
    weights: Literal["packed", "int8", "int8-weights", "int4"] | None = None
    """Form of the weights that every decoding step on a CPU reads: packed changes the speed only, the others have fewer
    bits and are best with --dtype bfloat16."""
    device: str = "auto"
    """cpu, cuda, ...; by default a GPU if there is one, and the CPU with --weights."""
    compile: bool = False
    """Compile the decoding step: for large models and many photos. It takes a quarter of a minute or more, and on a CPU
    needs a C++ compiler and Python's headers; on a GPU a step of one token also becomes a CUDA graph."""


def inpaint(
    photo: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO")],
    *,
    prompt: Annotated[str, tyro.conf.arg(aliases=["--captions"])],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    mask: Path | None = None,
    more: Annotated[Options, tyro.conf.OmitArgPrefixes] = Options(),  # noqa: B008 - frozen
) -> None:
    """Repaint the hole of a photo from a caption; all other pixels stay exactly as they are.

    Example: nuwa-lip inpaint photo.jpg --mask mask.png --prompt "green grass" -o result.png

    Example: nuwa-lip inpaint photo.jpg --mask mask.png --prompt "grass" -o results.png -n 4 --seed 7 --grid

    Example: nuwa-lip inpaint photos/ --mask masks/ --prompt captions.json -o results/

    Photos of a folder that cannot be repainted are named and left out; if there are any, the exit code is 1.

    Args:
        photo: Photo, or folder of photos.
        prompt: Caption, "" for none; or a file of captions: JSON {name: caption}, CSV or JSON lines with the
            fields file and caption, or lines of name, tab, caption.
        out: Result: .png, .webp, .tif (all exact) or .jpg; for a folder of photos, a folder of .png.
        mask: White is repainted; for a folder of photos, one mask or a folder of masks of the same names. Without it,
            what is transparent in the photo is repainted.
        more: How to repaint.

    Raises:
        InputError: an option, or what it names, cannot be used.
        SystemExit: with 1, some photos of a folder could not be repainted.
    """
    _check(more)
    if photo.is_dir():
        return _repaint_folder(photo, mask, prompt, out, more)
    if is_captions_file(prompt):
        caption = caption_for(photo, read_captions(Path(prompt)))
        if caption is None:
            raise InputError(f"{photo}: there is no caption for it in {prompt}")
        prompt = caption
    job = Job(photo=photo, mask=mask, prompt=prompt, out=out)
    check_names([(job, _results(job, more) + _masks(job, more))])
    _Runner(more).repaint(job)


def _check(options: Options) -> None:
    """Check the ranges of the options.

    Raises:
        InputError: one of them is out of range.
    """
    least = {
        "num": 1,
        "seed": 0,
        "steps": 1,
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


def _results(job: Job, options: Options) -> list[Path]:
    """Name the pictures that a job writes.

    Raises:
        InputError: OUT, from which their names are made, has no name itself.
    """
    if not job.out.name:
        raise InputError(f"cannot write {job.out}: it is a folder; name a file in it")
    if options.num == 1 or options.grid:
        return [job.out]
    return [job.out.with_stem(f"{job.out.stem}-{i}") for i in range(1, options.num + 1)]


def _masks(job: Job, options: Options) -> list[Path]:
    """Name the mask that a job writes, if one is asked for."""
    return [job.out.with_name(f"{job.out.stem}-mask.png")] if options.save_mask else []


def _repaint_folder(photos: Path, mask: Path | None, prompt: str, out: Path, options: Options) -> None:
    """Repaint what can be repainted; name the rest, and fail at the end if there was any.

    Raises:
        InputError: nothing could be repainted; nothing was written.
        SystemExit: with 1, some photos could not.
    """
    jobs = plan(photos, mask, prompt, out)
    check_names([(job, _results(job, options) + _masks(job, options)) for job in jobs if isinstance(job, Job)])
    runner = _Runner(options)
    runner.load()  # first, because every photo would complain about the same model
    failed = 0
    with results_folder(out):
        for job in jobs:
            try:
                if isinstance(job, InputError):
                    raise job
                with _named(job.photo), _warnings_named(job.photo):
                    runner.repaint(job)
            except InputError as error:
                failed += 1
                print(f"nuwa-lip: {error}", file=sys.stderr)
    if failed == len(jobs):
        raise InputError(f"none of {failed} photos could be repainted")
    print(f"{out}: {len(jobs) - failed} of {len(jobs)} photos repainted")
    if failed:
        raise SystemExit(1)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put a file's name before an error that does not say what it is about."""
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error


@contextmanager
def _warnings_named(path: Path) -> Iterator[None]:
    """Put a file's name before a warning that does not say what it is about."""
    show = warnings.showwarning

    def named(message: Warning | str, *more: Any) -> None:
        show(message if str(path) in str(message) else f"{path}: {message}", *more)

    with warnings.catch_warnings():
        warnings.showwarning = named  # type: ignore[assignment]
        yield


class _Runner:
    """Repaints one job after another; the model is loaded when the first input has been read."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        self.pipe: InpaintPipeline | None = None

    def repaint(self, job: Job) -> None:
        """Read, repaint, write, and say what was done."""
        options = self.options
        names, masks = _results(job, options), _masks(job, options)
        for name in names + masks:
            check_output(name, options.overwrite, exact=not options.grid)
        with _importing(job.photo):
            photo, hole = self._read(job)
        for name in names if not options.grid else ():
            check_fits(name, photo.size)
        height, width = photo.size
        share = f"{100 * hole.mask.mean():.3g} %"
        print(f"{job.photo}: {width}x{height} {photo.mode}, hole {share} ({hole.reading}), seed {self.seed}")
        pipe = self.load()
        start = time.perf_counter()
        result = self._call(pipe, photo, hole, job.prompt)
        seconds = time.perf_counter() - start
        if options.grid:
            save_image(_grid(photo, hole, result, job.prompt), job.out)
            scores = ", ".join(f"{score:.3f}" for score in result.scores)
            print(f"{job.out}: {seconds:.1f} s, scores {scores}")
        else:
            for name, image, score, seed in zip(names, result.images, result.scores, result.seeds, strict=True):
                save_image(image, name)
                print(f"{name}: {seconds:.1f} s, score {score:.3f}, seed {seed}")
        for name in masks:  # last, because it is of no use without a result
            save_image(Image.fromarray(hole.mask), name)

    def _read(self, job: Job) -> tuple[Photo, Hole]:
        with _named(job.photo):
            photo = as_photo(read_image(job.photo))
        with _named(job.mask or job.photo):
            mask_image = None if job.mask is None else read_image(job.mask)
            turn = self.options.mask_orientation
            hole = read_hole(mask_image, photo, invert=self.options.invert, orientation=turn)
        hole = replace(hole, mask=grow(hole.mask, self.options.dilate))
        with _named(job.photo):
            examine(photo, hole)
        return photo, hole

    def load(self) -> InpaintPipeline:
        """Load the model when it is first asked for."""
        if self.pipe is None:
            self.pipe = _load(self.options)
        return self.pipe

    def _call(self, pipe: InpaintPipeline, photo: Photo, hole: Hole, prompt: str) -> InpaintOutput:
        import torch

        o = self.options
        return pipe(
            prompt=prompt,
            image=photo,
            mask_image=hole,
            num_images_per_prompt=o.num,
            guidance_scale=o.guidance_scale,
            temperature=o.temperature,
            top_k=o.top_k,
            top_p=o.top_p,
            order=o.order,
            num_inference_steps=o.steps,
            schedule=o.schedule,
            blend=None if o.blend is None else o.blend == "on",
            padding_mask_crop=o.padding_mask_crop,
            generator=torch.Generator().manual_seed(self.seed),
            rank=o.rank,
        )


def _load(options: Options) -> InpaintPipeline:
    import torch

    from nuwa_lip.pipeline import InpaintPipeline

    device, weights = options.device, options.weights
    if device == "auto":
        device = "cuda" if weights is None and torch.cuda.is_available() else "cpu"
    if weights is not None and device != "cpu":
        raise InputError(f"--weights {weights} is for the CPU, not for {device}: add --device cpu or leave it out")
    pipe = InpaintPipeline.from_pretrained(options.model, getattr(torch, options.dtype), weights)
    try:
        pipe.to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise InputError(f"--device {device} cannot be used: {first_line(error)}") from error
    return pipe.compile() if options.compile else pipe


@contextmanager
def _importing(photo: Path) -> Iterator[None]:
    """Import what the model needs on another core while a large photo is decoded."""
    with ThreadPoolExecutor(1) as pool:
        if photo.is_file() and photo.stat().st_size > LARGE:
            pool.submit(importlib.import_module, "nuwa_lip.pipeline")  # an error comes again where it is needed
        yield


def _grid(photo: Photo, hole: Hole, result: InpaintOutput, prompt: str) -> Image.Image:
    """Draw the photo with its hole, then all candidates, the best first."""
    pictures = [show_hole(photo.to_pil(photo.pixels), hole.mask), *result.images]
    rows = [pictures[i : i + GRID_COLUMNS] for i in range(0, len(pictures), GRID_COLUMNS)]
    return draw_sheet([(row, prompt if row is rows[-1] else "") for row in rows])
