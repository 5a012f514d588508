"""The examples for SLURM and Kubernetes: they can be read, and what they start exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from nuwa_lip.commands import train

FOLDER = Path(__file__).parents[1] / "docs/cluster"


def check(words: list[str]) -> None:
    """What torchrun is given, and what the training is given behind it."""
    options = get_args_parser().parse_args(words)
    assert options.module and options.training_script == "nuwa_lip" and options.max_restarts > 0
    first, stage, *rest = options.training_script_args
    assert first == "train"
    chosen, _ = train.parse(stage, rest)
    assert chosen.resume, "a killed process brings all back from the last checkpoint"


def test_slurm() -> None:
    text = (FOLDER / "train.sbatch").read_text()
    if shutil.which("bash"):
        subprocess.run(["bash", "-n", str(FOLDER / "train.sbatch")], check=True)
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in re.findall("#SBATCH.*", text))
    (command,) = re.findall(r"^srun torchrun (.*) \|\| code=\$\?$", text.replace("\\\n", " "), flags=re.MULTILINE)
    command = re.sub(r'"\$SLURM_NNODES"', "8", command)
    check(shlex.split(command))
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in text


def test_kubernetes() -> None:
    service, job = yaml.safe_load_all((FOLDER / "train.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (service["kind"], job["kind"], container["command"]) == ("Service", "Job", ["torchrun"])
    assert spec["completions"] == spec["parallelism"] == int(container["args"][0].removeprefix("--nnodes="))
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    check(container["args"])
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]


@pytest.mark.parametrize("name", ["train.sbatch", "train.yaml"])
def test_the_examples_are_linked(name: str) -> None:
    assert f"cluster/{name}" in (FOLDER.parent / "cluster.md").read_text()
