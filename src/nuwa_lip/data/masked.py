"""Benchmarks of others that bring their own masks: BrushBench, EditBench as BrushNet packs it, and MagicBrush.

    brushbench, editbench   a folder with mapping_file.json: {key: {"image": path in the folder, "caption": text,
                            "inpainting_mask" and "outpainting_mask": runs of 512 x 512 pixels}}; a run is a pair of its
                            first pixel, counted from 1 row by row, and its length
    magicbrush              one parquet file, or a folder of them: source_img, mask_img, target_img, instruction, and in
                            ImagenHub's edition target_local_caption, which says what belongs into the hole

MagicBrush's photo is the target, which shows what the instruction asks for. Its mask picture is the source with the
hole blanked: transparent, or painted over, so that it differs there; a mask of black and white is taken too.

All of it may come from anybody: paths stay inside the folder, runs inside the picture, and a parquet's pictures are the
bytes in it.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from nuwa_lip.data.shards import Sample, decode_picture
from nuwa_lip.data.sources import Entry, load_entries
from nuwa_lip.disk import clean, inside, parse_json, read_text, regular
from nuwa_lip.errors import InputError

MaskedLayout = Literal["brushbench", "editbench", "magicbrush"]
MASKED_LAYOUTS: tuple[str, ...] = get_args(MaskedLayout)
Masks = Literal["inpainting", "outpainting"]
SIDE = 512
"""Of the pictures that runs describe."""
MAPPING = "mapping_file.json"
PICTURES = ("source_img", "mask_img", "target_img")
CAPTIONS = ("target_local_caption", "instruction")
"""Columns of MagicBrush with what to paint, the better one first."""
DIFFERENT = 8
"""Levels by which a blanked pixel differs from the source's at least, in one channel."""


class Masked(NamedTuple):
    """A photo with the mask that its benchmark gives it."""

    sample: Sample
    mask: np.ndarray
    """bool [H, W], True = to repaint."""


def read_masked(layout: MaskedLayout, source: Path, masks: Masks = "inpainting") -> Iterator[Masked]:
    """Read a benchmark of others, one photo at a time.

    Args:
        layout: see the head of this module.
        source: the folder, or MagicBrush's parquet file.
        masks: which of BrushBench's two.

    Raises:
        InputError: a file is missing, damaged or of another layout, names what lies outside, or pyarrow is missing.
    """
    return _magicbrush(source) if layout == "magicbrush" else _mapping(source, masks)


