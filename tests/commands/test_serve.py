"""`nuwa-lip serve` as people start it: its address, its notes, a clean end, and one line for what cannot be."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.test_app import form

Run = Callable[..., Any]


def test_it_serves_until_it_is_stopped(tiny_model: Path) -> None:
    words = ["serve", "--model", str(tiny_model), "--port", "0", "--no-browser", "--limits.candidates", "2"]
    environment = {**os.environ, "NUWA_LIP_TOKEN": "secret"}
    process = subprocess.Popen(
        [sys.executable, "-m", "nuwa_lip", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://localhost:\d+/", line)
    assert found, line
    with httpx.Client(base_url=found[0], headers={"authorization": "Bearer secret"}, timeout=120) as http:
        assert "<title>NÜWA-LIP" in http.get("/").text
        answer = http.post("/v1/inpaint", **form(extend="200,0,0,0"))  # waits for the model
        assert answer.status_code == 200
        assert [note for note in answer.json()["notes"] if "enlarged" in note]
        assert http.post("/v1/inpaint", **form()).json()["notes"] == []
        assert http.post("/v1/inpaint", **form(num_images_per_prompt=3)).status_code == 422
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM) and "Traceback" not in err and "secret" not in out + err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--port", 70000), "--port is 70000"),
        (("--host", "0.0.0.0"), "--token"),
        (("--host", "0.0.0.0", "--token", "x"), "--allow-host"),
        (("--limits.queue", 0), "queue is 0"),
        (("--device", "cuda"), "--device cuda"),
    ],
)
def test_bad_input(words: tuple[object, ...], says: str, nuwa_lip: Run, tiny_model: Path) -> None:
    done = nuwa_lip("serve", "--model", tiny_model, "--no-browser", *words)
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1


def test_a_port_that_is_taken_is_named(nuwa_lip: Run, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = nuwa_lip("serve", "--model", tiny_model, "--no-browser", "--port", port)
    assert done.code == 2 and f"--port {port} is taken" in done.err
