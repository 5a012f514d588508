"""Draw docs/spreading.png: which known cells notice that the hole's content has changed (receptive spreading).

    python docs/spreading.py

The bundled model's encoder reads each demo photo as it is and with a black hole: without the mask, as a VQGAN does, and
with it. What is then not the same outside of the hole has been reached by the hole's content.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nuwa_lip.assets import asset
from nuwa_lip.hub import load_model
from nuwa_lip.images.sheets import HOLE, draw_sheet, show_hole

PHOTOS = ("gull", "riders", "blossom", "fog")
HEADINGS = ("photo", "its hole", "plain: latents", "plain: tokens", "with the mask: latents", "with the mask: tokens")


@torch.inference_mode()
def main() -> None:
    """Write the picture, and print what share of the known cells changes."""
    model = load_model("nuwa-lip-mini", need_mps2s=False).dfvqgan.float()
    side = 128
    rows, shares = [], []
    for name in PHOTOS:
        photo = Image.open(asset(f"demo/photos/{name}.jpg")).resize((side, side), Image.Resampling.LANCZOS)
        hole = np.asarray(Image.open(asset(f"demo/masks/{name}.png")).convert("L").resize((side, side))) >= 128
        image = torch.from_numpy(np.asarray(photo) / 127.5 - 1).float().permute(2, 0, 1)[None]
        mask = torch.from_numpy(hole)[None, None]
        black = image.masked_fill(mask, -1)
        cells = model.encode(image, mask).token_mask
        assert cells is not None
        pictures = [photo, show_hole(photo, hole)]
        for way in (None, mask):
            one, two = model.encode(image, way), model.encode(black, way)
            moved = (one.latents - two.latents).norm(dim=1) / one.latents.norm(dim=1)
            changed = (one.tokens != two.tokens).float()
            pictures += [_heat(moved, cells), _heat(changed, cells)]
            shares.append([float((values[~cells[:, 0]] > 0).float().mean()) for values in (moved, changed)])
        rows.append((pictures, ""))
        print(name, *(f"{100 * share:.0f} %" for share in (*shares[-2], *shares[-1])))
    mean = np.reshape(shares, (-1, 4)).mean(axis=0)
    print("mean", *(f"{100 * share:.0f} %" for share in mean))
    draw_sheet(rows, HEADINGS, cell=176).save(Path(__file__).with_suffix(".png"), optimize=True)


def _heat(values: torch.Tensor, cells: torch.Tensor) -> Image.Image:
    """Draw a number for each cell, [1, h, w]: black is no change, white as large as the latent; the hole in grey."""
    shades = (values[0].clamp(0, 1).sqrt() * 255).byte().numpy()
    grey = np.where(cells[0, 0].numpy(), np.uint8(HOLE), shades)
    return Image.fromarray(grey).resize((176, 176), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
