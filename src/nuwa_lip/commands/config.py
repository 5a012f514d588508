"""`nuwa-lip config`: which file of settings counts here, and what it sets."""

import importlib
from pathlib import Path
from typing import Annotated

import tyro

from nuwa_lip.cli import COMMANDS
from nuwa_lip.cli.settings import read_settings, usual_places
from nuwa_lip.disk import escaped

SECRET = "token"


def config(*, file: Annotated[Path | None, tyro.conf.arg(name="config")] = None) -> None:
    """Show the file of settings that counts in this folder, what it sets, and whether there are such settings.

    A file has a table for each command, with the names of its options: [inpaint], below it grid = true; [data.shards].
    What the command line says counts more. Looked for are --config FILE, nuwa-lip.toml in this folder, and config.toml
    in ~/.config/nuwa-lip; the first that there is counts alone. --config /dev/null sets nothing.

    Example: nuwa-lip config --config nuwa-lip.toml

    Args:
        file: Show this one instead.
    """
    settings = read_settings(file, COMMANDS)
    if settings is None:
        print(f"there is no file of settings: looked for {' and '.join(map(str, usual_places()))}")
        return
    for name in settings.tables:
        module, function = COMMANDS[name][0].split(":")
        settings.apply(name, getattr(importlib.import_module(module), function), [])
    print(escaped(settings.path))
    for name, table in settings.tables.items():
        for key, value in table.items():
            print(f"  {name}: {key} = {'...' if key == SECRET else escaped(repr(value))}")
