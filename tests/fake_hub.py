"""A hub on localhost with one repository in memory, which can break off, lie and ask for an account."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves `files` of `repo`; what it was asked for stands in `asked`."""

    daemon_threads = True

    def __init__(self, repo: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repo, self.files = repo, files
        self.large: set[str] = {name for name in files if name.endswith((".safetensors", ".onnx"))}
        self.asked: list[tuple[str, str, str | None]] = []
        self.break_off: int | None = None
        """After so many bytes of a large file, once."""
        self.damaged = False
        self.gated = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def etag(self, name: str) -> str:
        content = self.files[name]
        if name in self.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub, path = self.server, self.path.split("?")[0]
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if path.startswith(f"/api/models/{hub.repo}/tree/"):
            tree = [{"type": "file", "path": name, "size": len(c), "oid": "0" * 40} for name, c in hub.files.items()]
            return self.send(200, json.dumps(tree).encode(), body)
        if path.startswith(f"/api/models/{hub.repo}"):
            about = {"id": hub.repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]}
            return self.send(200, json.dumps(about).encode(), body)
        name = path.removeprefix(f"/{hub.repo}/resolve/").partition("/")[2]
        if name not in hub.files:
            return self.send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        if hub.gated:
            return self.send(403, b"{}", body, {"X-Error-Code": "GatedRepo", "X-Error-Message": "accept its licence"})
        content = hub.files[name]
        headers = {"ETag": f'"{hub.etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name in hub.large:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if hub.damaged and name in hub.large:
            content = bytes(len(content))
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, content[start:], body, headers, breakable=name in hub.large)

    def send(
        self, code: int, content: bytes, body: bool, headers: dict[str, str] | None = None, breakable: bool = False
    ) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        limit = self.server.break_off if breakable else None
        if limit is not None:
            self.server.break_off = None
            self.wfile.write(content[:limit])
            self.close_connection = True
            return
        self.wfile.write(content)


@contextmanager
def fake_hub(repo: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, cache: Any) -> Iterator[FakeHub]:
    """Run a hub, and point huggingface_hub and an empty cache to it."""
    hub = FakeHub(repo, files)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
