"""What could not be read of shards and photos: counted, named in one warning, and an error where it is too much."""

import warnings
from typing import Any

from nuwa_lip.errors import InputError

MOST_LOST = 0.3
"""Largest share of the shards' bytes that may be noise."""


class Skipped:
    """Collects what could not be read of shards and samples, for one warning at the end."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.samples = 0
        """Samples among these."""
        self.bytes, self.lost = 0, 0
        """Of shards: read, and without anything that can be read."""
        self.shards, self.failed = 0, 0
        """Shards that were asked for, and those that could not be opened or broke off."""

    def add(self, name: str, reason: object, *, sample: bool = True) -> None:
        """Remember what is damaged, once, and the reason.

        Args:
            name: of a sample or a shard.
            reason: a text or an error.
            sample: whether it is one photo.
        """
        if name not in self.reasons:
            self.reasons[name] = " ".join(str(reason).split()) or type(reason).__name__
            self.samples += sample

    def merge(self, counts: dict[str, Any]) -> None:
        """Add what another one has collected, as `vars` gives it."""
        for name, value in counts.items():
            if isinstance(value, dict):
                self.reasons |= value
            else:
                setattr(self, name, getattr(self, name) + value)

    def __len__(self) -> int:
        return len(self.reasons)

    def __str__(self) -> str:
        named = [f"{name} ({reason})" for name, reason in list(self.reasons.items())[:5]]
        more = f" and {len(self) - 5} more" if len(self) > 5 else ""
        return ", ".join(named) + more

    def warn(self, photos: int | None = None) -> None:
        """Warn once, if anything was skipped; with the number of photos that there are.

        Raises:
            InputError: more than `MOST_LOST` of the shards' bytes are lost, or more photos than there are.
        """
        if not self.reasons:
            return
        left = "" if photos is None else f"; there are {photos} photos"
        if self.failed > max(1, MOST_LOST * self.shards):
            raise InputError(
                f"{self.failed} of {self.shards} shards cannot be read, which is too much to go on: {self}{left}; "
                "look whether they are still there, and resume"
            )
        if photos is not None and (self.lost > MOST_LOST * self.bytes or self.samples > photos):
            share = self.lost / max(self.bytes, 1)
            raise InputError(
                f"{self.samples} photos and {share:.0%} of the shards' bytes cannot be read, which is too much to go "
                f"on: {self}{left}; get the shards again, or leave out the damaged ones"
            )
        warnings.warn(f"skipped {len(self)} that could not be read: {self}{left}", UserWarning, stacklevel=3)
