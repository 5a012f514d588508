"""`nuwa-lip export`: a model as files of ONNX or torch.export, or as a pipeline of diffusers."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from nuwa_lip.errors import InputError


def export(
    model: Annotated[str, tyro.conf.Positional],
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    format: Literal["onnx", "torch", "diffusers"] = "onnx",
) -> None:
    """Write a model's functions as files: encoding a photo with its hole, decoding tokens, and one step of decoding.

    They take any number of photos of the model's size. The step keeps its cache in the hands of whoever runs it.

    Example: nuwa-lip export nuwa-lip-mini -o mini-onnx

    Example: nuwa-lip export runs/dfvqgan/model --format torch -o dfvqgan-pt2

    Example: nuwa-lip export nuwa-lip-mini --format diffusers -o mini-diffusers

    Args:
        model: Bundled name, local folder or hub id; stage 1 is enough, but not for diffusers.
        out: Folder to make.
        format: onnx (needs the extra `onnx`), torch for torch.export's .pt2, or diffusers for a folder that
            DiffusionPipeline.from_pretrained loads by custom_pipeline.
    """
    if out.exists():
        raise InputError(f"{out} exists already; name another folder or remove it")

    from nuwa_lip.convert.export import export as write

    files = write(model, out, format)
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    print(f"{out}: {', '.join(files)}, {size:.0f} MB")
