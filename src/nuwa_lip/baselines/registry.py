"""Baselines by name, as `nuwa-lip evaluate images BENCH --baseline NAME` finds them.

OpenCV's two are in `nuwa_lip.baselines.methods`. Each of the others imports its library when it is loaded.
"""

from pathlib import Path

from nuwa_lip.baselines.glide.folder import is_glide
from nuwa_lip.baselines.methods import Repaint
from nuwa_lip.baselines.options import BaselineOptions
from nuwa_lip.baselines.squares import Painter, by_photo, by_windows
from nuwa_lip.errors import InputError

NAMES = ("glide", "amused", "stable-diffusion", "lama")


def check(name: str | None, options: BaselineOptions) -> None:
    """Check that a baseline takes the options that are given.

    Args:
        name: one of `NAMES`, of OpenCV's, or None.

    Raises:
        InputError: an option is given for nothing.
    """
    given = [option for option in ("model", "steps", "guidance") if getattr(options, option) is not None]
    takes = {"lama": ("model",)}.get(name or "", ("model", "steps", "guidance") if name in NAMES else ())
    if vain := [option for option in given if option not in takes]:
        wanted = [other for other in NAMES if vain[0] == "model" or other != "lama"]
        raise InputError(f"--baseline-{vain[0]} is for --baseline {', '.join(wanted)}, not for {name or 'none'}")


def load(name: str, options: BaselineOptions) -> Repaint:
    """Load a baseline by its name; it leaves known pixels exactly as they are.

    Raises:
        InputError: there is none of this name, or a library or weights are missing, with what to install or where to
            put the file.
    """
    if name not in NAMES:
        raise InputError(f"no baseline is called {name!r}; there are: {', '.join(NAMES)}")
    if name == "lama":
        from nuwa_lip.baselines.lama import load_lama

        return by_photo(load_lama(None if options.model is None else Path(options.model)), options.seed)
    if name == "glide":
        return by_windows(_glide(options), options.seed)
    from nuwa_lip.baselines.diffusers_pipelines import load_pipeline

    return by_windows(load_pipeline(name, options), options.seed)


def _glide(options: BaselineOptions) -> Painter:
    """Load a GLIDE of `train glide`, or the published weights."""
    if options.model is None:
        raise InputError(
            "--baseline glide needs --baseline-model DIR: a model folder of `nuwa-lip train glide`, or a folder with "
            "the published base_inpaint.pt and upsample_inpaint.pt"
        )
    folder = Path(options.model)
    if (folder / "base_inpaint.pt").exists() and not is_glide(folder):
        from nuwa_lip.baselines.glide.published import load_published as load
    else:
        from nuwa_lip.baselines.glide.painter import load_painter as load
    return load(folder, steps=options.steps, guidance=options.guidance)
