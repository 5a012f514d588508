"""The manifest of a folder: a line of JSON for each photo that says what became of it, added as soon as it is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nuwa_lip.disk import lines_of, parse_json, read_text, written_whole
from nuwa_lip.errors import InputError

NAME = "manifest.jsonl"


class Manifest:
    """Adds lines to a file; of a killed process the last line may be torn, which a later run drops.

    Of several lines for one input the last one counts. JSON spells out whatever a terminal would obey in a name.

    Args:
        path: of the file; None: nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.inputs: set[str] = set()
        """What has a line."""
        if path is None or not path.exists():
            return
        try:
            lines = lines_of(read_text(path))
            if lines and not _is_whole(lines[-1]):
                del lines[-1]
                with written_whole(path) as part:
                    part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            self.inputs = {str(parse_json(line)["input"]) for line in lines}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is there and is no manifest of this command: rename it") from error

    def add(self, photo: Path | None, state: str, **more: Any) -> None:
        """Add a line.

        Args:
            photo: the input, if it is known.
            state: "done", "failed", or "kept", a result that was there before.
            more: for the line.
        """
        if self.path is None:
            return
        record = {"input": photo and str(photo), "state": state, **more}
        with open(self.path, "ab", buffering=0) as file:  # one write, so that lines of two processes do not mix
            file.write(json.dumps(record).encode() + b"\n")
        self.inputs.add(str(photo))


def _is_whole(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True
