"""Version 1 of the API: `/v1/inpaint`, which waits or not, jobs with their events, and the models."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response

from nuwa_lip.errors import InputError
from nuwa_lip.serving.client import SEVERAL
from nuwa_lip.serving.jobs import Full, Job
from nuwa_lip.serving.previews import Shot
from nuwa_lip.serving.reading import from_base64
from nuwa_lip.serving.schema import Candidate, InpaintRequest, JobView, ModelView, Options, PreviewView, Problem
from nuwa_lip.serving.studio import Order, Studio

PAUSE = 15.0
"""Seconds after which a stream of events says that it is still there."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "the token is missing or wrong"},
    413: {"model": Problem, "description": "the body or a picture is too large"},
    422: {"model": Problem, "description": "the request cannot be used; the message says why"},
    429: {"model": Problem, "description": "too many requests wait; Retry-After says for how long"},
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": InpaintRequest.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        **Options.model_json_schema()["properties"],
                        "image": {"type": "string", "format": "binary", "description": "the photo"},
                        "mask": {"type": "string", "format": "binary", "description": "white is repainted"},
                    },
                }
            },
        },
    }
}

router = APIRouter(prefix="/v1", tags=["version 1"])


def one_process(request: Request) -> None:
    """Refuse what a replica cannot answer, for the next request may reach another one.

    Raises:
        HTTPException: so it is.
    """
    if request.app.state.replica:
        raise HTTPException(
            SEVERAL, "this server has several replicas, which share no jobs: ask /v1/inpaint, which waits"
        )


jobs = APIRouter(prefix="/jobs", dependencies=[Depends(one_process)], responses={SEVERAL: {"model": Problem}})


@router.post("/inpaint", response_model=JobView, responses=REFUSALS, openapi_extra=BODY)
async def inpaint(request: Request) -> Response:
    """Repaint the hole of a photo, and wait for the results.

    With `Accept: image/png` the answer is the best result itself; else all of them, in base64.
    """
    job = await _submit(request)
    await wait(request, job)
    if "image/png" in request.headers.get("accept", ""):
        best = job.results[0]
        return Response(best.content, media_type="image/png", headers={"x-seed": str(best.seed), "x-job": job.id})
    return JSONResponse(view(request, job, pictures=True).model_dump())


@jobs.post("", response_model=JobView, status_code=202, responses=REFUSALS, openapi_extra=BODY)
async def start_job(request: Request) -> JobView:
    """Begin the same without waiting: look at the job, or listen to its events."""
    return view(request, await _submit(request))


@jobs.get("/{job_id}", response_model=JobView)
async def look_at_job(request: Request, job_id: str) -> JobView:
    """Say how far a job is."""
    return view(request, find(request, job_id))


@jobs.delete("/{job_id}", response_model=JobView)
async def cancel_job(request: Request, job_id: str) -> JobView:
    """Cancel a job: at once if it waits, after the running step if it runs."""
    job = find(request, job_id)
    job.cancel()
    return view(request, job)


@jobs.get("/{job_id}/events", responses={200: {"content": {"text/event-stream": {}}}})
async def listen_to_job(request: Request, job_id: str, previews: bool = False) -> StreamingResponse:
    """Stream the job, as JSON, at each change until it is over (server-sent events).

    With `previews=true` some of them show the hole as far as it is painted; together they take a tenth of the job's
    time at most, and change nothing in its results.
    """
    job = find(request, job_id)

    async def events() -> AsyncIterator[str]:
        shown = None
        job.watchers += previews
        try:
            while True:
                found = view(request, job)
                if previews and job.shot is not shown and not job.over:
                    shown = job.shot
                    found.preview = _preview(shown)
                yield f"data: {found.model_dump_json()}\n\n"
                if job.over:
                    return
                try:
                    await asyncio.wait_for(job.changed(), PAUSE)
                except TimeoutError:
                    yield ": still there\n\n"
        finally:
            job.watchers -= previews

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@jobs.get("/{job_id}/images/{number}", responses={200: {"content": {"image/png": {}}}})
async def fetch_image(request: Request, job_id: str, number: int) -> Response:
    """Give one result as PNG."""
    results = find(request, job_id).results
    if not 0 <= number < len(results):
        raise HTTPException(404, f"the job has {len(results)} results, and none of the number {number}")
    return Response(results[number].content, media_type="image/png")


router.include_router(jobs)


@router.get("/models")
async def models(request: Request) -> dict[str, list[ModelView]]:
    """List the models that can be asked for; the first is the default."""
    studio: Studio = request.app.state.studio
    found = []
    for name in studio.models:
        pipe = studio.loaded.get(name)
        if pipe is None:
            found.append(ModelView(id=name))
        else:
            found.append(ModelView(id=name, loaded=True, resolution=pipe.resolution, options=sorted(pipe.options)))
    return {"data": found}


