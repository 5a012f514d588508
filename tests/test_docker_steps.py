"""The Dockerfile, tried without Docker and without a network; `python tests/docker_steps.py` installs, too."""

import fnmatch
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from nuwa_lip.cli import COMMANDS
from nuwa_lip.commands.serve import ANYWHERE
from tests.docker_steps import OF_DOCKER, ROOT, copy, read_steps, run_step

STEPS = read_steps()
KNOWN = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with what is copied, and a command that is made of it."""
    for step in STEPS:
        if step.name == "COPY":
            assert all(path.exists() for path in copy(step, tmp_path))
    (tmp_path / "bin").mkdir()
    for name, words in (("nuwa-lip", "-m nuwa_lip"), ("python", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def test_the_steps_that_need_no_network_run(image: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(image / "src"), "PATH": f"{image / 'bin'}:{os.environ['PATH']}"}
    offline = [
        step.rest
        for step in STEPS
        if step.name == "RUN" and not OF_DOCKER.match(step.rest) and not step.rest.startswith("pip install")
    ]
    assert offline
    for command in offline:
        run_step(command, image, environment)
    run_step('python -c "import nuwa_lip; print(nuwa_lip.__file__)" | grep -qF "$PWD/src/"', image, environment)


def test_what_pip_needs_is_copied(image: Path) -> None:
    project = tomllib.loads((image / "pyproject.toml").read_text())["project"]
    for name in (project["readme"], *project["license-files"], "src/nuwa_lip/assets/nuwa-lip-mini/config.json"):
        assert (image / name).is_file(), name
    installed = next(step.rest for step in STEPS if step.rest.endswith("'.[serve]'"))
    extras = re.findall(r"\.\[([a-z,]+)\]", installed)[0].split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    version = next(step.rest for step in STEPS if step.name == "FROM").partition(":")[2].partition("-")[0]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_what_is_copied_is_not_ignored() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for step in STEPS:
        for source in step.rest.split()[:-1] if step.name == "COPY" else ():
            last = [line for line in lines if fnmatch.fnmatch(source, line.lstrip("!"))][-1]
            assert last.startswith("!"), f"{source} is ignored by {last}"


def test_it_starts_a_command_that_there_is_and_is_no_root() -> None:
    assert {step.name for step in STEPS} <= KNOWN
    by_name = {step.name: step.rest for step in STEPS}
    assert json.loads(by_name["ENTRYPOINT"]) == ["nuwa-lip"]
    command, *options = json.loads(by_name["CMD"])
    assert command in COMMANDS and options[options.index("--host") + 1] in ANYWHERE
    user = by_name["USER"]
    assert user != "root" and any(step.name == "RUN" and step.rest.endswith(f" {user}") for step in STEPS)
    assert f":{by_name['EXPOSE']}/readyz" in by_name["HEALTHCHECK"]
