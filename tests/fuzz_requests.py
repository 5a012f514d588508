"""Malformed pictures, forms, JSON, heads and paths go to a real `nuwa-lip serve`, one request after the other.

    python tests/fuzz_requests.py --count 2000 --seed 0

Of each answer it is asked: it comes within ten seconds, is no error of the server (5xx), and shows nothing of how the
server looks inside. In the end the server still paints, has written no file, and has no traceback in its log. Request
1234 alone: `--seed 0 --only 1234`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PATIENCE = 10.0
ROUTES = ("/v1/inpaint", "/v1/jobs", "/api/v1/inpaint", "/v1/images/edits")
INSIDE = re.compile(rb'Traceback|File "/|site-packages|\.py\b')
LIMITS = ("megabytes", "2", "megapixels", "2", "seconds", "5", "candidates", "2")
NUMBERS: tuple[Any, ...] = (0, -1, 1, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), True)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    None,
    "",
    "x",
    "\x00\u202e\ud800",
    "9" * 5000,
    [],
    [[]],
    {},
    {"a": 1},
    [1, 2, 3, 4],
)
FIELDS = (
    "prompt model num_images_per_prompt seed guidance_scale num_inference_steps temperature top_k top_p order schedule "
    "revisions padding_mask_crop blend invert grow extend image mask sd_seed n size response_format surprise"
).split()
PATHS = (
    """
