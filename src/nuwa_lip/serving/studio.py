"""The models of a server, and the painting of one request: the only part that knows the pipeline."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nuwa_lip.errors import InputError
from nuwa_lip.serving.jobs import Job, Painted
from nuwa_lip.serving.limits import Limits
from nuwa_lip.serving.notes import noted
from nuwa_lip.serving.previews import Previews
from nuwa_lip.serving.reading import TooLarge, check_pixels
from nuwa_lip.serving.schema import Options

if TYPE_CHECKING:
    from PIL import Image

    from nuwa_lip.images.hole import Hole
    from nuwa_lip.images.photo import Photo
    from nuwa_lip.pipeline import InpaintPipeline


@dataclass
class Order:
    """Holds a request that was read and found right."""

    photo: Photo | None
    hole: Hole | None
    options: Options
    notes: list[str] = field(default_factory=list)
    """What the user should know of it, such as that the hole is large."""
    hole_pixels: int = 0
    """Pixels to repaint."""
    known_pixels: int = 0
    """Pixels that are kept."""
    known_changed: int | None = None
    """Of these, how many a result changed, once it is painted."""

    def release(self) -> None:
        """Let the photo go, so that jobs which are remembered hold their results alone."""
        self.photo = self.hole = None


class Studio:
    """Loads models when they are first asked for, and paints with them.

    Args:
        models: names as `InpaintPipeline.from_pretrained` takes them; the first is the default.
        limits: of requests.
        options: for `from_pretrained`, such as a device and a precision.
    """

    def __init__(self, models: Sequence[str], limits: Limits, **options: Any) -> None:
        self.models, self.limits, self.options = tuple(models), limits, options
        self.loaded: dict[str, InpaintPipeline] = {}
        self.device: str | None = None
        self.provenance = True
        """Results say that they were repainted."""
        self._preview_seconds = 0.05  # what one takes, until the first has been made
        self._reading = threading.Lock()  # decoders set aside warnings, which all threads share

    def pipeline(self, name: str | None = None) -> InpaintPipeline:
        """Give a model's pipeline, loaded once; in the worker's thread only.

        Raises:
            InputError: this server has no such model, or it cannot be loaded.
        """
        name = self.models[0] if name is None else name
        self.check(name)
        if name not in self.loaded:
            from nuwa_lip.pipeline import InpaintPipeline

            pipe = InpaintPipeline.from_pretrained(name, **self.options)
            self.loaded[name] = pipe if self.device is None else pipe.to(self.device)
        return self.loaded[name]

    def check(self, name: str | None) -> None:
        """Refuse a model that this server does not have.

        Raises:
            InputError: so it is.
        """
        if name is not None and name not in self.models:
            raise InputError(f"model is {name!r}; this server has {', '.join(self.models)}")

    def read(self, image: bytes, mask: bytes | None, options: Options, *, alpha_is_hole: bool = False) -> Order:
        """Decode and check a request; nothing is painted yet.

        Args:
            image: the photo's file.
            mask: the mask's file; None: what is transparent in the photo.
            options: the rest.
            alpha_is_hole: the mask's transparency says what to repaint, as OpenAI's clients send it.

        Raises:
            InputError: the request cannot be used.
        """
        self.check(options.model)
        notes: list[str] = []
        with self._reading, noted(notes):
            photo, hole = self._read(image, mask, options, alpha_is_hole)
        hidden = int(hole.mask.sum())
        return Order(photo, hole, options, notes, hidden, hole.mask.size - hidden)

    def _read(self, image: bytes, mask: bytes | None, options: Options, alpha_is_hole: bool) -> tuple[Photo, Hole]:
        from nuwa_lip.images.hole import Hole, examine, grow, read_hole
        from nuwa_lip.images.reading import Content, read_image, read_photo

        if options.num_images_per_prompt > self.limits.candidates:
            raise InputError(
                f"num_images_per_prompt is {options.num_images_per_prompt}; this server paints at most "
                f"{self.limits.candidates}"
            )
        for name, content in (("image", image), ("mask", mask)):
            if content is not None:
                check_pixels(content, name, self.limits)
        photo = read_photo(Content("image", image))
        layer = None if mask is None else read_image(Content("mask", mask))
        if alpha_is_hole and layer is not None:
            if not layer.has_transparency_data:
                raise InputError("mask has no transparency: what is transparent in it is repainted")
            layer = layer.convert("RGBA").getchannel("A").point(lambda alpha: 255 * (alpha < 128))
        if any(options.extend):
            photo, hole = extended(photo, layer, options, self.limits)
        else:
            hole = read_hole(layer, photo, invert=options.invert)
        if options.grow:
            hole = Hole(grow(hole.mask, options.grow), hole.reading, opaque=hole.opaque)
        examine(photo, hole)
        return photo, hole

    def paint(self, order: Order, job: Job) -> list[Painted]:
        """Paint a request's candidates, best first; in the worker's thread.

        Raises:
            InputError: the pipeline refuses the request.
            Stopped: the job is not to go on.
        """
        import torch

        from nuwa_lip.images.compare import differences
        from nuwa_lip.images.files import as_png
        from nuwa_lip.images.provenance import Statement, hash_known, mark, public_name
        from nuwa_lip.images.windows import find_windows

        options, photo, hole = order.options, order.photo, order.hole
        assert photo is not None and hole is not None
        pipe = self.pipeline(options.model)
        windows = len(find_windows(hole.mask, pipe.resolution, options.padding_mask_crop))
        done, last, previews = 0, 0, Previews(self._preview_seconds)

        def after_step(_: object, step: int, steps: int, given: dict[str, Any]) -> None:
            nonlocal done, last
            done += step <= last  # a new window has begun
            last = step
            progress = min(1.0, (done + step / steps) / windows)
            job.report(progress)
            preview = given.get("preview") if job.watchers else None  # not every model can show what it has
            if preview is not None and (shot := previews.take(preview, progress)):
                job.report(progress, shot)

        job.report(0.0)
        seed = secrets.randbelow(2**32) if options.seed is None else options.seed
        with noted(order.notes):
            out = pipe(
                options.prompt,
                photo,
                hole,
                generator=torch.Generator().manual_seed(seed),
                callback_on_step_end=after_step,
                **options.sampling(),
            )
            model = public_name(self.models[0] if options.model is None else options.model)
            known_before = hash_known(photo, hole.mask) if self.provenance else ""
            for image, own in zip(out.images, out.seeds, strict=True):
                if self.provenance:
                    mark(image, Statement(model, own, known_before))
            files = [as_png(image) for image in out.images]
        self._preview_seconds = previews.seconds
        known = ~hole.mask
        results = [stored(image) for image in out.images]
        order.known_changed = max(int((differences(photo, result) & known).sum()) for result in results)
        return [
            Painted(content, seed, score) for content, seed, score in zip(files, out.seeds, out.scores, strict=True)
        ]


def stored(image: Image.Image) -> Photo:
    """Give the pixels that a result's file holds, of 16-bit colours all bits."""
    from nuwa_lip.images.photo import as_photo
    from nuwa_lip.images.pictures import DEEP

    photo = as_photo(image)
    return replace(photo, pixels=image.info[DEEP]) if DEEP in image.info else photo


