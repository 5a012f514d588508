"""`nuwa-lip inpaint`: repaint the hole of a photo, or of every photo in a folder."""

from __future__ import annotations

import importlib
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from PIL import Image

from nuwa_lip.commands.captions import caption_for, is_captions_file, read_captions
from nuwa_lip.commands.drawn_hole import drawn_hole
from nuwa_lip.commands.folder_jobs import Job, check_names, results_folder
from nuwa_lip.commands.inpaint_folder import named, repaint_folder, warnings_named
from nuwa_lip.commands.sidecar import check_sidecars, hash_inputs, write_sidecar
from nuwa_lip.disk import check_writable, escaped, write_json
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images.files import (
    STANDARD,
    check_fits,
    check_kept,
    check_output,
    keep_private,
    read_image,
    read_photo,
    save_image,
    xmp_room,
)
from nuwa_lip.images.hole import Hole, examine, grow, read_hole
from nuwa_lip.images.photo import Photo
from nuwa_lip.images.provenance import Statement, hash_known, mark, public_name
from nuwa_lip.images.sheets import draw_sheet, show_hole

if TYPE_CHECKING:
    from nuwa_lip.pipeline import InpaintOutput, InpaintPipeline

GRID_COLUMNS = 4
BOX, CIRCLE = "X Y W H", "X Y R"
MAX_SEED = 2**63 - 1
LARGE = 4_000_000
"""Bytes of a file that takes about as long to decode as torch to be imported."""


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
    sidecar: bool = False
    """Write beside each result, as OUT.png.json, all that it was made from, for `inpaint --from OUT.png.json`."""
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
    compile: bool = False
    """Compile the decoding step, for large models and many photos; on a CPU it needs a C++ compiler."""


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

    Example: nuwa-lip inpaint photo.jpg --box 120 80 200 150 --prompt "green grass" -o result.png

    Example: nuwa-lip inpaint photo.jpg --mask mask.png --prompt "grass" -o results.png -n 4 --seed 7 --grid

    Example: nuwa-lip inpaint photos/ --mask masks/ --prompt captions.json -o results/

    Photos of a folder that cannot be repainted are named and left out; if there are any, the exit code is 1. Those that
    have a result already are left as they are: the same command goes on where another one was stopped.

    Args:
        photo: Photo, or folder of photos; - reads standard input.
        prompt: Caption, "" for none; or a file of captions by name: JSON, JSON lines, CSV, or name, tab, caption.
        out: Result: .png, .webp, .tif (all exact) or .jpg; - for standard output; for a folder, a folder of .png.
        mask: White is repainted; for a folder, one mask or a folder of masks. Without it, what is transparent is.
        more: How to repaint.

    Raises:
        InputError: an option, or what it names, cannot be used.
        SystemExit: with 1, some photos of a folder could not be repainted.
    """
    _check(more)
    if mask is not None and (more.box or more.circle):
        raise InputError(f"--box and --circle are for photos without a mask: leave them out, or --mask {mask}")
    if more.json is not None and more.json in (photo, mask, out, Path(prompt)):
        raise InputError(f"--json {more.json} is another file of this command: choose another name")
    if photo.is_dir():
        if STANDARD in (out, mask):
            raise InputError("a folder of photos needs a folder for the results, -o FOLDER, and masks that are files")
        return repaint_folder(photo, mask, prompt, out, _Runner(more))
    if is_captions_file(prompt):
        caption = caption_for(photo, read_captions(Path(prompt)))
        if caption is None:
            raise InputError(f"{photo}: there is no caption for it in {prompt}")
        prompt = caption
    if photo == mask == STANDARD:
        raise InputError("photo and mask cannot both come from standard input: name a file for one of them")
    repaint_one(Job(photo=photo, mask=mask, prompt=prompt, out=out), more)


def repaint_one(job: Job, options: Options) -> None:
    """Repaint one photo.

    Raises:
        InputError: an option, or what the job names, cannot be used.
    """
    _check(options)
    runner = _Runner(options)
    check_names([(job, runner.files(job))])
    with warnings_named(None):
        runner.repaint(job)
    runner.report()


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
    if options.json == STANDARD:
        raise InputError("--json - is standard output, where the report is: name a file")
    if options.json is not None:
        check_writable(options.json)


def _results(job: Job, options: Options) -> list[Path]:
    """Name the pictures that a job writes.

    Raises:
        InputError: OUT, from which their names are made, has no name itself.
    """
    if not job.out.name:
        raise InputError(f"cannot write {job.out}: it is a folder; name a file in it")
    if job.out == STANDARD and (options.num > 1 or options.grid or options.save_mask):
        raise InputError("standard output takes one picture: name a file, or leave out -n, --grid and --save-mask")
    if options.num == 1 and not options.grid:
        return [job.out]
    return [job.out.with_stem(f"{job.out.stem}-{i}") for i in range(1, options.num + 1)]


def _masks(job: Job, options: Options) -> list[Path]:
    """Name the mask that a job writes, if one is asked for."""
    return [job.out.with_name(f"{job.out.stem}-mask.png")] if options.save_mask else []


class _Runner:
    """Repaints one job after another; the model is loaded when the first input has been read."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        self.pipe: InpaintPipeline | None = None
        self.replaces = options.overwrite or options.force
        self.records: list[dict[str, Any]] = []

    def files(self, job: Job) -> list[Path]:
        """Name what a job writes: the sheet, if there is one, the pictures, and the mask.

        Raises:
            InputError: the result has no name, or several results would go to standard output.
        """
        sheet = [job.out] if self.options.grid else []
        return sheet + _results(job, self.options) + _masks(job, self.options)

    def repaint(self, job: Job) -> None:
        """Read, repaint, write, and say what was done."""
        names = _results(job, self.options)
        for name in self.files(job):
            check_output(name, self.replaces, exact=name in names, force=self.options.force, new_folder=True)
        if self.options.sidecar:
            check_sidecars(job, names, self.replaces)
        with results_folder(job.out.parent):
            self._repaint(job, names)

    def _repaint(self, job: Job, names: list[Path]) -> None:
        options = self.options
        with _importing(job.photo):
            photo, hole = self._read(job)
        for name in names:
            check_fits(name, photo.size)
            check_kept(photo, name)
        height, width = photo.size
        share = f"{100 * hole.mask.mean():.3g} %"
        stream = sys.stderr if job.out == STANDARD else sys.stdout

        def say(text: str) -> None:
            print(escaped(text), file=stream)

        say(f"{job.photo}: {width}x{height} {photo.mode}, hole {share} ({hole.reading}), seed {self.seed}")
        pipe = self.load()
        start = time.perf_counter()
        result = self._call(pipe, photo, hole, job.prompt)
        seconds = time.perf_counter() - start
        inputs = hash_inputs(job) if options.sidecar else {}
        statement = None
        if options.provenance:
            statement = Statement(public_name(options.model), self.seed, hash_known(photo, hole.mask))
        if options.grid:
            self._save(_grid(photo, hole, result, job.prompt), job.out, job, statement)
            say(f"{job.out}: the sheet")
        for name, image, score, seed in zip(names, result.images, result.scores, result.seeds, strict=True):
            self._save(image, name, job, statement and replace(statement, seed=seed))
            if options.sidecar:
                write_sidecar(job, name, asdict(replace(options, seed=seed)), inputs)
            say(f"{name}: {seconds:.1f} s, score {score:.3f}, seed {seed}")
        for name in _masks(job, options):  # last, because it is of no use without a result
            self._save(Image.fromarray(hole.mask), name, job)
        self.records.append(
            {"photo": str(job.photo), "mask": job.mask and str(job.mask), "prompt": job.prompt}
            | {"width": width, "height": height, "mode": photo.mode, "hole": float(hole.mask.mean())}
            | {"reading": hole.reading, "results": [str(name) for name in names], "seeds": result.seeds}
            | {"scores": result.scores, "seconds": round(seconds, 3)}
        )

    def _save(self, image: Image.Image, name: Path, job: Job, statement: Statement | None = None) -> None:
        if statement is not None:
            mark(image, statement, xmp_room(name))
        save_image(image, name, replace=self.replaces)
        keep_private(name, job.photo)

    def report(self) -> None:
        """Write what was done, and what could not be, as JSON if that is asked for."""
        if self.options.json is not None:
            write_json(self.options.json, self.records)

    def _read(self, job: Job) -> tuple[Photo, Hole]:
        with named(job.photo):
            photo = read_photo(job.photo)
        with named(job.mask or job.photo):
            if self.options.box or self.options.circle:
                hole = drawn_hole(photo.size, self.options.box, self.options.circle, invert=self.options.invert)
            else:
                mask_image = None if job.mask is None else read_image(job.mask)
                turn = self.options.mask_orientation
                hole = read_hole(mask_image, photo, invert=self.options.invert, orientation=turn)
        hole = replace(hole, mask=grow(hole.mask, self.options.dilate))
        with named(job.photo):
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
    from nuwa_lip.sampling.clip import load_clip

    device, weights = options.device, options.weights
    if device == "auto":
        device = "cuda" if weights is None and torch.cuda.is_available() else "cpu"
    if weights is not None and device != "cpu":
        raise InputError(f"--weights {weights} is for the CPU, not for {device}: add --device cpu or leave it out")
    if options.rank == "clip":
        load_clip(InpaintPipeline.clip)  # before what takes long
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise InputError(f"--device {device} cannot be used: {first_line(error)}") from error
    pipe = InpaintPipeline.from_pretrained(options.model, getattr(torch, options.dtype), weights).to(device)
    return pipe.compile() if options.compile else pipe


@contextmanager
def _importing(photo: Path) -> Iterator[None]:
    """Import what the model needs on another core while a large photo is decoded."""
    with ThreadPoolExecutor(1) as pool:
        if photo.is_file() and photo.stat().st_size > LARGE:
            pool.submit(importlib.import_module, "nuwa_lip.pipeline")  # an error comes again where it is needed
        yield


def _grid(photo: Photo, hole: Hole, result: InpaintOutput, prompt: str) -> Image.Image:
    """Draw the photo with its hole, then all candidates, the best first, each with its number and seed."""
    cells = [(show_hole(photo.to_pil(photo.pixels), hole.mask), "hole")]
    for number, image in enumerate(result.images, 1):
        cells.append((image, f"{number}: seed {result.seeds[number - 1]}, score {result.scores[number - 1]:.3f}"))
    rows: list[tuple[Sequence[Image.Image], str | Sequence[str]]] = []
    for start in range(0, len(cells), GRID_COLUMNS):
        pictures, texts = zip(*cells[start : start + GRID_COLUMNS], strict=True)
        rows.append((pictures, texts))
    return draw_sheet([*rows, ((), prompt)])
