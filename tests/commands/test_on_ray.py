"""What runs on Ray, on one of this machine's own: two replicas of the server, and a folder whose process is killed.

One file, because Ray takes its time to start.
"""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.commands import serve as serving
from nuwa_lip.commands.inpaint import Options, _Runner
from nuwa_lip.commands.inpaint_cluster import Painters
from nuwa_lip.commands.on_ray import on_ray, wait_for_end
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.serving.client import SEVERAL, Client
from tests.demo_photos import demo_benchmark
from tests.folders import contents, make_photos
from tests.serving.test_app import HOLE, MASK, PHOTO, PIXELS, form

Run = Callable[..., Any]
PHOTOS = int(os.environ.get("NUWA_LIP_PHOTOS", 24))
KILLS = 3 if PHOTOS >= 100 else 1


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with on_ray(least_cpus=2) as ray:
        yield ray


def painters() -> set[int]:
    """Processes that repaint photos for this one: of those that it has started, and those that these have."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(path.name)] = (path / "cmdline").read_bytes()

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return {pid for pid, name in names.items() if b"Painters" in name and is_ours(pid)}


def close(ours: Any, theirs: Any) -> None:
    """Figures are the same to 1e-6; the commands that printed them differ."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {"command"}:
            close(ours[name], theirs[name])
    elif isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=True):
            close(one, other)
    else:
        assert ours == (pytest.approx(theirs, rel=1e-6, abs=1e-6) if isinstance(theirs, float) else theirs)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the test, where photos/ has pictures, one of them broken, and mask.png is for all."""
    monkeypatch.chdir(tmp_path)
    make_photos(PHOTOS)
    Path("photos/broken.png").write_bytes(b"no picture")
    return tmp_path


def test_a_folder_of_which_a_process_is_killed_is_that_of_one_process(
    ray: Any, nuwa_lip: Run, folder: Path, tiny_model: Path
) -> None:
    words = ["inpaint", "photos", "--mask", "mask.png", "--prompt", "a bear", "--model", tiny_model, "--seed", 3]
    here = nuwa_lip(*words, "-o", "results", "--sidecar")
    shutil.move("results", "expected")
    Path("results").mkdir()
    shutil.copy("expected/007.png", "results")
    shutil.copy("expected/007.png.json", "results")
    killed: list[int] = []

    def kill() -> None:
        moments = random.Random(0)
        for number in range(KILLS):
            least = 2 + moments.randint(number * PHOTOS // (KILLS + 1), (number + 1) * PHOTOS // (KILLS + 1))
            found: set[int] = set()
            while not over.wait(0.002):
                found = found or painters() - {*killed}
                if found and least <= len(list(Path("results").glob("*.png"))) < PHOTOS - 1:
                    killed.append(found.pop())
                    os.kill(killed[-1], signal.SIGKILL)
                    break

    over, killer = threading.Event(), threading.Thread(target=kill)
    killer.start()
    there = nuwa_lip(*words, "-o", "results", "--sidecar", "--json", "done.json", "--cluster")
    over.set()
    killer.join()
    assert len(killed) == KILLS and there.code == here.code == 1
    assert contents(folder / "results") == contents(folder / "expected")
    assert f"results: 1 of {PHOTOS + 1} photos have a result already" in there.out
    assert f"results: {PHOTOS - 1} of {PHOTOS} photos repainted" in there.out
    assert there.err == here.err and "broken.png" in here.err
    records = json.loads(Path("done.json").read_text())
    assert sorted(record["photo"] for record in records) == sorted(
        str(path) for path in Path("photos").iterdir() if path.stem != "007"
    )


def test_figures_are_those_of_one_process(ray: Any, nuwa_lip: Run, folder: Path, tiny_model: Path) -> None:
    """Names are relative to the folder, of which the processes on Ray must be told."""
    demo_benchmark(folder / "bench", {"gull": (0, 0, 64, 64), "bear": (60, 60, 124, 110), "riders": (20, 40, 84, 104)})
    shutil.copytree(tiny_model, "tiny")
    words = ["evaluate", "images", "bench", "--model", "tiny", "--baseline", "telea", "--seed", 3]
    for name, more in (("here", []), ("there", ["--cluster", "--save-images", "pictures"])):
        done = nuwa_lip(*words, "--json", f"{name}.json", *more)
        assert done.code == 0, done.err
    here, there = (json.loads(Path(f"{name}.json").read_text()) for name in ("here", "there"))
    close(there, here)
    assert len(list(Path("pictures").glob("*.png"))) == 3, "they were painted there"


def test_replicas_paint_what_the_pipeline_paints(
    ray: Any,
    nuwa_lip: Run,
    tiny_model: Path,
    tiny_pipe: InpaintPipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ray import serve

    asked = []

    def ask(address: str, seed: int) -> httpx.Response:
        fields = form(prompt="a bear", seed=seed, num_images_per_prompt=4)
        return httpx.post(f"{address}v1/inpaint", **fields, headers={"accept": "image/png"}, timeout=120)

    def while_it_serves() -> None:
        found = re.search(r"http://\S+/", capsys.readouterr().out)
        assert found
        address = found[0]
        states = serve.status().applications["nuwa-lip"].deployments["nuwa-lip"].replica_states
        assert dict(states) == {"RUNNING": 2}
        assert "<title>NÜWA-LIP" in httpx.get(address).text and httpx.get(f"{address}readyz").status_code == 200
        assert httpx.get(f"{address}v1/models", headers={"host": "evil.example"}).status_code == 421
        for method, path in (("POST", "v1/jobs"), ("GET", "v1/jobs/x"), ("GET", "v1/jobs/x/events")):
            answer = httpx.request(method, address + path, timeout=60)
            assert answer.status_code == SEVERAL and "/v1/inpaint" in answer.json()["detail"]
        with Client(address) as client:
            (result,) = client.inpaint(PHOTO, MASK, "a bear", seed=5)
        with ThreadPoolExecutor(48) as pool:
            asked.extend(pool.map(lambda seed: ask(address, seed), range(48)))
        expected = tiny_pipe("a bear", PIXELS, HOLE, generator=torch.Generator().manual_seed(5)).images[0]
        assert (np.asarray(Image.open(io.BytesIO(result.png))) == np.asarray(expected)).all()

    monkeypatch.setattr(serving, "wait_for_end", while_it_serves)
    words = ["--port", 0, "--no-browser", "--replicas", 2, "--limits.queue", 2]
    done = nuwa_lip("serve", "--model", tiny_model, *words)
    assert done.code == 0, done.err
    assert len(asked) == 48 and {answer.status_code for answer in asked} == {200, 429}
    for seed, answer in enumerate(asked):
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1 and answer.text
            continue
        assert seed <= int(answer.headers["x-seed"]) < seed + 4
        painted = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert (painted[~HOLE] == PIXELS[~HOLE]).all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_until_it_is_told_to_end(number: int) -> None:
    before = signal.getsignal(number)
    told = threading.Event()

    def tell() -> None:
        told.set()
        os.kill(os.getpid(), number)

    threading.Timer(0.2, tell).start()
    wait_for_end()
    assert told.is_set() and signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("serve", "--replicas", 0), "--replicas is 0"),
        (("serve", "--replicas", 2, "--device", "cuda"), "each needs a GPU"),
        (("inpaint", "photos/000.png", "-o", "x.png", "--cluster"), "--cluster is for a folder"),
        (("inpaint", "photos", "-o", "results", "--cluster", "--device", "cuda"), "has no GPU"),
        (("evaluate", "images", "bench", "--cluster", "--workers", 2), "leave --workers"),
    ],
)
def test_bad_input(
    ray: Any, nuwa_lip: Run, folder: Path, tiny_model: Path, words: tuple[object, ...], says: str
) -> None:
    photos = ["--prompt", "x", "--mask", "mask.png"]
    more = {"serve": ["--port", 0, "--no-browser"], "inpaint": photos, "evaluate": []}[str(words[0])]
    done = nuwa_lip(*words, "--model", tiny_model, *more)
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) <= 2
    assert not Path("results").exists()


def test_what_ends_everything_is_told_apart(tiny_model: Path, folder: Path) -> None:
    def painted(model: object, out: str) -> dict[str, Any]:
        job = {"number": 1, "photo": "photos/000.png", "mask": "mask.png", "prompt": "", "out": out, "fresh": False}
        painters = Painters(partial(_Runner, Options(model=str(model))), str(folder))
        return json.loads(painters({"job": np.array([json.dumps(job)])})["done"][0])

    assert "'none'" in painted("none", "out.png")["fatal"] and not Path("out.png").exists()
    done = painted(tiny_model, "out.png")
    assert done["error"] is None and "fatal" not in done and "out.png: " in done["out"]
    assert [record["results"] for record in done["records"]] == [["out.png"]]
    assert "exists; give --overwrite" in painted(tiny_model, "out.png")["error"]
    with mock.patch.object(_Runner, "repaint", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        assert "No space" in painted(tiny_model, "new.png")["fatal"]


def test_without_ray_the_extra_is_named(nuwa_lip: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    done = nuwa_lip("inpaint", "photos", "-o", "results", "--prompt", "x", "--mask", "mask.png", "--cluster")
    assert done.code == 2 and "nuwa-lip[cluster]" in done.err
