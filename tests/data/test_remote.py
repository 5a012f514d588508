"""Shards from a web server and from an object store: tried again, skipped and counted, and too many are an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest

from nuwa_lip.data import remote
from nuwa_lip.data.photos import PhotoSet
from nuwa_lip.data.shapes import shape_samples
from nuwa_lip.data.shards import expand_shards, write_shards
from nuwa_lip.data.streamed import StreamedPhotos
from nuwa_lip.errors import InputError

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return write_shards(shape_samples(9, size=32), tmp_path / "shards", image_format="png", max_bytes=1)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))


def whole(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def half(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def busy(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.send_error(503)


def gone(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.send_error(404)


def silent(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.server.released.wait(20)  # type: ignore[attr-defined]


@pytest.fixture
def serve(shards: list[Path]) -> Iterator[Callable[[dict[int, list[Answer]]], str]]:
    """A server of these shards; its first answers for some of them can be others. It gives a pattern of addresses."""
    answers: dict[str, list[Answer]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = shards[0].parent / self.path.strip("/")
            rest = answers.get(path.name, [])
            (rest.pop(0) if rest else whole)(self, path.read_bytes())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.released = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(first: dict[int, list[Answer]]) -> str:
        answers.update({shards[number].name: list(those) for number, those in first.items()})
        return f"http://127.0.0.1:{server.server_port}/photos-{{000000..{len(shards) - 1:06}}}.tar"

    yield start
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()


def test_what_breaks_off_is_tried_again_and_no_sample_comes_twice(
    serve: Any, shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "STALLED", 0.2)
    address = serve({1: [half], 2: [busy, half], 3: [silent]})
    assert PhotoSet.load(address, 32).keys == PhotoSet.load(shards[0].parent, 32).keys


def test_a_shard_that_stays_away_is_skipped_and_counted(serve: Any, shards: list[Path]) -> None:
    address = serve({1: [gone], 4: [busy] * 3})
    with pytest.warns(UserWarning, match=r"skipped 2 .*404.*given up after 3 tries.*503.*there are 7 photos"):
        assert len(PhotoSet.load(address, 32)) == len(shards) - 2


def test_too_many_are_one_line(serve: Any) -> None:
    address = serve({number: [gone] for number in range(4)})
    with pytest.raises(
        InputError, match=r"4 of 9 shards cannot be read, .*404.*look whether they are still there"
    ) as said:
        PhotoSet.load(address, 32)
    assert "\n" not in str(said.value)


def test_a_shard_that_vanishes_is_counted(shards: list[Path]) -> None:
    listed = [str(path) for path in shards]
    source = StreamedPhotos(listed, 32, workers=0, buffer=4)
    shards[3].unlink()
    with pytest.warns(UserWarning, match="photos-000003.tar .No such file"):
        batches = list(islice(source.batches(4, seed=0), 4))
    assert len({key for batch in batches for key in batch.keys}) == len(shards) - 1


def test_object_stores_are_read_by_fsspec(shards: list[Path]) -> None:
    store = fsspec.filesystem("memory")
    for path in shards:
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    found = PhotoSet.load("memory://bucket/photos-{000000..000008}.tar", 32)
    assert found.keys == PhotoSet.load(shards[0].parent, 32).keys


def test_a_store_whose_package_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(InputError, match="s3:// is not to be read yet: Install s3fs"):
        expand_shards("s3://bucket/a.tar")
