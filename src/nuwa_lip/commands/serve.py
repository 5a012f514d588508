"""`nuwa-lip serve`: the browser page and the HTTP API."""

from __future__ import annotations

import os
import threading
import webbrowser
from typing import Annotated, Any, Literal

import tyro

from nuwa_lip.commands.on_ray import on_ray, wait_for_end
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
    replicas: int | None = None,
    provenance: bool = True,
    limits: Limits = USUAL,
) -> None:
    """Serve the page for painting in a browser, and the HTTP API (its description: /docs).

    Example: nuwa-lip serve

    Example: nuwa-lip serve --replicas 2

    Example: nuwa-lip serve --host 0.0.0.0 --allow-host paint.example.org --token "$SECRET" --no-browser

    Args:
        model: Names as `inpaint --model` takes them; the first is the default.
        host: Address to listen at; by default only this machine reaches it.
        port: Port to listen at; 0 takes a free one.
        no_browser: Do not open the page.
        device: Where to compute; auto takes a GPU if there is one.
        token: Ask for one of these (Authorization: Bearer TOKEN); also read from NUWA_LIP_TOKEN.
        allow_host: Names that browsers reach it by, beside those of this machine; * for any.
        replicas: Serve by so many processes on Ray, on the cluster that RAY_ADDRESS names or else on this machine;
            they share no jobs: requests that wait for their results are answered, jobs are not.
        provenance: Do not say in the results' XMP that they were repainted, by which model, from which seed.
        limits: What requests may ask for.
    """
    try:
        import uvicorn

        from nuwa_lip.serving.app import create_app
        from nuwa_lip.serving.guard import LOOPBACK
        from nuwa_lip.serving.replicas import deployed
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
    limits.check()
    if replicas is not None and replicas < 1:
        raise InputError(f"--replicas is {replicas}; it must be 1 or more")
    options: dict[str, Any] = {"limits": limits, "hosts": (*LOOPBACK, *own, *allow_host), "tokens": tokens}
    options["provenance"] = provenance
    app = None if replicas else create_app(model, device=_device(device), **options)
    config = uvicorn.Config(app or "", host=host, port=port, log_level="warning", timeout_graceful_shutdown=25)
    try:
        socket = config.bind_socket()
    except SystemExit as error:  # uvicorn's answer to a port that is taken
        raise InputError(f"--port {port} is taken: name another, or 0 for any") from error
    port = socket.getsockname()[1]
    address = f"http://{'localhost' if host in (*LOOPBACK, *ANYWHERE) else host}:{port}/"

    def say() -> None:
        print(f"painting at {address} (its API: {address}docs); Ctrl-C stops it", flush=True)
        if not no_browser:
            threading.Timer(1.0, webbrowser.open, [address]).start()

    if app is not None:
        say()
        return uvicorn.Server(config).run(sockets=[socket])
    socket.close()  # it was free; Ray Serve opens it itself
    with on_ray(least_cpus=replicas or 1) as ray:
        place = _device_of_replicas(device, replicas or 1, ray.cluster_resources().get("GPU", 0))
        with deployed(model, replicas or 1, host=host, port=port, device=place, **options):
            say()
            wait_for_end()


def _device_of_replicas(name: str, replicas: int, gpus: float) -> str:
    if name == "cuda" and gpus < replicas:
        raise InputError(f"--replicas {replicas} --device cuda: each needs a GPU, and Ray has {gpus:.0f} here")
    return name if name != "auto" else "cuda" if gpus >= replicas else "cpu"


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no GPU here; leave it out, or take cpu")
    return name
