"""`nuwa-lip demo`: the bundled photos repainted by a model as one caption says, or several, shown as one sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nuwa_lip.assets import asset
from nuwa_lip.commands.options import OptionalOut
from nuwa_lip.errors import InputError
from nuwa_lip.images.files import check_output, read_image, save_image
from nuwa_lip.images.sheets import draw_sheet, show_hole


def demo(
    *,
    out: OptionalOut = None,
    model: str = "nuwa-lip-mini",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Repaint the bundled photos and write a sheet: photo, hole, results of one caption or of several.

    Example: nuwa-lip demo -o demo.png

    Args:
        out: Where to write the sheet; demo.png by default, which is replaced.
        model: Bundled name, model folder or hub id.
        seed: Seed of the results.
        overwrite: Replace the sheet given by -o if it exists.

    Raises:
        InputError: an option cannot be used, or the sheet cannot be written.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed} is not within 0 to 2^63 - 1")
    target = Path("demo.png") if out is None else out
    check_output(target, overwrite or out is None, exact=False)

    import torch

    from nuwa_lip.pipeline import InpaintPipeline

    pipe = InpaintPipeline.from_pretrained(model)
    captions: dict[str, str] = json.loads(asset("demo/captions.json").read_text(encoding="utf-8"))
    others: dict[str, list[str]] = json.loads(asset("demo/other_captions.json").read_text(encoding="utf-8"))
    rows = []
    for name, caption in captions.items():
        photo = read_image(asset(f"demo/photos/{name}.jpg"))
        mask = read_image(asset(f"demo/masks/{name}.png")).convert("L")
        texts, results = [caption, *others.get(name, [])], []
        for text in texts:
            generator = torch.Generator().manual_seed(seed)
            results += pipe(prompt=text, image=photo, mask_image=mask, generator=generator).images
            print(f"{name}: {text}")
        rows.append(([photo, show_hole(photo, np.asarray(mask) >= 128), *results], ["", "", *texts]))
    headings = ("photo", "hole", "result", "the same hole, another caption")
    save_image(draw_sheet(rows, headings=headings), target)
    print(f"the sheet is {target.resolve()}")
