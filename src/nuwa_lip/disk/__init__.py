"""The disk: files that are written whole or not at all, and strangers' files, whatever they hold."""

# ruff: noqa: F401 - what is imported here is what the package offers

from nuwa_lip.disk.fields import fits, from_json
from nuwa_lip.disk.parts import (
    check_writable,
    held,
    make_folder,
    naming,
    temporary_folder,
    write_json,
    write_text,
    written_folder,
    written_whole,
)
from nuwa_lip.disk.regular import inside, regular
from nuwa_lip.disk.shown import clean, escaped
from nuwa_lip.disk.text import lines_of, parse_json, read_object, read_text
