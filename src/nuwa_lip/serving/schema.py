"""What requests and answers of the API hold: the names are those of `InpaintPipeline` and of the command line."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nuwa_lip.serving.jobs import State

SMALLEST_PHOTO = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAYAAABytg0kAAAAGklEQVR4nGNgYGBgCOix+c8U0GPzn4GBgQEAJAUEMbDsOPgAAAAASUVORK5CYII="
)
"""Two by two pixels, for the example in the description."""
Side = Annotated[int, Field(ge=0, le=4096)]


class Options(BaseModel):
    """Everything of a request but its pictures."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(max_length=4000, description="what the picture shows; empty: erase")] = ""
    model: Annotated[str | None, Field(description="one of /v1/models; the first by default")] = None
    num_images_per_prompt: Annotated[int, Field(ge=1, description="candidates, best first")] = 1
    seed: Annotated[
        int | None, Field(ge=0, lt=2**63, description="candidate i gets seed + i; drawn by chance if not given")
    ] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=100, description="above 1 follows the prompt closer")] = None
    num_inference_steps: Annotated[int | None, Field(ge=1, description="parallel steps; fewer are faster")] = None
    temperature: Annotated[float | None, Field(ge=0, le=100)] = None
    top_k: Annotated[int | None, Field(ge=0)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    order: Literal["raster", "random", "border"] | None = None
    schedule: Literal["cosine", "constant", "confidence"] | None = None
    revisions: Annotated[
        int | None, Field(ge=0, le=1000, description="times that about half of what is painted is drawn anew")
    ] = None
    squares: Annotated[
        int | None, Field(ge=0, le=10_000, description="most squares in which a large hole is painted at a finer scale")
    ] = None
    padding_mask_crop: Annotated[int | None, Field(ge=0, description="pixels of context around the hole")] = None
    blend: Annotated[bool | None, Field(description="fit colours inside the hole to its edge")] = None
    invert: Annotated[bool, Field(description="repaint what is black in the mask")] = False
    grow: Annotated[int, Field(ge=0, le=1000, description="widen the hole by so many pixels")] = 0
    extend: Annotated[
        tuple[Side, Side, Side, Side],
        BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given),
        Field(description="pixels by which the photo grows left, top, right and bottom; they belong to the hole"),
    ] = (0, 0, 0, 0)

    def sampling(self) -> dict[str, Any]:
        """Give the options that go to the pipeline as they are."""
        names = {"image", "mask", "prompt", "model", "seed", "invert", "grow", "extend"}
        return self.model_dump(exclude=names, exclude_none=True)


class InpaintRequest(Options):
    """A request as JSON, with its pictures in base64 (a data URL is fine)."""

    image: Annotated[str, Field(description="the photo: PNG, JPEG, WebP, TIFF, ...")]
    mask: Annotated[
        str | None,
        Field(description="as large as the photo, white is repainted; none: what is transparent in the photo"),
    ] = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "prompt": "green grass",
                    "image": SMALLEST_PHOTO,
                    "mask": None,
                    "seed": 7,
                }
            ]
        },
    )


class Candidate(BaseModel):
    """One result."""

    seed: Annotated[int, Field(description="gives this result again")]
    score: Annotated[float, Field(description="mean log-probability of the new parts, at most 0")]
    url: Annotated[str, Field(description="the PNG")]
    b64: Annotated[str | None, Field(description="the PNG in base64, where the answer holds it")] = None


class PreviewView(BaseModel):
    """The hole as far as it is painted."""

    box: Annotated[tuple[int, int, int, int], Field(description="left, top, width, height in the result's pixels")]
    url: Annotated[str, Field(description="a WebP as data URL, transparent outside the hole; it may be smaller")]


class JobView(BaseModel):
    """How far a job is, and what came of it."""

    id: str
    state: State
    progress: Annotated[float, Field(ge=0, le=1)]
    seconds_left: float | None = None
    ahead: Annotated[int, Field(description="jobs that are to be done before it")] = 0
    seconds: Annotated[float | None, Field(description="time that the work took")] = None
    error: str | None = None
    hole_pixels: Annotated[int | None, Field(description="pixels that were repainted")] = None
    known_pixels: Annotated[int | None, Field(description="pixels outside the hole")] = None
    known_changed: Annotated[int | None, Field(description="of these, how many any result changed: 0")] = None
    notes: Annotated[list[str], Field(description="what to know of it, such as that the hole is large")] = []
    images: list[Candidate] = []
    preview: Annotated[
        PreviewView | None, Field(description="in a stream of events that was asked for them, each preview once")
    ] = None


class ModelView(BaseModel):
    """A model that can be asked for."""

    id: str
    resolution: Annotated[int | None, Field(description="pixels on a side of what the model paints at once")] = None
    loaded: bool = False
    options: Annotated[
        list[str] | None, Field(description="options of a request that mean something to the model, once it is loaded")
    ] = None


class Problem(BaseModel):
    """Why a request was refused or failed; `detail` is the message again, where clients of IOPaint look for it."""

    error: dict[str, Any]
    detail: str
