"""The Dockerfile's steps without Docker: what it copies goes into a folder, what it runs is run there.

    python tests/docker_steps.py --arg TORCH_INDEX=

makes an environment of its own, installs into it as the image does (which needs the network), and asks the command for
its help. Not tried are the image that it begins with, users, and health checks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OF_DOCKER = re.compile(r"^(useradd|groupadd|apt-get)\b")
"""Steps that change the machine itself."""


class Step(NamedTuple):
    """One instruction."""

    name: str
    rest: str


def read_steps(path: Path = ROOT / "Dockerfile") -> list[Step]:
    """Read the instructions of a Dockerfile; lines that end in a backslash go on."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def copy(step: Step, folder: Path) -> list[Path]:
    """Copy what a COPY names, as Docker does: a folder's content into the target, files below it."""
    *sources, target = step.rest.split()
    made = []
    for source in sources:
        into = folder / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, into)
        made.append(into if (ROOT / source).is_dir() else into / Path(source).name)
    return made


def run_step(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a RUN by the shell, as Docker does."""
    subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, check=True)


def main() -> None:
    """Run all steps in an environment of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="in place of an ARG's default")
    given = dict(pair.split("=", 1) for pair in parser.parse_args().arg)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        work = folder / "image"
        work.mkdir()
        environment = {**os.environ, "PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        for step in read_steps():
            print(f"--- {step.name} {step.rest}", flush=True)
            if step.name == "ARG":
                key, _, default = step.rest.partition("=")
                environment[key] = given.get(key, default)
            elif step.name == "COPY":
                copy(step, work)
            elif step.name == "RUN" and not OF_DOCKER.match(step.rest):
                run_step(step.rest, work, environment)
            elif step.name in ("ENTRYPOINT", "CMD"):
                words = ["nuwa-lip"] if step.name == "ENTRYPOINT" else ["nuwa-lip", *json.loads(step.rest)[:1]]
                subprocess.run([*words, "--help"], env=environment, check=True, stdout=subprocess.DEVNULL)
    print("all steps run")


if __name__ == "__main__":
    main()
