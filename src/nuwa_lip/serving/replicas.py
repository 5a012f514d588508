"""The same application in several processes under Ray Serve, each with a worker and a device of its own.

Ray Serve spreads the requests, holds back what is too much, and starts anew a replica that has died. Jobs live in the
memory of one replica, and the next request may reach another: routes of jobs are refused, those that wait are not.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from nuwa_lip.errors import InputError, first_line
from nuwa_lip.serving.limits import Limits

NAME = "nuwa-lip"
ROOM = 8
"""Requests of a replica beside those that wait for it, such as for the page and for its health."""
RETRY = 2.0
"""Seconds after which a request that Ray Serve holds back may come again."""


@contextmanager
def deployed(
    models: tuple[str, ...], replicas: int, *, host: str, port: int, device: str, limits: Limits, **options: Any
) -> Iterator[None]:
    """Serve on the Ray that is connected; once within, all replicas have loaded their model.

    Args:
        models: as for `create_app`.
        replicas: how many, each with a core, and with a GPU if that is the device.
        host: to listen at.
        port: to listen at.
        device: as for `create_app`.
        limits: as for `create_app`; so many requests as its queue holds may wait in each replica, and before them.
        options: as for `create_app`.

    Raises:
        InputError: they could not be started.
    """
    from ray import serve

    folder = os.getcwd()

    def app() -> Any:
        with suppress(OSError):  # another machine may have no such folder
            os.chdir(folder)  # for models that were named from there
        from nuwa_lip.serving.app import create_app

        return create_app(models, limits=limits, device=device, replica=True, **options)

    quiet = {"log_level": "ERROR", "enable_access_log": False}
    deployment: Any = serve.deployment(
        serve.ingress(app)(),
        name=NAME,
        num_replicas=replicas,
        max_ongoing_requests=limits.queue + ROOM,
        max_queued_requests=limits.queue,
        backpressure_config={"status_code": 429, "retry_after_s": RETRY},
        ray_actor_options={"num_cpus": 1, "num_gpus": int(device == "cuda")},
        graceful_shutdown_timeout_s=25,
        logging_config=quiet,
    )
    try:
        serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
        try:
            serve.run(deployment.bind(), name=NAME, route_prefix="/", logging_config=quiet)
        except RuntimeError as error:
            raise InputError(f"the replicas could not be started: {first_line(error)}") from error
        yield
    finally:
        serve.shutdown()
