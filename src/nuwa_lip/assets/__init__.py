"""Files that come with the package: the bundled model, the perceptual network, the photos of the demo."""

from __future__ import annotations

from pathlib import Path


def asset(name: str) -> Path:
    """The path of a bundled file or folder, for example "demo/captions.json"; it need not exist."""
    return Path(__file__).parent / name
