"""Shapes that existing clients speak: IOPaint's `/api/v1/inpaint` and OpenAI's `/v1/images/edits`."""

import base64
import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from nuwa_lip.errors import InputError
from nuwa_lip.serving.reading import from_base64
from nuwa_lip.serving.schema import Options
from nuwa_lip.serving.version1 import REFUSALS, checked, read_form, submit, wait

router = APIRouter()


class IOPaintRequest(BaseModel):
    """What IOPaint's page and plug-ins send; of its many settings those of other models mean nothing here."""

    model_config = ConfigDict(extra="ignore")

    image: Annotated[str, Field(description="base64 of the photo")]
    mask: Annotated[str, Field(description="base64 of the mask, white is repainted")]
    prompt: str = ""
    sd_seed: Annotated[int, Field(description="-1: by chance")] = -1


@router.post(
    "/api/v1/inpaint",
    tags=["IOPaint"],
    response_class=Response,
    responses=REFUSALS | {200: {"content": {"image/png": {}}}},
)
async def iopaint(request: Request, body: IOPaintRequest) -> Response:
    """Repaint as IOPaint does: the answer is a PNG, its seed stands in `X-Seed`."""
    seed = body.sd_seed if 0 <= body.sd_seed < 2**63 else None
    options = checked(Options, {"prompt": body.prompt, "seed": seed})
    job = await submit(request, from_base64(body.image, "image"), from_base64(body.mask, "mask"), options)
    await wait(request, job)
    best = job.results[0]
    return Response(best.content, media_type="image/png", headers={"x-seed": str(best.seed)})


@router.get("/api/v1/model", tags=["IOPaint"])
async def iopaint_model(request: Request) -> dict[str, Any]:
    """Name the model, as IOPaint's clients ask for it at their start."""
    name = request.app.state.studio.models[0]
    return {
        "name": name,
        "path": name,
        "model_type": "inpaint",
        "need_prompt": True,
        "support_strength": False,
        "support_outpainting": True,
    }


@router.post(
    "/v1/images/edits",
    tags=["OpenAI"],
    responses=REFUSALS,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image", "prompt"],
                        "properties": {
                            "image": {"type": "string", "format": "binary"},
                            "mask": {"type": "string", "format": "binary", "description": "transparent is repainted"},
                            "prompt": {"type": "string"},
                            "n": {"type": "integer", "minimum": 1},
                            "size": {"type": "string", "description": "auto, or the photo's own"},
                            "model": {"type": "string"},
                            "response_format": {"type": "string", "enum": ["b64_json"]},
                        },
                    }
                }
            },
        }
    },
)
async def openai(request: Request) -> Response:
    """Edit as OpenAI's clients ask for it: what is transparent in the mask, or in the photo, is repainted."""
    fields, files = await read_form(request)
    image = files.get("image") or files.get("image[]")
    if image is None:
        raise InputError("image: give the photo as a file of the form")
    if fields.get("response_format", "b64_json") != "b64_json":
        raise InputError(f"response_format is {fields['response_format']!r}; this server gives b64_json")
    count = fields.get("n", "1")
    if not (count.isdecimal() and len(count) < 10 and int(count) >= 1):
        raise InputError(f"n is {count!r}; it must be a number from 1 up")
    model = fields.get("model")
    given = {
        "prompt": fields.get("prompt", "")[:4000],
        "model": model if model in request.app.state.studio.models else None,  # their clients name models of theirs
        "num_images_per_prompt": int(count),
    }
    options = checked(Options, given)
    size = fields.get("size", "auto")
    job = await submit(request, image, files.get("mask"), options, alpha_is_hole=True, size=size)
    await wait(request, job)
    data = [{"b64_json": base64.b64encode(result.content).decode()} for result in job.results]
    return JSONResponse({"created": int(time.time()), "data": data})
