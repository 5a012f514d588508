"""`nuwa-lip inpaint`: repaint the hole of a photo, or of every photo in a folder."""

from __future__ import annotations

import importlib
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from PIL import Image

from nuwa_lip.commands.folder_jobs import Job, caption_for, is_captions_file, plan, read_captions
from nuwa_lip.errors import InputError
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
    """How to repaint."""

    model: str = "nuwa-lip-mini"
    """Bundled name, model folder or hub id."""
    num: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1
    """Candidates; they become OUT-1, OUT-2, ..., the best first."""
    seed: int | None = None
    """Candidate i gets the seed SEED + i; random by default, and printed."""
    grid: bool = False
    """Write all candidates as one sheet."""
    overwrite: bool = False
    """Replace results that exist."""
    guidance_scale: float | None = None
    """Above 1 follows the caption more closely; this and what follows: as the model says by default."""
    temperature: float | None = None
    """Below 1 safer, above 1 wilder."""
    top_k: int | None = None
    """Sample from the K likeliest tokens; 0 from all."""
    top_p: float | None = None
    """Sample from the likeliest tokens that together have this probability."""
    order: Literal["raster", "random", "border"] | None = None
    """Order in which the hole is filled: row by row, at random, from its border inwards."""
    steps: int | None = None
    """Fill the hole in so many parallel steps; a great number means token by token."""
    schedule: Literal["cosine", "constant", "confidence"] | None = None
    """How many tokens of the hole each step decides: few at first, as many in each, or those of which the model is
    surest."""
    blend: Literal["on", "off"] | None = None
    """Fit the colours of what is painted to the known pixels at the hole's edge."""
    padding_mask_crop: int | None = None
    """Pixels of context around a hole."""
    dilate: int = 0
    """Widen the hole by so many pixels."""
    invert: bool = False
    """Repaint what is black in the mask."""
    save_mask: bool = False
    """Write the mask as it was understood, as OUT-mask.png."""
    rank: Literal["likelihood", "clip"] = "likelihood"
    """What puts the best candidate first."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model."""
    weights: Literal["packed", "int8", "int8-weights", "int4"] | None = None
    """Form of the weights that every decoding step on a CPU reads: packed for speed alone, the others in few bits;
    best with --dtype bfloat16."""
    device: str = "auto"
    """cpu, cuda, ...; by default a GPU if there is one, but for --weights."""
    compile: bool = False
    """Compile the decoding step: for large models and many photos. It takes a quarter of a minute or more, and on a CPU
    needs a C++ compiler and Python's headers; on a GPU steps of one token become a CUDA graph besides."""


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

    In a folder what cannot be repainted is named and left out; if there was any, the exit code is 1.

    Args:
        photo: Photo, or folder of photos.
        prompt: Caption, "" for none; or a file of captions: JSON {name: caption}, CSV or JSON lines with the
            fields file and caption, or lines of name, tab, caption.
        out: Result: .png, .webp, .tif (all exact) or .jpg; with a folder, a folder of .png.
        mask: White is repainted; with a folder, one mask or a folder of masks of the same names. Without it,
            what is transparent in the photo is repainted.
        more: How to repaint.
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
    _check_names([job], more)
    _Runner(more).repaint(job)


def _check(options: Options) -> None:
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


def _names(job: Job, options: Options) -> tuple[list[Path], list[Path]]:
    """The files that a job writes: its results, and its mask if that is asked for.

    Raises:
        InputError: OUT, from which their names are made, has no name itself.
    """
    if not job.out.name:
        raise InputError(f"cannot write {job.out}: it is a folder; name a file in it")
    results = [job.out]
    if options.num > 1 and not options.grid:
        results = [job.out.with_stem(f"{job.out.stem}-{i}") for i in range(1, options.num + 1)]
    return results, [job.out.with_name(f"{job.out.stem}-mask.png")] if options.save_mask else []


def _check_names(jobs: list[Job], options: Options) -> None:
    """Find out before the work whether a name that was made up for a job is taken by an input or another job.

    Raises:
        InputError: it is; the name that the user gave, OUT itself, may replace the job's own photo and mask.
    """
    readers = {path.resolve(): job for job in jobs for path in (job.mask, job.photo) if path is not None}
    writers: dict[Path, Job] = {}
    for job in jobs:
        results, masks = _names(job, options)
        for name in results + masks:
            path = name.resolve()
            reader, writer = readers.get(path, job), writers.setdefault(path, job)
            if reader is not job or (path in readers and name != job.out):
                raise InputError(f"{name}, to be written for {job.photo}, is an input; rename it, or choose another -o")
            if writer is not job:
                raise InputError(f"{name} would be written for {writer.photo} and for {job.photo}; rename one of them")


