"""Load a server with many clients, and say whether it holds what the project promises.

    OMP_NUM_THREADS=1 python tests/load_server.py --clients 200 --seconds 120

starts `nuwa-lip serve` with the bundled model (--model, --replicas: others). First one client alone is compared with
the pipeline; then all clients paint photos of their own, and come back when they are told to. Printed are answers by
status, results that changed a known pixel or are another photo's, the server's memory, and how long a single request
takes beside the pipeline's own call. It fails if a result is wrong, an answer is neither 200 nor 429, a refusal gives
no reason, or the memory grows by more than a tenth after the first quarter of the time; to judge the times takes a
machine that is otherwise idle.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

SIZE = 128
HOLE = np.zeros((SIZE, SIZE), bool)
HOLE[40:90, 40:90] = True
PAIRS = 15
"""Of a request and a call of the pipeline, one after the other."""
GROWTH = 1.1


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


MASK = png(HOLE)


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def request(pixels: np.ndarray, **fields: Any) -> dict[str, Any]:
    fields = {"prompt": "grass", "seed": "1", **{name: str(value) for name, value in fields.items()}}
    return {"files": {"image": png(pixels), "mask": MASK}, "data": fields, "headers": {"accept": "image/png"}}


def is_right(content: bytes, pixels: np.ndarray) -> bool:
    """Whether a result is one of this photo, with its known pixels."""
    painted = np.asarray(Image.open(io.BytesIO(content)))
    return painted.shape == pixels.shape and bool((painted[~HOLE] == pixels[~HOLE]).all())


def compare(address: str, model: str) -> None:
    """Print the median of single requests beside the pipeline's own calls."""
    import torch

    from nuwa_lip.pipeline import InpaintPipeline

    pipe, pixels = InpaintPipeline.from_pretrained(model), photo(0)
    times: list[tuple[float, float]] = []
    with httpx.Client(base_url=address, timeout=600) as http:
        for _ in range(PAIRS + 2):
            start = time.monotonic()
            answer = http.post("/v1/inpaint", **request(pixels))
            middle = time.monotonic()
            pipe("grass", pixels, HOLE, generator=torch.Generator().manual_seed(1))
            times.append((middle - start, time.monotonic() - middle))
            assert answer.status_code == 200 and is_right(answer.content, pixels), answer.text[:200]
    alone, own = zip(*times[2:], strict=True)  # the first ones warm up
    ratio = statistics.median(a / b for a, b in times[2:])
    print(f"p50 of a request alone {statistics.median(alone):.3f} s, of the pipeline {statistics.median(own):.3f} s,")
    print(f"median of their ratios {ratio:.2f} (of {PAIRS} pairs; promised: 1.3)", flush=True)


def megabytes(pid: int) -> float:
    """Return the memory of a process in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Load:
    """Counts what clients meet.

    Args:
        address: of the server.
        seconds: for which they ask.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self.address, self.end = address, time.monotonic() + seconds
        self.answers: Counter[str] = Counter()
        self.wrong, self.memory = 0, [0.0]
        self.times: list[float] = []

    async def client(self, number: int, http: httpx.AsyncClient) -> None:
        """Ask until the time is over, with another photo each time."""
        luck = random.Random(number)
        while time.monotonic() < self.end:
            pixels, start = photo(luck.randrange(2**32)), time.monotonic()
            try:
                answer = await http.post("/v1/inpaint", **request(pixels, num_inference_steps=8))
            except httpx.TransportError as error:
                self.answers[type(error).__name__] += 1
                continue
            self.answers[str(answer.status_code)] += 1
            if answer.status_code == 200:
                self.times.append(time.monotonic() - start)
                self.wrong += not is_right(answer.content, pixels)
            elif answer.status_code == 429 and answer.text.strip():
                await asyncio.sleep(float(answer.headers.get("retry-after", 1)) * luck.uniform(0.5, 1.5))
            else:
                self.wrong += 1
                print(f"answer {answer.status_code}: {answer.text[:200]!r}", flush=True)

    async def watch(self, pid: int) -> None:
        """Look at the server's memory now and then."""
        self.memory = []
        while time.monotonic() < self.end:
            self.memory.append(megabytes(pid))
            await asyncio.sleep(2)

    async def run(self, clients: int, pid: int) -> None:
        """Let all clients ask at once."""
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=self.address, timeout=600, limits=limits) as http:
            await asyncio.gather(self.watch(pid), *(self.client(number, http) for number in range(clients)))

    def report(self) -> bool:
        """Print what was found; return whether it is as promised."""
        early = max(self.memory[: max(1, len(self.memory) // 4)])
        taken = statistics.median(self.times)
        print(f"answers {dict(self.answers)}, {self.wrong} wrong; accepted ones took {taken:.1f} s")
        print(f"memory at first {early:.0f} MB, at most {max(self.memory):.0f} MB, at last {self.memory[-1]:.0f} MB")
        return not self.wrong and {*self.answers} <= {"200", "429"} and max(self.memory) <= GROWTH * early


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model", default="nuwa-lip-mini")
    parser.add_argument("--replicas", type=int)
    given = parser.parse_args()
    words = ["serve", "--port", "0", "--no-browser", "--model", given.model]
    words += [] if given.replicas is None else ["--replicas", str(given.replicas)]
    server = subprocess.Popen([sys.executable, "-m", "nuwa_lip", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+/", server.stdout.readline())
        assert found, "it did not start"
        while httpx.get(f"{found[0]}readyz", timeout=60).status_code != 200:
            time.sleep(0.2)
        compare(found[0], given.model)
        load = Load(found[0], given.seconds)
        asyncio.run(load.run(given.clients, server.pid))
        as_promised = load.report()
    finally:
        server.terminate()
    ended = server.wait(60)
    print(f"the server ended with {ended}")
    raise SystemExit(0 if as_promised and ended in (0, -15) else 1)


if __name__ == "__main__":
    main()
