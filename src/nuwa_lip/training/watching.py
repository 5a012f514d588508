"""What is shown of a training beside its losses: memory, time left, share of the peak; Weights & Biases if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from nuwa_lip.errors import InputError


def machine_figures(left: int, seconds: float, rate: float, flops: float, peak: float) -> dict[str, float]:
    """Compute the figures of the machine, which differ from run to run.

    Args:
        left: steps to go.
        seconds: of a step.
        rate: samples a second.
        flops: of a sample, forward and backward; 0: not known.
        peak: FLOP/s of all devices together; 0: not known.

    Returns:
        `hours_left`, `memory_gb` (of a GPU the most so far, else of this process now), and `mfu` where it is known.
    """
    cuda = torch.cuda.is_available()
    memory = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    figures = {"hours_left": left * seconds / 3600, "memory_gb": memory / 1e9}
    return figures | ({"mfu": rate * flops / peak} if flops and peak else {})


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