def _repaint_folder(photos: Path, mask: Path | None, prompt: str, out: Path, options: Options) -> None:
    """Repaint what can be repainted; name the rest, and fail at the end if there was any.

    Raises:
        InputError: nothing could be repainted; nothing was written.
        SystemExit: with 1, some photos could not.
    """
    jobs = plan(photos, mask, prompt, out)
    _check_names([job for job in jobs if isinstance(job, Job)], options)
    runner = _Runner(options)
    runner.load()  # first, for every photo would complain about the same model
    made = _make_folder(out)
    try:
        failed = _repaint_each(jobs, runner)
    finally:
        _remove_empty(made)
    if failed == len(jobs):
        raise InputError(f"none of {failed} photos could be repainted")
    print(f"{out}: {len(jobs) - failed} of {len(jobs)} photos repainted")
    if failed:
        raise SystemExit(1)


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those around it; returns the new ones, outermost first."""
    made: list[Path] = []
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; the results of a folder need a folder")
        for path in reversed([folder, *folder.parents]):
            if not path.exists():
                path.mkdir()
                made.append(path)
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"cannot make the folder {folder}: {(error.strerror or '?').lower()}") from error
    return made


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, given outermost first, as far as there is nothing in them."""
    with suppress(OSError):
        for folder in reversed(folders):
            folder.rmdir()


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


def _repaint_each(jobs: list[Job | InputError], runner: _Runner) -> int:
    """How many jobs could not be done; each was named with its reason."""
    failed = 0
    for job in jobs:
        try:
            if isinstance(job, InputError):
                raise job
            with _named(job.photo), _warnings_named(job.photo):  # of which there are several
                runner.repaint(job)
        except InputError as error:
            failed += 1
            print(f"nuwa-lip: {error}", file=sys.stderr)
    return failed


class _Runner:
    """Repaints one job after another; the model is loaded when the first input has proved good."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        self.pipe: InpaintPipeline | None = None

    def repaint(self, job: Job) -> None:
        """Read, repaint, write, and say what was done."""
        options = self.options
        names, mask_name = _names(job, options)
        for name in names + mask_name:
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
        for name in mask_name:  # last: without a result it is of no use
            save_image(Image.fromarray(hole.mask), name)

    def _read(self, job: Job) -> tuple[Photo, Hole]:
        with _named(job.photo):
            photo = as_photo(read_image(job.photo))
        with _named(job.mask or job.photo):
            mask_image = None if job.mask is None else read_image(job.mask)
            hole = read_hole(mask_image, photo, invert=self.options.invert)
        hole = replace(hole, mask=grow(hole.mask, self.options.dilate))
        with _named(job.photo):
            examine(photo, hole)
        return photo, hole

    def load(self) -> InpaintPipeline:
        """The model, read when it is first asked for."""
        if self.pipe is None:
            import torch

            from nuwa_lip.pipeline import InpaintPipeline

            device, weights = self.options.device, self.options.weights
            if device == "auto":
                device = "cuda" if weights is None and torch.cuda.is_available() else "cpu"
            if weights is not None and device != "cpu":
                raise InputError(
                    f"--weights {weights} is for the CPU, not for {device}: add --device cpu or leave it out"
                )
            self.pipe = InpaintPipeline.from_pretrained(
                self.options.model, torch_dtype=getattr(torch, self.options.dtype), weights=weights
            )
            try:
                self.pipe.to(device)
            except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
                raise InputError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error
            if self.options.compile:
                self.pipe.compile()
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


@contextmanager
def _importing(photo: Path) -> Iterator[None]:
    """Import what the model needs on another core while a large photo is decoded."""

    def load() -> None:
        with suppress(Exception):  # which is met again where it is needed
            importlib.import_module("nuwa_lip.pipeline")

    large = photo.is_file() and photo.stat().st_size > LARGE
    thread = threading.Thread(target=load)
    if large:
        thread.start()
    yield
    if large:
        thread.join()


def _grid(photo: Photo, hole: Hole, result: InpaintOutput, prompt: str) -> Image.Image:
    """The photo with its hole, then all candidates, the best first."""
    pictures = [show_hole(photo.to_pil(photo.pixels), hole.mask), *result.images]
    rows = [pictures[i : i + GRID_COLUMNS] for i in range(0, len(pictures), GRID_COLUMNS)]
    return draw_sheet([(row, prompt if row is rows[-1] else "") for row in rows])