def extended(photo: Photo, mask: Image.Image | None, options: Options, limits: Limits) -> tuple[Photo, Hole]:
    """Add room around a photo, which belongs to the hole.

    Args:
        photo: it is turned upright.
        mask: as large as the photo, or as large as it becomes; None: what is transparent in the photo, if anything is.
        options: of these `extend` and `invert` count.
        limits: of these the pixels count.

    Raises:
        TooLarge: the photo would have too many pixels.
        InputError: the mask cannot be read, or has neither size.
    """
    from nuwa_lip.images.hole import Hole, read_hole
    from nuwa_lip.images.photo import upright

    left, top, right, bottom = options.extend
    height, width = photo.size
    size = width + left + right, height + top + bottom
    if size[0] * size[1] > limits.megapixels * 1e6:
        raise TooLarge(f"extend makes {size[0]}x{size[1]} pixels; this server takes {limits.megapixels} megapixels")
    room = (top, bottom), (left, right)
    new = np.pad(np.zeros((height, width), bool), room, constant_values=True)
    small = replace(photo, pixels=upright(photo.pixels, photo.orientation), orientation=1)
    large = replace(small, pixels=np.pad(small.pixels, (*room, (0, 0))))
    if photo.mode in ("LA", "RGBA"):
        large.pixels[..., -1][new] = photo.scale
    if mask is not None and mask.size == size:
        hole = read_hole(mask, large, invert=options.invert)
        return large, Hole(hole.mask | new, hole.reading)
    transparent = photo.alpha is not None and (photo.alpha < photo.scale / 2).any()
    if mask is None and not transparent:
        return large, Hole(new, "what is new = repaint")
    hole = read_hole(mask, small, invert=options.invert)
    return large, Hole(np.pad(hole.mask, room, constant_values=True), hole.reading, opaque=hole.opaque)
