"""What a baseline is loaded and sampled with."""

from dataclasses import dataclass

from nuwa_lip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    """Options of a baseline; None: its own default."""

    model: str | None = None
    """Folder or file of its weights; for those of diffusers also a hub id."""
    steps: int | None = None
    """Steps of sampling."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1: none."""
    seed: int = 0
    """Photo number i gets the seed `seed` + i."""
    download: bool = False
    """Fetch weights that are missing."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise InputError(f"--baseline-steps is {self.steps}; it must be 1 or more")
        if self.guidance is not None and not self.guidance >= 0:
            raise InputError(f"--baseline-guidance is {self.guidance}; it must be 0 or more")

    def __str__(self) -> str:
        """Describe the options, for the report."""
        said = {"weights": self.model, "steps": self.steps, "guidance": self.guidance}
        words = [f"{name} {'its own' if value is None else value}" for name, value in said.items()]
        return ", ".join([*words, f"seed {self.seed}"])
