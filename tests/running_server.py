"""A real server on a free port, in a thread, with a tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import uvicorn

from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.serving.app import create_app


@contextmanager
def running(model: Path, **options: Any) -> Iterator[str]:
    """Start a server and give its address once it can paint."""
    app = create_app([str(model)], **options)
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5)
    server, socket = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{socket.getsockname()[1]}"
    try:
        while not ready(address):
            time.sleep(0.05)
        yield address
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def ready(address: str) -> bool:
    """Tell whether a server can paint."""
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def held() -> Iterator[threading.Event]:
    """Let every painting wait until the event is set, so that what comes meanwhile comes in time on any machine."""
    go, fill = threading.Event(), InpaintPipeline._fill

    def wait_and_fill(*words: Any, **options: Any) -> Any:
        assert go.wait(60)
        return fill(*words, **options)

    with mock.patch.object(InpaintPipeline, "_fill", wait_and_fill):
        try:
            yield go
        finally:
            go.set()
