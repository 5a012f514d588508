"""The application: routes of version 1, shapes that other clients speak, health, figures, and the page."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

import nuwa_lip
from nuwa_lip.assets import asset
from nuwa_lip.errors import InputError
from nuwa_lip.serving import compatible, version1
from nuwa_lip.serving.figures import Figures
from nuwa_lip.serving.guard import LOOPBACK, Guard, problem
from nuwa_lip.serving.jobs import Closed, Full, Worker
from nuwa_lip.serving.limits import USUAL, Limits
from nuwa_lip.serving.notes import hooked
from nuwa_lip.serving.reading import TooLarge
from nuwa_lip.serving.studio import Studio

GRACE = 20.0
"""Seconds that the running request gets when the server is stopped."""


def create_app(
    models: Sequence[str] = ("nuwa-lip-mini",),
    *,
    limits: Limits = USUAL,
    hosts: Sequence[str] = LOOPBACK,
    tokens: Sequence[str] = (),
    provenance: bool = True,
    replica: bool = False,
    **options: Any,
) -> FastAPI:
    """Make the application; the models are loaded when it starts.

    Args:
        models: bundled names, model folders or hub ids; the first is the default.
        limits: what is taken.
        hosts: names that it answers to; "*" for any.
        tokens: of which every request must bear one; none: everybody may ask.
        replica: it is one of several, of which any gets the next request: jobs are refused.
        provenance: results say that they were repainted.
        options: for `InpaintPipeline.from_pretrained`, and `device`.

    Raises:
        InputError: a limit is not above 0.
    """
    limits.check()
    device = options.pop("device", None)
    studio = Studio(models, limits, **options)
    studio.device, studio.provenance = device, provenance
    figures = Figures()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.worker = Worker(limits, studio.pipeline)
        app.state.worker.start()
        if replica:  # whoever waits for all of them to be started waits until they can paint
            await asyncio.to_thread(app.state.worker.prepared)
        with hooked():
            yield
            await asyncio.to_thread(app.state.worker.close, GRACE)

    app = FastAPI(
        title="NÜWA-LIP",
        summary="Language-guided inpainting that keeps every known pixel.",
        version=nuwa_lip.__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their programs from elsewhere; ours is api.html
        redoc_url=None,
    )
    app.state.studio, app.state.figures, app.state.limits = studio, figures, limits
    app.state.replica = replica
    app.add_middleware(Guard, hosts=hosts, tokens=tokens, largest=limits.megabytes * 10**6)
    _explain_errors(app)
    app.include_router(version1.router)
    app.include_router(compatible.router)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Say that the server runs."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses={503: {"description": "the model is not loaded yet"}})
    async def readyz(request: Request) -> JSONResponse:
        """Say whether it can paint."""
        worker = request.app.state.worker
        if worker.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "failed" if worker.failure else "loading", "detail": worker.failure}, 503)

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Give the server's figures in Prometheus' format."""
        return Response(figures.text(request.app.state.worker), media_type=figures.media_type)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        """Show the description of the API."""
        return FileResponse(asset("page/api.html"))

    app.mount("/", StaticFiles(directory=asset("page"), html=True))
    return app


def _explain_errors(app: FastAPI) -> None:
    """Answer every error with one line; none of them shows how the server looks inside."""

    @app.exception_handler(TooLarge)
    async def too_large(_: Request, error: TooLarge) -> JSONResponse:
        return problem(413, str(error))

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_fields(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, one['loc'][1:])) or 'the body'}: {one['msg']}" for one in error.errors()]
        return problem(422, "; ".join(found))

    @app.exception_handler(Full)
    async def full(_: Request, error: Full) -> JSONResponse:
        answer = problem(429, str(error), "rate_limit_error")
        answer.headers["retry-after"] = str(error.seconds)
        return answer

    @app.exception_handler(ClientDisconnect)
    async def hung_up(_: Request, __: ClientDisconnect) -> JSONResponse:
        return problem(499, "the client has hung up")  # which nobody reads, and no error of the server

    @app.exception_handler(Closed)
    async def closed(_: Request, error: Closed) -> JSONResponse:
        return problem(503, str(error), "server_error")

    @app.exception_handler(StarletteHTTPException)
    @app.exception_handler(HTTPException)
    async def other(_: Request, error: StarletteHTTPException) -> JSONResponse:
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer
