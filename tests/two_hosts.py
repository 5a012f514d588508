"""Train on two hosts, cut the cable between them, plug it in again, and say what came of it.

    sudo python tests/two_hosts.py --steps 400 --cut 40

The hosts are two network namespaces of Linux, joined by a pair of virtual Ethernet devices, and so it needs root and
`ip` (iproute2). Each runs `torchrun --nnodes 2 --max-restarts 3`, and what a scheduler does: start it again if it has
failed. In the middle of the training the link goes down for so many seconds. It fails if a process says more than one
line of what happened, the training does not end, or it ends with other weights than a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from nuwa_lip.hub import save_model
from nuwa_lip.models import DFVQGAN, DFVQGANConfig

HOSTS = {"nuwa-1": "10.123.45.1", "nuwa-2": "10.123.45.2"}
CABLE = "nuwa0"
"""The name of the network device on both hosts."""
STARTS = 5
"""How often a scheduler starts a host's torchrun."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def plug_in() -> None:
    """Make the hosts and the cable."""
    for host in HOSTS:
        ip("netns", "add", host)
    first, second = HOSTS
    ip("link", "add", CABLE, "netns", first, "type", "veth", "peer", "name", CABLE, "netns", second)
    for host, address in HOSTS.items():
        ip("-n", host, "address", "add", f"{address}/24", "dev", CABLE)
        for device in ("lo", CABLE):
            ip("-n", host, "link", "set", device, "up")


def unplug() -> None:
    """Take the hosts away, and the cable with them."""
    for host in HOSTS:
        subprocess.run(["ip", "netns", "delete", host], stderr=subprocess.DEVNULL, check=False)


def nuwa_lip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "nuwa_lip", *words], check=True, stdout=subprocess.DEVNULL)


def make_data(folder: Path) -> Path:
    """A token cache of drawn shapes, by a DF-VQGAN with random weights."""
    torch.manual_seed(0)
    save_model(folder / "dfvqgan", dfvqgan=DFVQGAN(DFVQGANConfig.preset("tiny")))
    nuwa_lip("data", "shapes", "-o", f"{folder}/shapes", "--count", "64", "--size", "40")
    model, data, tokens = f"{folder}/dfvqgan", f"{folder}/shapes", f"{folder}/tokens"
    nuwa_lip("tokenize", "--model", model, "--data", data, "-o", tokens, "--variants", "1")
    return folder / "tokens"


class Host:
    """Runs torchrun on a host, again and again, as a scheduler does.

    Args:
        name: of the host.
        words: of the training.
        said: file for what its processes say.
    """

    def __init__(self, name: str, words: list[str], said: Path) -> None:
        meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "lip", "--rdzv-endpoint", f"{HOSTS['nuwa-1']}:29511"]
        # both have this machine's name, by which torchrun would tell on which of them they meet
        meeting += ["--rdzv-conf", f"is_host={name == 'nuwa-1'}"]
        group = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", "--local-addr", HOSTS[name]]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *group, *meeting, "-m", "nuwa_lip", *words]
        self.command = ["ip", "netns", "exec", name, *torchrun]
        self.file, self.starts = said.open("w"), 0
        self.start()

    def start(self) -> None:
        settings = {"GLOO_SOCKET_IFNAME": CABLE, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
        self.starts += 1
        self.process = subprocess.Popen(self.command, env=os.environ | settings, stdout=self.file, stderr=self.file)

    def is_over(self) -> bool:
        """Tell whether it has ended well; start it again if it has failed.

        Raises:
            RuntimeError: it has failed too often.
        """
        code = self.process.poll()
        if code:
            if self.starts == STARTS:
                raise RuntimeError(f"{' '.join(self.command)} has failed {STARTS} times; see {self.file.name}")
            self.start()
        return code == 0


def step_of(run: Path) -> int:
    """Read the last step of which metrics.jsonl tells."""
    with suppress(OSError, IndexError, ValueError):
        return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])
    return 0


def disturbed(words: list[str], run: Path, steps: int, seconds: float, limit: float) -> None:
    """Train on both hosts, with the cable cut once."""
    end = time.monotonic() + limit
    hosts = [Host(name, words, run.with_name(f"{name}.log")) for name in HOSTS]

    def wait(until: object) -> None:
        while not until():  # type: ignore[operator]
            if time.monotonic() > end:
                raise RuntimeError(f"step {step_of(run)} after {limit:.0f} s")
            time.sleep(0.2)

    try:
        wait(lambda: step_of(run) >= steps // 2)
        cut = time.monotonic()
        ip("-n", "nuwa-2", "link", "set", CABLE, "down")
        time.sleep(seconds)
        at = step_of(run)
        ip("-n", "nuwa-2", "link", "set", CABLE, "up")
        print(f"cut at step {at} for {time.monotonic() - cut:.0f} s", flush=True)
        back = time.monotonic()
        wait(lambda: ([host.is_over() for host in hosts], step_of(run) > at)[1])
        print(f"both go on {time.monotonic() - back:.0f} s after the link is up again", flush=True)
        wait(lambda: all([host.is_over() for host in hosts]))
    finally:
        for host in hosts:
            host.process.kill()
            print(f"{host.command[3]}: torchrun was started {host.starts} times")


def farthest(run: Path, alone: Path) -> float:
    """Compute the largest difference of a trained weight, relative to its tensor's largest."""
    ours, theirs = (load_file(sorted(one.glob("checkpoints/step-*"))[-1] / "model.safetensors") for one in (run, alone))
    return max(float((ours[name] - own).abs().max() / own.abs().max().clamp(min=1e-6)) for name, own in theirs.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--cut", type=float, default=40, help="seconds")
    parser.add_argument("--patience", type=float, default=0.25, help="minutes")
    parser.add_argument("--limit", type=float, default=900, help="seconds for the whole training")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="two-hosts-"))
    print(f"logs are in {folder}")
    words = ["train", "mps2s", "tiny", "--data", str(make_data(folder)), "--schedule.steps", str(given.steps)]
    words += ["--schedule.checkpoint-every", "20", "--schedule.log-every", "1", "--schedule.sheet-every", "1000000"]
    # by two processes as well: with one, last bits differ, and hundreds of steps make much of them
    pair = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nuwa_lip"]
    alone = [*pair, *words, "--out", f"{folder}/alone"]
    subprocess.run(alone, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    together = [*words, "--out", f"{folder}/run", "--resume", "--patience", str(given.patience)]
    unplug()
    try:
        plug_in()
        disturbed(together, folder / "run", given.steps, given.cut, given.limit)
    finally:
        unplug()
    difference = farthest(folder / "run", folder / "alone")
    right = difference == 0
    for host in HOSTS:
        said = re.findall(r"^nuwa-lip: (?!warning).*", (folder / f"{host}.log").read_text(), flags=re.MULTILINE)
        print(f"{host} said: {said}")
        right = right and len(said) <= 1
    print(f"weights differ by {difference:.1e} of the largest from those of an undisturbed run")
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    main()
