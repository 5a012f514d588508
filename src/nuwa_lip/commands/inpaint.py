"""`nuwa-lip inpaint`: repaint the hole of a photo, or of every photo in a folder."""

from __future__ import annotations

import importlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from PIL import Image

from nuwa_lip.cli.quiet import Silent
from nuwa_lip.commands.candidates_sheet import candidates_sheet
from nuwa_lip.commands.captions import caption_for, is_captions_file, read_captions
from nuwa_lip.commands.drawn_hole import drawn_hole
from nuwa_lip.commands.fetched_inputs import fetch_inputs, place_of
from nuwa_lip.commands.folder_jobs import Job, check_names, results_folder
from nuwa_lip.commands.inpaint_cluster import attempts_on_cluster
from nuwa_lip.commands.inpaint_folder import attempts_here, named, repaint_folder, warnings_named
from nuwa_lip.commands.inpaint_options import Options, check_options
from nuwa_lip.commands.result_files import mask_of, pictures_of
from nuwa_lip.commands.sidecar import check_sidecars, hash_inputs, write_sidecar
from nuwa_lip.disk import escaped, write_json
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images.credentials import Seal
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

if TYPE_CHECKING:
    from nuwa_lip.pipeline import InpaintOutput, InpaintPipeline

Sign = Callable[[Path], None] | None
LARGE = 4_000_000
"""Bytes of a file that takes about as long to decode as torch to be imported."""


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

    Example: nuwa-lip inpaint s3://bucket/photos --prompt "grass" -o results/ --cluster

    Photos of a folder that cannot be repainted are named and left out; if there are any, the exit code is 1. Those that
    have a result already are left as they are: the same command goes on where another one was stopped.

    Args:
        photo: Photo, or folder of photos; - reads standard input. Shards (.tar) and folders of an object store (s3://,
            gs://, ...) are fetched to OUT/inputs first.
        prompt: Caption, "" for none; or a file of captions by name: JSON, JSON lines, CSV, or name, tab, caption.
        out: Result: .png, .webp, .tif (all exact) or .jpg; - for standard output; for a folder, a folder of .png.
        mask: White is repainted; for a folder, one mask or a folder of masks. Without it, what is transparent is.
        more: How to repaint.

    Raises:
        InputError: an option, or what it names, cannot be used.
        SystemExit: with 1, some photos of a folder could not be repainted.
    """
    check_options(more)
    if mask is not None and (more.box or more.circle):
        raise InputError(f"--box and --circle are for photos without a mask: leave them out, or --mask {mask}")
    if more.json is not None and more.json in (photo, mask, out, Path(prompt)):
        raise InputError(f"--json {more.json} is another file of this command: choose another name")
    if photo.is_dir() or place_of(photo) is not None:
        if STANDARD in (out, mask):
            raise InputError("a folder of photos needs a folder for the results, -o FOLDER, and masks that are files")
        photo, mask, prompt = fetch_inputs(photo, mask, prompt, out, drawn=bool(more.box or more.circle))
        attempts = attempts_on_cluster if more.cluster else attempts_here
        return repaint_folder(photo, mask, prompt, out, _Runner(more), attempts)
    if more.cluster:
        raise InputError(f"--cluster is for a folder of photos, and {photo} is none: leave it out")
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
    check_options(options)
    runner = _Runner(options)
    check_names([(job, runner.files(job))])
    with warnings_named(None):
        runner.repaint(job)
    runner.report()


class _Runner:
    """Repaints one job after another; the model is loaded when the first input has been read."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        self.pipe: InpaintPipeline | None = None
        self.replaces, self.manifest = options.overwrite or options.force, options.manifest
        self.records: list[dict[str, Any]] = []
        own = options.credential, options.key
        self.seal = Seal(own[0], own[1]) if own[0] and own[1] else None

    def files(self, job: Job) -> list[Path]:
        """Name what a job writes: the sheet, if there is one, the pictures, and the mask.

        Raises:
            InputError: the result has no name, or several results would go to standard output.
        """
        sheet = [job.out] if self.options.grid else []
        return sheet + self._pictures(job) + self._masks(job)

    def _pictures(self, job: Job) -> list[Path]:
        return pictures_of(job, self.options.num, grid=self.options.grid, save_mask=self.options.save_mask)

    def _masks(self, job: Job) -> list[Path]:
        return [mask_of(job)] if self.options.save_mask else []

    def repaint(self, job: Job) -> None:
        """Read, repaint, write, and say what was done."""
        names = self._pictures(job)
        for name in self.files(job):
            check_output(name, self.replaces, exact=name in names, force=self.options.force, new_folder=True)
        if self.options.sidecar:
            check_sidecars(job, names, self.replaces)
        if self.seal and STANDARD in (job.photo, job.out):
            raise InputError("--credential signs files of photos that are files: name them in place of -")
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
        stream = sys.stderr if job.out == STANDARD and not isinstance(sys.stdout, Silent) else sys.stdout

        def say(text: str) -> None:
            print(escaped(text), file=stream)

        say(f"{job.photo}: {width}x{height} {photo.mode}, hole {share} ({hole.reading}), seed {self.seed}")
        pipe = self.load()
        start = time.perf_counter()
        result = self._call(pipe, photo, hole, job.prompt)
        seconds = time.perf_counter() - start
        inputs = hash_inputs(job) if options.sidecar else {}
        signed = job.photo.read_bytes() if self.seal else b""  # before a result may take its place
        statement = Statement(public_name(options.model), self.seed, hash_known(photo, hole.mask))
        if options.grid:
            self._save(candidates_sheet(photo, hole, result, job.prompt), job.out, job, statement)
            say(f"{job.out}: the sheet")
        for name, image, score, seed in zip(names, result.images, result.scores, result.seeds, strict=True):
            own = replace(statement, seed=seed)
            sign: Sign = None
            if self.seal:
                sign = partial(self.seal.sign, original=signed, statement=own, mask=hole.mask)
            self._save(image, name, job, own, sign)
            if options.sidecar:
                write_sidecar(job, name, asdict(replace(options, seed=seed)), inputs)
            say(f"{name}: {seconds:.1f} s, score {score:.3f}, seed {seed}")
        for name in self._masks(job):  # last, because it is of no use without a result
            self._save(Image.fromarray(hole.mask), name, job)
        self.records.append(
            {"photo": str(job.photo), "mask": job.mask and str(job.mask), "prompt": job.prompt}
            | {"width": width, "height": height, "mode": photo.mode, "hole": float(hole.mask.mean())}
            | {"reading": hole.reading, "results": [str(name) for name in names], "seeds": result.seeds}
            | {"scores": result.scores, "seconds": round(seconds, 3)}
        )

    def _save(
        self, image: Image.Image, name: Path, job: Job, statement: Statement | None = None, sign: Sign = None
    ) -> None:
        if statement is not None and self.options.provenance:
            mark(image, statement, xmp_room(name))
        save_image(image, name, replace=self.replaces, finish=sign)
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
            revisions=o.revisions,
            squares=o.squares,
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
