"""`nuwa-lip data benchmark`: captioned photos with frozen, hashed masks."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from nuwa_lip.commands.options import OptionalOut, check_least
from nuwa_lip.data.benchmark import build_benchmark, build_masked, read_benchmark, verify_benchmark
from nuwa_lip.data.masked import MASKED_LAYOUTS, MaskedLayout, Masks, read_masked
from nuwa_lip.data.masks import parse_rule
from nuwa_lip.data.objects import OBJECT_KINDS
from nuwa_lip.data.sources import (
    Entry,
    SourceKind,
    add_objects,
    list_source,
    load_entries,
    open_source,
    take_split,
    with_license,
)
from nuwa_lip.errors import InputError


def benchmark(
    *,
    out: OptionalOut = None,
    source: list[str] | None = None,
    layout: SourceKind | MaskedLayout | None = None,
    captions: Path | None = None,
    objects: Path | None = None,
    splits: Path | None = None,
    split: str = "test",
    license: list[str] | None = None,
    rule: str = "rectangles-40-60",
    masks: Masks = "inpainting",
    seed: int = 0,
    size: int = 0,
    limit: int | None = None,
    verify: Path | None = None,
) -> None:
    """Build a benchmark folder from captioned photos, or check one against its hashes.

    Example: nuwa-lip data benchmark --source test-000000.tar --rule rectangles-40-60 -o benchmarks/test

    Example: nuwa-lip data benchmark --source val2017 --layout coco --captions captions_val2017.json --size 256
    -o MaskCOCO

    Example: nuwa-lip data benchmark --source val2017 --layout coco --captions captions_val2017.json
    --objects instances_val2017.json --rule segments-20-30 --size 256 -o MaskCOCO-segments

    Example: nuwa-lip data benchmark --source flickr30k-images --layout flickr30k
    --captions results_20130124.token --splits dataset_flickr30k.json --size 256 -o MaskFlickr

    Example: nuwa-lip data benchmark --source VG --layout visual-genome --captions region_descriptions.json
    --size 256 --limit 5000 -o MaskVG

    Example: nuwa-lip data benchmark --source BrushBench --layout brushbench -o benchmarks/brushbench

    Example: nuwa-lip data benchmark --source MagicBrush/data --layout magicbrush --limit 528 -o benchmarks/magicbrush

    Example: nuwa-lip data benchmark --verify benchmarks/test

    Args:
        out: The benchmark folder to make.
        source: Shards (files or patterns), or one folder of captioned photos.
        layout: How the folder's captions are laid out, if not as NAME.txt beside each photo. brushbench, editbench and
            magicbrush (a folder or file of parquet) bring their masks; --rule and --seed are not for them.
        captions: The captions' file of the layout.
        objects: instances_*.json of COCO, for the rules boxes and segments; Visual Genome has its regions.
        splits: Take only one split of Karpathy's dataset_flickr30k.json.
        split: Which one.
        license: Take only photos whose stated licence contains one of these, such as /by/ /by-sa/ of COCO's.
        rule: KIND-LOW-HIGH: a hole of LOW to HIGH per cent. Kinds: rectangles, block (one of them), strokes, centre (a
            box), border (to paint outwards), and boxes or segments (of an annotated object).
        masks: Which masks of brushbench and editbench to take.
        seed: Of the masks.
        size: Side of the centre square that is cut from each photo (the paper's is 256); 0 keeps the photo.
        limit: Number of photos, the first ones of the source.
        verify: Build nothing; compare this benchmark folder with its hashes.
    """
    if verify is not None:
        return _verify(verify)
    if not source:
        raise InputError("--source is missing: shards or a folder of captioned photos")
    if out is None:
        raise InputError("-o is missing: the benchmark folder to make")
    check_least(0, seed=seed, size=size)
    check_least(1, limit=limit)
    if layout in MASKED_LAYOUTS:
        if captions or objects or splits or license:
            raise InputError(
                f"--layout {layout} brings all it needs; leave out --captions, --objects, --splits, --license"
            )
        return _masked(source, cast(MaskedLayout, layout), masks, out, limit, size or None)
    layout = cast(SourceKind | None, layout)
    if parse_rule(rule)[0] in OBJECT_KINDS and not objects and layout != "visual-genome":
        raise InputError(f"--rule {rule} needs objects: a coco source with --objects, or a visual-genome one")
    files = {"captions": captions, "objects": objects, "splits": splits}
    given = {option: path for option, path in files.items() if path is not None}
    names = [path.name for path in (*map(Path, source), *given.values())]
    record = " ".join([*names, split] if splits else names)
    if layout is not None:
        entries = _list(source, layout, given, split)
        if license:  # before any is opened
            entries = list(with_license(entries, license, record))
        samples = load_entries(entries, None, least_side=size or None)
    elif given:
        raise InputError(f"--{next(iter(given))} needs --layout: coco, flickr30k, ...")
    else:
        samples = open_source(source, size or None)
        if license:
            samples = with_license(samples, license, record)
    if license:
        record += f" license {' '.join(license)}"
    made = build_benchmark(samples, source=record, rule=rule, seed=seed, out=out, limit=limit, size=size or None)
    bare = made.captions.count("")
    print(f"{out}: {len(made)} photos{f', {bare} of them without a caption' if bare else ''}, sha256 {made.sha256}")


def _masked(
    source: list[str], layout: MaskedLayout, masks: Masks, out: Path, limit: int | None, size: int | None
) -> None:
    """Build a benchmark of photos that bring their masks.

    Args:
        source, out, limit, size: as for `benchmark`.
        layout: of the source.
        masks: which masks.
    """
    if len(source) > 1:
        raise InputError(f"--layout {layout} takes one folder, not {len(source)}; name the one above them")
    path, kind = Path(source[0]), masks if layout != "magicbrush" else "edits"
    made = build_masked(
        read_masked(layout, path, masks), source=f"{layout} {path.name}", rule=kind, out=out, limit=limit, size=size
    )
    print(f"{out}: {len(made)} photos with their own masks, sha256 {made.sha256}")


def _list(source: list[str], layout: SourceKind, files: dict[str, Path], split: str) -> list[Entry]:
    """List the photos of a published dataset."""
    if len(source) > 1:
        raise InputError(f"--layout {layout} takes one folder of photos, not {len(source)}; name the one above them")
    if "objects" in files and layout != "coco":
        raise InputError(f"--objects {files['objects']} is read for --layout coco only, not for {layout}")
    entries = list_source(layout, Path(source[0]), files.get("captions"))
    if "splits" in files:
        entries = take_split(entries, files["splits"], split)
    return add_objects(entries, files["objects"]) if "objects" in files else entries


def _verify(folder: Path) -> None:
    made = read_benchmark(folder)
    verify_benchmark(made)
    print(f"{folder}: {len(made)} photos, all as recorded; sha256 {made.sha256}")
