"""Text and JSON, read with errors of one line."""

import json
from pathlib import Path
from typing import Any

from nuwa_lip.disk.regular import regular
from nuwa_lip.errors import InputError


def lines_of(text: str) -> list[str]:
    """Return the lines that hold something, as they are.

    Lines end as in files alone: `str.splitlines` would cut captions at U+2028, U+0085 and their like too.
    """
    return [line for line in text.split("\n") if line.strip()]


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read the text of a file, and of nothing that is none.

    Args:
        path: of the file.
        encoding: of its bytes.
        errors: what happens to bytes that are not of this encoding, as for `open`.

    Raises:
        InputError: it is a pipe or a device.
        OSError: it cannot be read.
        UnicodeDecodeError: it is of another encoding.
    """
    return regular(path).read_text(encoding=encoding, errors=errors)


def parse_json(text: str | bytes) -> Any:
    """Parse as `json.loads` does.

    Raises:
        ValueError: it is not valid, or nested so deeply that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object that a file holds.

    Raises:
        InputError: the file cannot be read, is not valid, or holds something else.
    """
    regular(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, not an object")
    return content
