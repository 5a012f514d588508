"""Methods that can be measured: a model, a folder of results, OpenCV's inpainting; each is a `Repaint`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from nuwa_lip.data.benchmark import BenchmarkItem, load_photo
from nuwa_lip.disk import read_object, write_json, written_whole
from nuwa_lip.errors import InputError
from nuwa_lip.pipeline import InpaintPipeline

Repaint = Callable[[BenchmarkItem], np.ndarray]
"""Benchmark item → the repainted photo, uint8 [H, W, 3]."""

BASELINES = ("telea", "navier-stokes")


def model(
    name: str,
    seed: int = 0,
    best_of: int = 1,
    rank: Literal["likelihood", "clip"] = "likelihood",
    unpasted: bool = False,
    blend: bool | None = None,
    whole: bool = False,
) -> Repaint:
    """Repaint with a model of ours.

    Args:
        name: bundled name, local folder or hub id.
        seed: photo number i gets the seed `seed` + i.
        best_of: number of candidates, the best of which is taken.
        rank: what the best is chosen by.
        unpasted: the whole photo through the model and nothing of it put back (NÜWA).
        blend: fit colours at the hole's edge, which is not of the paper; None: as the model says.
        whole: let the model see the photo as one window, as `unpasted` does (NÜWA-P: the same, pasted).
    """
    pipe = InpaintPipeline.from_pretrained(name)
    options: dict[str, Any] = {"num_images_per_prompt": best_of, "rank": rank, "blend": blend}

    def repaint(item: BenchmarkItem) -> np.ndarray:
        crop = max(item.mask.shape) if unpasted or whole else None  # one window, all of the photo
        return paint(pipe, item, item.caption, seed, composite=not unpasted, padding_mask_crop=crop, **options)

    return repaint


def paint(pipe: InpaintPipeline, item: BenchmarkItem, caption: str, seed: int, **options: Any) -> np.ndarray:
    """Repaint a photo with a pipeline: uint8 [H, W, 3].

    Args:
        pipe: the model.
        item: the photo.
        caption: what is painted.
        seed: the photo gets seed + its index.
        options: further arguments of the pipeline.
    """
    out = pipe(
        prompt=caption,
        image=Image.fromarray(item.image),
        mask_image=Image.fromarray(item.mask.astype(np.uint8) * 255),
        generator=torch.Generator().manual_seed(seed + item.index),
        **options,
    )
    return np.asarray(out.images[0].convert("RGB"))


def results(folder: Path) -> Repaint:
    """Take pictures made elsewhere: `folder/NNNNN.png`, named as in the benchmark.

    Raises:
        InputError: there is no such folder, or, later, a picture is missing or of another size.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of results")

    def repaint(item: BenchmarkItem) -> np.ndarray:
        path = folder / f"{item.name}.png"
        if not path.exists():
            raise InputError(f"{path} is missing: results are named like the benchmark's photos")
        photo = load_photo(path)
        if photo.shape != item.image.shape:
            h, w = item.image.shape[:2]
            raise InputError(f"{path} is {photo.shape[1]}x{photo.shape[0]}; its photo is {w}x{h}")
        return photo

    return repaint


def baseline(name: str, radius: float = 3.0) -> Repaint:
    """Repaint with OpenCV: `telea` or `navier-stokes`, from known pixels within `radius`.

    Raises:
        InputError: there is no such method, or OpenCV is not installed.
    """
    if name not in BASELINES:
        raise InputError(f"no baseline is called {name!r}; there are: {', '.join(BASELINES)}")
    try:
        import cv2
    except ImportError:
        raise InputError("OpenCV is not installed; pip install 'nuwa-lip[evaluate]'") from None
    flag = cv2.INPAINT_TELEA if name == "telea" else cv2.INPAINT_NS

    def repaint(item: BenchmarkItem) -> np.ndarray:
        # it sees no more than the model does
        blank = np.where(item.mask[..., None], np.uint8(0), item.image)
        return np.asarray(cv2.inpaint(blank, item.mask.astype(np.uint8) * 255, radius, flag))

    return repaint


def kept(repaint: Repaint, folder: Path, run: dict[str, object]) -> Repaint:
    """Save each picture in a folder, and take those that an earlier, stopped run has left there.

    Args:
        repaint: makes the pictures.
        folder: made if missing.
        run: what the pictures depend on (model, seed, benchmark); a folder of another run is refused.

    Raises:
        InputError: the folder holds pictures of another run, or of none that is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "run.json"
    strange = any(folder.glob("*.png"))  # first, for another process may write the note, and then a picture, meanwhile
    if note.exists() and read_object(note) != run:
        raise InputError(f"{folder} holds pictures of another run: {note.read_text().strip()}; name another folder")
    if not note.exists():
        if strange:
            raise InputError(f"{folder} holds pictures but no run.json that says whose; name another folder")
        write_json(note, run, indent=None)
    earlier = results(folder)

    def repaint_or_reuse(item: BenchmarkItem) -> np.ndarray:
        target = folder / f"{item.name}.png"
        if target.exists():
            return earlier(item)
        photo = repaint(item)
        with written_whole(target) as part:  # other processes may write here too
            Image.fromarray(photo).save(part, "PNG", compress_level=1)
        return photo

    return repaint_or_reuse
