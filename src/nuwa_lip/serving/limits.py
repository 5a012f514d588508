"""What a server takes, so that no request can fill its memory or keep its device for ever."""

from dataclasses import dataclass, fields

from nuwa_lip.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one request, and of all together."""

    megabytes: int = 64
    """Largest body of a request, in 10^6 bytes."""
    megapixels: int = 64
    """Largest photo, in 10^6 pixels."""
    candidates: int = 8
    """Most results of one request."""
    queue: int = 16
    """Most requests that wait; the next one is told to come back."""
    seconds: int = 600
    """Longest time that one request may keep the device."""
    kept: int = 64
    """Most finished jobs whose results can still be fetched; the oldest goes first."""
    kept_megabytes: int = 512
    """Most memory for these results, in 10^6 bytes."""

    def check(self) -> None:
        """Find out whether a server could work with these.

        Raises:
            InputError: a bound is not above 0.
        """
        for field in fields(self):
            if not getattr(self, field.name) >= 1:
                raise InputError(f"{field.name} is {getattr(self, field.name)}; it must be 1 or more")


USUAL = Limits()
"""For a machine of one user."""
