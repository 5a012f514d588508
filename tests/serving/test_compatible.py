"""The requests that clients of IOPaint and OpenAI really send."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.running_server import running
from tests.serving.test_app import HOLE, MASK, PHOTO, PIXELS, png, read

IOPAINT = {  # the fields that its page sends
    "ldm_steps": 30, "ldm_sampler": "ddim", "zits_wireframe": True, "cv2_flag": "INPAINT_NS", "cv2_radius": 5,
    "hd_strategy": "Crop", "hd_strategy_crop_triger_size": 640, "hd_strategy_crop_margin": 128,
    "hd_trategy_resize_imit": 2048, "prompt": "a bear", "negative_prompt": "", "use_croper": False, "croper_x": 0,
    "croper_y": 0, "croper_height": 512, "croper_width": 512, "use_extender": False, "sd_mask_blur": 12,
    "sd_strength": 1.0, "sd_steps": 50, "sd_guidance_scale": 7.5, "sd_sampler": "DPM++ 2M", "sd_seed": 42,
    "sd_match_histograms": False, "sd_freeu": False, "sd_lcm_lora": False, "paint_by_example_example_image": None,
    "p2p_image_guidance_scale": 1.5, "enable_controlnet": False, "controlnet_conditioning_scale": 0.4,
    "controlnet_method": "", "enable_brushnet": False, "brushnet_method": "", "brushnet_conditioning_scale": 1.0,
    "enable_powerpaint_v2": False, "powerpaint_task": "text-guided",
}  # fmt: skip


@pytest.fixture(scope="module")
def http(tiny_model: Path) -> Iterator[httpx.Client]:
    with running(tiny_model) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize("head", [True, False])
def test_iopaint(http: httpx.Client, head: bool) -> None:
    pictures = {"image": data_url(PHOTO), "mask": data_url(MASK)}
    if not head:
        pictures = {name: value.partition(",")[2] for name, value in pictures.items()}
    answer = http.post("/api/v1/inpaint", json={**IOPAINT, **pictures})
    assert answer.status_code == 200 and answer.headers["x-seed"] == "42"
    painted = read(answer.content)
    assert (painted[~HOLE] == PIXELS[~HOLE]).all() and (painted[HOLE] != PIXELS[HOLE]).any()
    assert http.post("/api/v1/inpaint", json={**IOPAINT, **pictures}).content == answer.content
    assert http.get("/api/v1/model").json()["need_prompt"]


def test_iopaint_draws_a_seed_where_it_is_minus_one(http: httpx.Client) -> None:
    body = {**IOPAINT, "image": data_url(PHOTO), "mask": data_url(MASK), "sd_seed": -1}
    seeds = {http.post("/api/v1/inpaint", json=body).headers["x-seed"] for _ in range(2)}
    assert len(seeds) == 2


@pytest.mark.parametrize("prompt", ["\\ud800", "x" * 4001])
def test_iopaint_prompts_that_cannot_be_are_refused(http: httpx.Client, prompt: str) -> None:
    pictures = f'"image": "{data_url(PHOTO)}", "mask": "{data_url(MASK)}"'
    headers = {"content-type": "application/json"}
    answer = http.post("/api/v1/inpaint", content=f'{{{pictures}, "prompt": "{prompt}"}}', headers=headers)
    assert answer.status_code == 422 and "prompt" in answer.json()["detail"]


def test_openai(http: httpx.Client) -> None:
    mask = np.dstack([PIXELS, np.where(HOLE, 0, 255).astype(np.uint8)])
    files = {"image": ("image.png", PHOTO, "image/png"), "mask": ("mask.png", png(mask), "image/png")}
    fields = {"model": "gpt-image-1", "prompt": "a bear", "n": "2", "size": "auto"}
    answer = http.post("/v1/images/edits", data=fields, files=files)
    assert answer.status_code == 200 and answer.json()["created"] > 0
    results = [read(base64.b64decode(one["b64_json"])) for one in answer.json()["data"]]
    assert len(results) == 2 and (results[0] != results[1]).any()
    for painted in results:
        assert (painted[~HOLE] == PIXELS[~HOLE]).all() and (painted[HOLE] != PIXELS[HOLE]).any()


def test_openai_without_a_mask_repaints_what_is_transparent(http: httpx.Client) -> None:
    layered = np.dstack([PIXELS, np.where(HOLE, 0, 255).astype(np.uint8)])
    answer = http.post(
        "/v1/images/edits", data={"prompt": "x"}, files=[("image[]", ("a.png", png(layered), "image/png"))]
    )
    painted = read(base64.b64decode(answer.json()["data"][0]["b64_json"]))
    assert (painted[~HOLE] == layered[~HOLE]).all()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"size": "1024x1024"}, "56x40"),
        ({"n": "0"}, "n is"),
        ({"n": "x"}, "n is"),
        ({"n": "9" * 5000}, "n is"),
        ({"response_format": "url"}, "b64_json"),
    ],
)
def test_openai_refusals(http: httpx.Client, fields: dict[str, str], says: str) -> None:
    mask = np.dstack([PIXELS, np.where(HOLE, 0, 255).astype(np.uint8)])
    answer = http.post("/v1/images/edits", data={"prompt": "x", **fields}, files={"image": PHOTO, "mask": png(mask)})
    assert answer.status_code == 422 and says in answer.json()["error"]["message"]


def test_openai_asks_for_transparency_in_the_mask(http: httpx.Client) -> None:
    answer = http.post("/v1/images/edits", data={"prompt": "x"}, files={"image": PHOTO, "mask": MASK})
    assert answer.status_code == 422 and "transparen" in answer.json()["detail"]
    assert Image.open(io.BytesIO(MASK)).mode == "1"