/ // /../../etc/passwd /%2e%2e/%2e%2e/etc/passwd /..%5c..%5cx /%00 /\u202e /page.js /v1/jobs/x /v1/jobs/../../x
/v1/jobs/%00/events /v1/jobs/x/images/-1 /v1/jobs/x/images/9999999999999999999999 /v1/models?x=%ff /openapi.json /docs
/metrics /readyz /healthz * http://[::1/
""".split()
    + ["/" + "a" * 9000]
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "GET\x00", "g")
HEADS = [
    *("Host: ", "Host: evil.example", "Host: [::1", "Host: localhost:99999", "Origin: null", "Origin: http://[x"),
    *("X: " + "y" * 9000, "Content-Type: multipart/form-data", "Content-Type: multipart/form-data; boundary="),
    *("Content-Type: \x00", "Cookie: \xff", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip"),
    *("Content-Length: -5", "Content-Length: 1e3", "Range: bytes=9-1", "Range: bytes=" + "0-," * 500),
    *("Authorization: Bearer \xff", "Expect: 100-continue", "Upgrade: websocket", "Accept: image/png"),
]
Rng = np.random.Generator


def picture(rng: Rng) -> bytes:
    """A small picture of some format, mostly damaged."""
    kind = str(rng.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"]))
    size = int(rng.integers(1, 30)), int(rng.integers(1, 30))
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(stream, kind)
    content = bytearray(stream.getvalue())
    match int(rng.integers(9)):
        case 0:
            return bytes(content[: rng.integers(0, len(content))])
        case 1:
            for at in rng.integers(0, len(content), 6):
                content[at] ^= 1 << rng.integers(8)
        case 2:
            content[int(rng.integers(len(content))) :] = rng.bytes(50)
        case 3:
            return rng.bytes(int(rng.integers(0, 300)))
        case 4 if kind == "PNG":  # a head that promises 2^31 pixels a side
            content[16:24] = b"\x7f\xff\xff\xff" * 2
        case 5:
            return b"%PDF-1.7\n" + rng.bytes(40)
        case 6:
            return b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    return bytes(content)


def whole(rng: Rng) -> tuple[bytes, bytes]:
    """A photo and its mask that are right."""
    photo, mask = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8), np.zeros((20, 24), bool)
    mask[5:12, 6:15] = True
    files = []
    for pixels in (photo, mask):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        files.append(stream.getvalue())
    return files[0], files[1]


def pictures(rng: Rng) -> tuple[bytes, bytes]:
    """Photo and mask, of which one, both or none is malformed."""
    photo, mask = whole(rng)
    wrong = int(rng.integers(4))
    return picture(rng) if wrong & 1 else photo, picture(rng) if wrong & 2 else mask


def some_fields(rng: Rng) -> dict[str, Any]:
    """Fields with values of any kind."""
    chosen = rng.choice(FIELDS, int(rng.integers(0, 4)), replace=False)
    return {"num_inference_steps": 1} | {str(name): VALUES[rng.integers(len(VALUES))] for name in chosen}


def by_json(rng: Rng) -> tuple[str, bytes]:
    """A body of JSON, which may be none."""
    photo, mask = (base64.b64encode(content).decode() for content in pictures(rng))
    body: Any = {"image": photo, "mask": mask, **some_fields(rng)}
    text = json.dumps(body).encode()
    match int(rng.integers(8)):
        case 0:
            text = text[: rng.integers(len(text))]
        case 1:
            text = b"[" * int(rng.integers(1, 100_000))
        case 2:
            text = rng.bytes(200)
        case 3:
            text = json.dumps(VALUES[rng.integers(len(VALUES))]).encode()
        case 4:
            text = text.replace(b"=", b"%").replace(b'"image": "', b'"image": "data:image/png;base64,')
    return "application/json", text


def by_form(rng: Rng) -> tuple[str, bytes]:
    """A body of a form, whose parts may be damaged."""
    edge = "edge" if rng.random() < 0.9 else "e" * 80
    parts = []
    for name, content in zip(("image", "mask"), pictures(rng), strict=True):
        file = str(rng.choice(["a.png", "../../evil.png", "/etc/passwd", "a\x00b", "x" * 3000, 'a"; name="mask']))
        parts.append(f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode() + content)
    for name, value in some_fields(rng).items():
        text = str(value).encode("utf-8", "surrogatepass")
        parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + text)
    if rng.random() < 0.1:
        parts *= int(rng.integers(2, 100))
    body = (
        b"".join(b"--" + edge.encode() + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + edge.encode() + b"--\r\n"
    )
    match int(rng.integers(6)):
        case 0:
            body = body[: rng.integers(len(body))]
        case 1:
            body = body.replace(b"\r\n\r\n", b"\r\n", int(rng.integers(1, 4)))
        case 2:
            body = body.replace(b"form-data", rng.bytes(9), 1)
    return f"multipart/form-data; boundary={edge}", body


def request(rng: Rng, address: tuple[str, int]) -> bytes:
    """One request, as it goes over the wire."""
    method, path, kind, body = "POST", str(rng.choice(ROUTES)), "", b""
    if rng.random() < 0.25:
        method, path = str(rng.choice(METHODS)), PATHS[rng.integers(len(PATHS))]
        body = rng.bytes(int(rng.integers(0, 50))) if rng.random() < 0.3 else b""
    else:
        kind, body = by_json(rng) if rng.random() < 0.5 else by_form(rng)
    heads = [f"Host: localhost:{address[1]}", "Connection: close", f"Content-Length: {len(body)}"]
    heads += [f"Content-Type: {kind}"] if kind else []
    if rng.random() < 0.2:
        odd = HEADS[rng.integers(len(HEADS))]
        heads = [head for head in heads if head.partition(":")[0] != odd.partition(":")[0]] + [odd]
    line = f"{method} {path} HTTP/1.1" if rng.random() < 0.98 else f"{method} {path}"
    return "\r\n".join([line, *heads, "", ""]).encode("utf-8", "surrogatepass") + body


def answer(content: bytes, address: tuple[str, int]) -> bytes:
    """Send bytes, and read what comes back; where the server would wait for more, say that there is none."""
    with socket.create_connection(address, timeout=PATIENCE) as wire:
        try:
            wire.sendall(content)
            if b"Transfer-Encoding" in content or b"HTTP/1.1" not in content:
                wire.shutdown(socket.SHUT_WR)
        except OSError:  # refused while it was still being sent
            pass
        read = b""
        try:
            while piece := wire.recv(65536):
                read += piece
        except ConnectionError:
            pass
        return read


def problem(content: bytes, address: tuple[str, int], process: subprocess.Popen[Any]) -> tuple[str, str | None]:
    """Try a request → how it was answered, and what is wrong, if anything is."""
    start = time.monotonic()
    try:
        read = answer(content, address)
    except TimeoutError:
        return "hang", f"no answer within {PATIENCE} s"
    except OSError as error:
        return "gone", f"the server does not listen any more: {error}"
    if process.poll() is not None:
        return "gone", f"the server has ended with {process.returncode}"
    if time.monotonic() - start > PATIENCE:
        return "hang", f"the answer took {time.monotonic() - start:.0f} s"
    found = re.match(rb"HTTP/1\.1 (\d)(\d\d)", read)
    kind = f"{found[1].decode()}xx" if found else "closed"
    text = b"" if kind == "2xx" else read
    inside = INSIDE.search(text)
    wrong = f"{read[:300]!r}" if kind == "5xx" or inside else None
    return kind, wrong


def ready(address: tuple[str, int]) -> bool:
    """Tell whether the server can paint."""
    try:
        asked = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return b"200 OK" in answer(asked, address)
    except OSError:  # it does not listen yet
        return False


@contextmanager
def serving(model: str, folder: Path) -> Iterator[tuple[tuple[str, int], subprocess.Popen[Any]]]:
    """Start a server in an empty folder, with an empty home and an empty place for temporary files."""
    places = {name: folder / name for name in ("work", "home", "tmp")}
    for place in places.values():
        place.mkdir()
    environment = {
        **os.environ,
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    limits = [f"--limits.{word}" if i % 2 == 0 else word for i, word in enumerate(LIMITS)]
    words = [sys.executable, "-m", "nuwa_lip", "serve", "--model", model, "--port", "0", "--no-browser", *limits]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, cwd=places["work"], env=environment, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            found = re.search(rb":(\d+)/", process.stdout.readline())
            assert found, (folder / "log").read_text()
            address = "127.0.0.1", int(found[1])
            while not ready(address):
                time.sleep(0.1)
            yield address, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def run(numbers: range, seed: int, model: str = "nuwa-lip-mini") -> tuple[list[str], Counter[str]]:
    """Try requests; returns what is wrong, and how many were answered how."""
    wrong, counts = [], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(model, folder) as (address, process):
            for number in numbers:
                content = request(np.random.default_rng([seed, number]), address)
                kind, found = problem(content, address, process)
                counts[kind] += 1
                if found is not None:
                    wrong.append(f"request {number}, {content[:150]!r}: {found}")
                if kind in ("gone", "hang"):
                    break
            wrong += after(address)
        left = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "log"]
        log = (folder / "log").read_text(errors="replace")
        wrong += [f"the server has written {left}"] * bool(left) + [
            f"in its log: {log[log.find('Traceback') :][:9000]}"
        ] * ("Traceback" in log)
    return wrong, counts


def after(address: tuple[str, int]) -> list[str]:
    """Ask for a painting that is right, whose known pixels are to be the photo's."""
    photo, mask = (base64.b64encode(content).decode() for content in whole(np.random.default_rng(0)))
    body = json.dumps({"image": photo, "mask": mask, "num_inference_steps": 1}).encode()
    head = b"POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    read = answer(head + b"Accept: image/png\r\nContent-Length: %d\r\n\r\n" % len(body) + body, address)
    if b"\x89PNG" not in read:
        return [f"it paints no more: {read[:300]!r}"]
    result = np.asarray(Image.open(io.BytesIO(read[read.index(b"\x89PNG") :])))
    before, hole = (np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in (photo, mask))
    return [] if (result[~hole] == before[~hole]).all() else ["it changes known pixels"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--model", default="nuwa-lip-mini")
    given = parser.parse_args()
    first, count = (given.start, given.count) if given.only is None else (given.only, 1)
    mistakes, numbers_of = run(range(first, first + count), given.seed, given.model)
    print("\n".join(mistakes))
    print(dict(numbers_of))
    raise SystemExit(bool(mistakes))
