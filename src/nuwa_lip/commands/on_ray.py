"""Ray, for what is too much for one process: joined where it runs, or started for as long as it is needed."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nuwa_lip.errors import InputError, first_line

STORE = 128 * 2**20
"""Bytes of the shared memory of a Ray of our own: what goes through it are names and requests."""
LOOPBACK = "127.0.0.1"
"""Where a Ray of our own listens: it asks nobody who they are."""
BLOCK = 8
"""Rows that an actor is given at once, and that are done again if it dies; fewer where there are few."""


@contextmanager
def on_ray(least_cpus: int = 1) -> Iterator[Any]:
    """Give the module `ray`, connected to the cluster that RAY_ADDRESS names, else to one of this machine's own.

    Args:
        least_cpus: how many a Ray of our own says to have, even where the machine has fewer.

    Raises:
        InputError: Ray is missing, or cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_SERVE_LOG_TO_STDERR"):
        os.environ.setdefault(name, "0")  # what goes on is said here
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ImportError as error:
        raise InputError(f"a cluster needs {error.name}: pip install 'nuwa-lip[cluster]'") from error
    if ray.is_initialized():  # by whoever called
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address, **quiet)
        else:
            cpus = max(os.cpu_count() or 1, least_cpus)
            own: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": STORE, "include_dashboard": False}
            ray.init("local", _node_ip_address=LOOPBACK, **own, **quiet)
    except Exception as error:
        where = (
            f"the Ray cluster that RAY_ADDRESS names, {address}, cannot be reached" if address else "cannot start Ray"
        )
        raise InputError(f"{where}: {first_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def through_actors(
    ray: Any, rows: Sequence[dict[str, Any]], actor: type, arguments: tuple[Any, ...], device: str
) -> Iterator[dict[str, Any]]:
    """Send rows through actors, one for each device, and yield what becomes of each as soon as it is known.

    The rows of an actor that dies are given to another one.

    Args:
        ray: the module, connected.
        rows: each what one call works on.
        actor: a class whose objects turn a batch of one row into a batch of one row.
        arguments: of its constructor.
        device: to compute on, such as cuda; auto: a GPU each if there are any.

    Raises:
        InputError: there is no such device.
    """
    actors, needs = _devices(ray, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Ray does with settings of its own
        ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # how far it is is printed by the command
    blocks = max(min(actors, len(rows)), -(-len(rows) // BLOCK))
    done = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, blocks)),
        **needs,
    )
    yield from done.iter_rows()


def _devices(ray: Any, device: str) -> tuple[int, dict[str, float]]:
    """Return how many actors there can be, and what each takes: a GPU, or as many cores as this process would."""
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    if device.startswith("cuda") and not gpus:
        raise InputError(f"--device {device}: this Ray has no GPU; leave it out, or take cpu")
    if gpus and device != "cpu":
        return gpus, {"num_cpus": 1, "num_gpus": 1}
    import torch

    cores = min(torch.get_num_threads(), int(there.get("CPU", 1)))
    return max(1, int(there.get("CPU", 1)) // cores), {"num_cpus": cores}


def wait_for_end() -> None:
    """Wait until the process is told to end, by SIGTERM or Ctrl-C."""
    over = threading.Event()
    before = {number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not over.wait(0.5):  # in pieces, for a signal does not end a wait everywhere
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