async def _submit(request: Request) -> Job:
    image, mask, options = await _read_body(request)
    return await submit(request, image, mask, options)


async def submit(
    request: Request,
    image: bytes,
    mask: bytes | None,
    options: Options,
    *,
    alpha_is_hole: bool = False,
    size: str = "auto",
) -> Job:
    """Check a request and queue it.

    Args:
        request: tells the application.
        image: the photo's file.
        mask: the mask's file.
        options: the rest.
        alpha_is_hole: see `Studio.read`.
        size: "auto", or what the client takes the photo's size for, "WIDTHxHEIGHT".

    Raises:
        InputError: the request cannot be used.
        Full: too many wait.
    """
    state = request.app.state
    try:
        state.worker.check()  # before the work of decoding
        order = await asyncio.to_thread(state.studio.read, image, mask, options, alpha_is_hole=alpha_is_hole)
        assert order.photo is not None
        height, width = order.photo.size
        if size not in ("auto", f"{width}x{height}"):
            raise InputError(f"size is {size!r}; results have the photo's, {width}x{height}: leave it out")

        def at_its_end(job: Job) -> None:
            order.release()
            job.shot = None
            state.figures.count(job)

        job = Job(lambda job: state.studio.paint(order, job), state.limits.seconds, order, at_its_end)
        return state.worker.submit(job)
    except Full:
        state.figures.refused.inc()
        raise


async def wait(request: Request, job: Job) -> None:
    """Wait for a job; when the client hangs up it is cancelled.

    Raises:
        HTTPException: it failed, or was cancelled.
    """
    gone = asyncio.create_task(_hang_up(request))
    over = asyncio.create_task(job.finished())
    try:
        await asyncio.wait((gone, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not job.over:
            job.cancel()
        for task in (gone, over):
            task.cancel()
    if job.state == "failed":
        raise HTTPException(500 if job.fault else 422, job.error)
    if job.state != "done":
        raise HTTPException(499, "cancelled")


async def _hang_up(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.25)


def find(request: Request, job_id: str) -> Job:
    """Find a job that is remembered.

    Raises:
        HTTPException: there is none of this name.
    """
    job = request.app.state.worker.jobs.get(job_id)
    if job is None:
        raise HTTPException(404, "there is no such job, or its results were forgotten to make room")
    return job


def view(request: Request, job: Job, *, pictures: bool = False) -> JobView:
    """Describe a job.

    Args:
        request: tells the application, and the address that results are fetched from.
        job: what to describe.
        pictures: with the results in base64.
    """
    order: Order = job.order
    waiting = [other for other in request.app.state.worker.jobs.values() if other.state == "waiting"]
    done = job.state == "done"
    return JobView(
        id=job.id,
        state=job.state,
        progress=job.progress,
        seconds_left=job.seconds_left,
        ahead=waiting.index(job) if job in waiting else 0,
        seconds=job.seconds,
        error=job.error,
        hole_pixels=order.hole_pixels,
        known_pixels=order.known_pixels,
        known_changed=order.known_changed if done else None,
        notes=order.notes,
        images=[
            Candidate(
                seed=result.seed,
                score=result.score,
                url=f"/v1/jobs/{job.id}/images/{i}",
                b64=base64.b64encode(result.content).decode() if pictures else None,
            )
            for i, result in enumerate(job.results)
        ],
    )


def _preview(shot: Shot | None) -> PreviewView | None:
    if shot is None:
        return None
    return PreviewView(box=shot.box, url="data:image/webp;base64," + base64.b64encode(shot.webp).decode())


async def _read_body(request: Request) -> tuple[bytes, bytes | None, Options]:
    """Read a request from JSON or from a form.

    Raises:
        InputError: it is neither, or a field is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        given = checked(InpaintRequest, await request.body())
        mask = None if given.mask is None else from_base64(given.mask, "mask")
        return from_base64(given.image, "image"), mask, given
    if kind != "multipart/form-data":
        raise InputError(f"the body is {kind or 'nothing'}: send multipart/form-data or application/json")
    fields, files = await read_form(request)
    options = checked(Options, {name: value for name, value in fields.items() if value != ""})
    if "image" not in files:
        raise InputError("image: give the photo as a file of the form")
    return files["image"], files.get("mask"), options


async def read_form(request: Request) -> tuple[dict[str, str], dict[str, bytes]]:
    """Read the fields and the files of a form; of several of one name the last counts.

    Raises:
        InputError: it is damaged.
    """
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    try:
        async with request.form(max_files=4, max_fields=64) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files[name] = await value.read()
                else:
                    fields[name] = value
    except StarletteHTTPException as error:
        raise InputError(f"the form is damaged: {error.detail}") from error
    return fields, files


def checked(kind: type[Any], content: Any) -> Any:
    """Make a request of JSON bytes or of a form's fields.

    Raises:
        InputError: a field is missing, unknown, or of another kind.
    """
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()]
        raise InputError("; ".join(found)) from error
