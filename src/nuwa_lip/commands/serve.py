"""`nuwa-lip serve`: the browser page and the HTTP API."""

from __future__ import annotations

import os
import threading
import webbrowser
from typing import Annotated, Literal

import tyro

from nuwa_lip.errors import InputError
from nuwa_lip.serving.limits import USUAL, Limits

ANYWHERE = ("0.0.0.0", "::")


def serve(
    *,
    model: tuple[str, ...] = ("nuwa-lip-mini",),
    host: str = "127.0.0.1",
    port: int = 8080,
    no_browser: bool = False,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    token: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TOKEN ...")] = (),
    allow_host: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (),
    limits: Limits = USUAL,
) -> None:
    """Serve the page for painting in a browser, and the HTTP API (its description: /docs).

    Example: nuwa-lip serve

    Example: nuwa-lip serve --host 0.0.0.0 --allow-host paint.example.org --token "$SECRET" --no-browser

    Args:
        model: Names as `inpaint --model` takes them; the first is the default.
        host: Address to listen at; by default only this machine reaches it.
        port: Port to listen at; 0 takes a free one.
        no_browser: Do not open the page.
        device: Where to compute; auto takes a GPU if there is one.
        token: Ask for one of these (Authorization: Bearer TOKEN); also read from NUWA_LIP_TOKEN.
        allow_host: Names that browsers reach it by, beside those of this machine; * for any.
        limits: What requests may ask for.
    """
    try:
        import uvicorn

        from nuwa_lip.serving.app import create_app
        from nuwa_lip.serving.guard import LOOPBACK
    except ImportError as error:
        raise InputError(f"serving needs {error.name}: pip install 'nuwa-lip[serve]'") from error
    if not 0 <= port < 65536:
        raise InputError(f"--port is {port}; it must be within 0 to 65535")
    tokens = (*token, *filter(None, [os.environ.get("NUWA_LIP_TOKEN")]))
    own = () if host in ANYWHERE else (host,)
    if host not in LOOPBACK and not (tokens and (allow_host or own)):
        raise InputError(
            f"--host {host} lets others in: give a --token that they must bear"
            + ("" if allow_host or own else ", and by --allow-host the names that they reach this machine by")
        )
    config = uvicorn.Config(
        create_app(
            model,
            limits=limits,
            hosts=(*LOOPBACK, *own, *allow_host),
            tokens=tokens,
            device=_device(device),
        ),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=25,
    )
    server = uvicorn.Server(config)
    try:
        socket = config.bind_socket()
    except SystemExit as error:  # uvicorn's answer to a port that is taken
        raise InputError(f"--port {port} is taken: name another, or 0 for any") from error
    address = f"http://{'localhost' if host in (*LOOPBACK, *ANYWHERE) else host}:{socket.getsockname()[1]}/"
    print(f"painting at {address} (its API: {address}docs); Ctrl-C stops it", flush=True)
    if not no_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    server.run(sockets=[socket])


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU here; leave it out, or take cpu")
    return name
