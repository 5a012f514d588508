"""Completion: the written scripts name all commands, and bash completes with them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip.cli import COMMANDS
from nuwa_lip.commands.completion import script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_named_and_the_shell_reads_it(
    shell: str, nuwa_lip: Callable[..., Any], tmp_path: Path
) -> None:
    done = nuwa_lip("completion", shell)
    assert done.code == 0 and done.out == script(shell)
    words = set(done.out.replace("'", " ").split())
    assert {word for name in COMMANDS for word in name.split() if not word.startswith("-")} <= words
    (tmp_path / "script").write_text(done.out)
    if found := shutil.which(shell):
        run = subprocess.run([found, "-n", str(tmp_path / "script")], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")


def complete(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word, asked of a command called nuwa-lip that is this package."""
    command = folder / "nuwa-lip"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nuwa_lip "$@"\n')
    command.chmod(0o755)
    (folder / "script").write_text(script("bash"))
    ask = '. ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nuwa_lip; printf "%s\\n" "${COMPREPLY[@]}"'
    path = f"{folder}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-c", ask, "bash", "nuwa-lip", *words],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stderr == ""
    return run.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("inp",), ["inpaint"]),
        (("evaluate", "table"), ["table1", "table2", "table3", "table4"]),
        (("verify", "--or"), ["--original"]),
        (("data", "shapes", "--diff"), ["--difficulty"]),
        (("inpaint", "my"), ["my photo.jpg"]),
    ],
)
def test_bash_completes(words: tuple[str, ...], offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "my photo.jpg").touch()
    assert complete(tmp_path, *words) == offered
