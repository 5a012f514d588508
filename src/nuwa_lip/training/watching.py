"""What is shown of a training beside its losses: memory, time left, share of the peak; Weights & Biases if asked."""

from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from nuwa_lip.errors import InputError


def machine_figures(rate: float, flops: float, peak: float) -> dict[str, float]:
    """Compute the figures of the machine, which differ from run to run.

    Args:
        rate: samples a second.
        flops: of a sample, forward and backward; 0: not known.
        peak: FLOP/s of all devices together; 0: not known.

    Returns:
        `memory_gb` (of a GPU the most so far, else of this process now), and `mfu` where it is known.
    """
    cuda = torch.cuda.is_available()
    memory = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    return {"memory_gb": memory / 1e9} | ({"mfu": rate * flops / peak} if flops and peak else {})


def in_short(figures: dict[str, float]) -> str:
    """Say in a line what a training has taken: hours, memory, pace, the share of it that waited for data, and MFU."""
    if not figures:
        return "nothing was left to do"
    words = [f"{figures['hours']:.2f} h", f"{figures['memory_gb']:.1f} GB"]
    words.append(f"{figures['images_per_second']:.3g} samples a second at last")
    words.append(f"{figures['waiting']:.1%} of the time waiting for data")
    return ", ".join(words + ([f"MFU {figures['mfu']:.0%}"] if "mfu" in figures else []))


def open_wandb(project: str, folder: Path) -> Any:
    """Open a run of Weights & Biases, which goes on when the folder's run is resumed.

    Raises:
        InputError: the package is not installed.
    """
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError:
        raise InputError(f"--wandb {project} needs Weights & Biases: pip install wandb") from None
    return wandb.init(
        project=project, name=folder.name, id=folder.absolute().as_posix().replace("/", "-"), resume="allow"
    )
