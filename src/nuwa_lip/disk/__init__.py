"""The disk: files that are written whole or not at all, text and JSON, and what is made of values in them."""

from nuwa_lip.disk.fields import fits, from_json
from nuwa_lip.disk.parts import (
    check_writable,
    make_folder,
    temporary_folder,
    write_json,
    write_text,
    written_folder,
    written_whole,
)
from nuwa_lip.disk.text import lines_of, parse_json, read_object

__all__ = [
    "check_writable",
    "fits",
    "from_json",
    "lines_of",
    "make_folder",
    "parse_json",
    "read_object",
    "temporary_folder",
    "write_json",
    "write_text",
    "written_folder",
    "written_whole",
]