def run_mask(runs: Any, side: int = SIDE) -> np.ndarray:
    """Draw runs, pairs of first pixel (from 1) and length, as a mask: bool [side, side].

    Raises:
        ValueError: they are no such pairs, or leave the picture.
    """
    numbers = np.array(runs.split() if isinstance(runs, str) else runs).ravel().astype(np.int64)
    if len(numbers) % 2 or len(numbers) > side * side:
        raise ValueError(f"{len(numbers)} numbers are no pairs of first pixel and length")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    if len(numbers) and (starts.min() < 0 or lengths.min() < 0 or lengths.max() > side * side):
        raise ValueError(f"a run leaves the {side} x {side} pixels")
    ends = starts + lengths
    if len(numbers) and ends.max() > side * side:
        raise ValueError(f"a run leaves the {side} x {side} pixels")
    mask = np.zeros(side * side, dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        mask[start:end] = True
    return mask.reshape(side, side)


def _mapping(folder: Path, masks: Masks) -> Iterator[Masked]:
    file = folder / MAPPING
    if not file.is_file():
        raise InputError(f"{folder} has no {MAPPING}: name the folder of BrushBench or EditBench that holds it")
    try:
        content = parse_json(read_text(file))
        items = [(clean(str(key)), _item(item, masks)) for key, item in content.items()]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        raise InputError(f"{file} is not a mapping of pictures, captions and masks: {why}") from None
    entries = [
        Entry(path=inside(folder, folder / image), key=key, captions=[caption]) for key, (image, caption, _) in items
    ]
    for sample, (key, (_, _, runs)) in zip(load_entries(entries, None), items, strict=True):
        try:
            mask = run_mask(runs)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{file}: the mask of {key!r:.80}: {error}") from None
        yield Masked(sample, _fitted(mask, sample.image.size, f"{file}: {key!r:.80}"))


def _item(item: Mapping[str, Any], masks: Masks) -> tuple[str, str, Any]:
    name = f"{masks}_mask" if f"{masks}_mask" in item or masks == "outpainting" else "mask"
    return str(item["image"]), clean(str(item["caption"])), item[name]


def _fitted(mask: np.ndarray, size: tuple[int, int], what: str) -> np.ndarray:
    """Bring a square mask to the size of its photo, if that is square too."""
    if size[0] != size[1]:
        raise InputError(f"{what} is {size[0]}x{size[1]}; its mask is {mask.shape[1]}x{mask.shape[0]}")
    if size == mask.shape[::-1]:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _magicbrush(source: Path) -> Iterator[Masked]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError("--layout magicbrush needs pyarrow: pip install 'nuwa-lip[evaluate]'") from error
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise InputError(f"{source} is no parquet file, and no folder of them")
    for path in files:
        try:
            file = ParquetFile(regular(path))
            names = [name for name in (*PICTURES, "img_id", "turn_index", *CAPTIONS) if name in file.schema_arrow.names]
            lost = [name for name in PICTURES if name not in names]
            if lost or not set(CAPTIONS) & set(names):
                raise InputError(f"{path} has no column {(lost or CAPTIONS)[0]}: it is not MagicBrush")
            for batch in file.iter_batches(batch_size=1, columns=names):
                yield _edited(batch.to_pylist()[0], path)
        except (ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} cannot be read: {' '.join(str(error).split())[:120]}") from error


def _edited(row: Mapping[str, Any], path: Path) -> Masked:
    """Make a photo with its mask of a row of MagicBrush."""
    key = f"{row.get('img_id')}-{row.get('turn_index')}"
    encoded = []
    for name in PICTURES:
        content = row[name].get("bytes") if isinstance(row[name], dict) else None
        if not isinstance(content, bytes):
            raise InputError(f"{path}: {name} of {key!r:.80} holds no picture")
        encoded.append(content)
    caption = next((text for name in CAPTIONS if isinstance(text := row.get(name), str) and text.strip()), "")
    source, target = decode_picture(encoded[0]), decode_picture(encoded[2])
    mask = blanked(Image.open(io.BytesIO(encoded[1])), source)
    if target.size != mask.shape[::-1]:
        sizes = f"{target.width}x{target.height}; its mask is {mask.shape[1]}x{mask.shape[0]}"
        raise InputError(f"{path}: the target of {key!r:.80} is {sizes}")
    meta = {"license": "CC-BY-4.0", "source": "MagicBrush"}
    return Masked(Sample(key=clean(key), image=target, captions=[clean(caption)], meta=meta), mask)


def blanked(picture: Image.Image, source: Image.Image) -> np.ndarray:
    """Find what a mask picture hides, bool [H, W]: what is transparent, or white of black and white, or not the source.

    Args:
        picture: the mask picture.
        source: the photo that it may be a copy of.

    Raises:
        ValueError: it is neither, and of another size than the source.
    """
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if alpha.min() < 128:
            return alpha < 128
    pixels = np.asarray(picture.convert("RGB"))
    if np.isin(pixels, (0, 255)).all() and (pixels == pixels[..., :1]).all():
        return pixels[..., 0] >= 128
    if picture.size != source.size:
        raise ValueError(f"a mask of {picture.width}x{picture.height} for {source.width}x{source.height} pixels")
    differences = np.abs(pixels.astype(np.int16) - np.asarray(source, dtype=np.int16))
    return differences.max(-1) >= DIFFERENT
