"""The HTTP API on a real server: what is right is painted exactly, what is not gets one line and a 4xx."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from nuwa_lip.images.files import as_png
from nuwa_lip.images.pictures import DEEP
from nuwa_lip.images.provenance import Statement, hash_known, read_statement
from nuwa_lip.images.reading import Content, read_photo
from nuwa_lip.pipeline import InpaintPipeline
from nuwa_lip.serving.limits import Limits
from tests.running_server import held, running

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
HOLE = np.zeros((40, 56), bool)
HOLE[10:25, 20:40] = True


def png(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


PHOTO, MASK = png(PIXELS), png(HOLE)
LIMITS = Limits(megabytes=1, megapixels=1, candidates=3, queue=4)


@pytest.fixture(scope="module")
def address(tiny_model: Path) -> Iterator[str]:
    with running(tiny_model, limits=LIMITS) as address:
        yield address


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def form(**fields: Any) -> dict[str, Any]:
    """A request of the form, with photo and mask unless others are given."""
    files = {
        name: content
        for name in ("image", "mask")
        if (content := fields.pop(name, {"image": PHOTO, "mask": MASK}[name]))
    }
    return {"data": {name: str(value) for name, value in fields.items()}, "files": files}


def test_the_result_is_that_of_the_pipeline_and_keeps_every_known_pixel(
    http: httpx.Client, tiny_pipe: InpaintPipeline
) -> None:
    import torch

    answer = http.post("/v1/inpaint", **form(prompt="a bear", seed=5, num_images_per_prompt=2))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["state"], found["known_changed"]) == ("done", 0)
    assert (found["hole_pixels"], found["known_pixels"]) == (HOLE.sum(), (~HOLE).sum())
    expected = tiny_pipe("a bear", PIXELS, HOLE, num_images_per_prompt=2, generator=torch.Generator().manual_seed(5))
    for one, image, seed, score in zip(found["images"], expected.images, expected.seeds, expected.scores, strict=True):
        painted = read(base64.b64decode(one["b64"]))
        assert (painted == np.asarray(image)).all() and (one["seed"], one["score"]) == (seed, pytest.approx(score))
        assert (painted[~HOLE] == PIXELS[~HOLE]).all() and (painted[HOLE] != PIXELS[HOLE]).any()
        assert (read(http.get(one["url"]).content) == painted).all()


def test_json_and_a_plain_png_say_the_same_as_the_form(http: httpx.Client, tiny_model: Path) -> None:
    body = {"image": base64.b64encode(PHOTO).decode(), "prompt": "x", "seed": 1}
    body["mask"] = "data:image/png;base64," + base64.b64encode(MASK).decode()
    wanted = {"accept": "image/png"}
    by_json = http.post("/v1/inpaint", json=body, headers=wanted)
    by_form = http.post("/v1/inpaint", **form(prompt="x", seed=1), headers=wanted)
    assert by_json.headers["content-type"] == "image/png" and by_json.headers["x-seed"] == "1"
    assert by_json.content == by_form.content
    photo, before = (read_photo(Content("x", data)) for data in (by_json.content, PHOTO))
    assert read_statement(photo.info) == Statement(tiny_model.name, 1, hash_known(before, HOLE))
    assert (read(by_json.content)[~HOLE] == PIXELS[~HOLE]).all()


def test_a_client_that_hangs_up_is_no_error_of_the_server(address: str, caplog: pytest.LogCaptureFixture) -> None:
    host, port = address.removeprefix("http://").split(":")
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    with caplog.at_level("ERROR"):
        with socket.create_connection((host, int(port)), timeout=30) as wire:
            wire.sendall(head.encode() + b"{")
        assert httpx.get(f"{address}/healthz", timeout=30).status_code == 200
        time.sleep(0.2)
    assert "Traceback" not in caplog.text and "ClientDisconnect" not in caplog.text


def test_results_say_nothing_of_themselves_if_so_asked(tiny_model: Path) -> None:
    with running(tiny_model, provenance=False) as address:
        answer = httpx.post(f"{address}/v1/inpaint", **form(), headers={"accept": "image/png"}, timeout=60)
    assert answer.status_code == 200 and "xmp" not in read_photo(Content("x", answer.content)).info


def test_sixteen_bits_come_back_as_sixteen_bits(http: httpx.Client) -> None:
    deep = RNG.integers(0, 65536, (40, 56, 3), dtype=np.uint16)
    shown = Image.fromarray((deep >> 8).astype(np.uint8))
    shown.info[DEEP] = deep
    answer = http.post("/v1/inpaint", **form(image=as_png(shown)))
    painted = read_photo(Content("result", base64.b64decode(answer.json()["images"][0]["b64"])))
    assert answer.json()["known_changed"] == 0
    assert painted.pixels.dtype == np.uint16 and (painted.pixels[~HOLE] == deep[~HOLE]).all()


def test_transparency_is_the_hole_where_there_is_no_mask(http: httpx.Client) -> None:
    layered = np.dstack([PIXELS, np.where(HOLE, 0, 255).astype(np.uint8)])
    answer = http.post("/v1/inpaint", **form(image=png(layered), mask=None), headers={"accept": "image/png"})
    painted = read(answer.content)
    assert (painted[~HOLE] == layered[~HOLE]).all() and (painted[..., 3] == 255).all()


@pytest.mark.parametrize("mask", [None, MASK, png(np.pad(HOLE, ((0, 3), (9, 2)), constant_values=True))])
def test_the_photo_grows(http: httpx.Client, mask: bytes | None) -> None:
    answer = http.post("/v1/inpaint", **form(mask=mask, extend="9,0,2,3"), headers={"accept": "image/png"})
    painted = read(answer.content)
    assert painted.shape == (43, 67, 3)
    known = slice(None) if mask is None else ~HOLE
    assert (painted[:40, 9:65][known] == PIXELS[known]).all()


def test_a_job_is_followed_to_its_end(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", **form(num_inference_steps=4))
    assert answer.status_code == 202
    job = answer.json()["id"]
    with http.stream("GET", f"/v1/jobs/{job}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        found = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert found[-1]["state"] == "done" and found[-1]["progress"] == 1
    assert [one["progress"] for one in found] == sorted(one["progress"] for one in found)
    assert http.get(f"/v1/jobs/{job}").json() == found[-1]


def test_a_cancelled_job_ends_and_the_next_one_is_painted(http: httpx.Client) -> None:
    with held() as go:
        running_, waiting, last = (http.post("/v1/jobs", **form()).json()["id"] for _ in range(3))
        for job in (running_, waiting):
            assert http.delete(f"/v1/jobs/{job}").status_code == 200
        go.set()
        for job, state in ((running_, "cancelled"), (waiting, "cancelled"), (last, "done")):
            with http.stream("GET", f"/v1/jobs/{job}/events") as events:
                found = [line for line in events.iter_lines() if line.startswith("data: ")][-1]
            assert json.loads(found[6:])["state"] == state
    assert http.post("/v1/inpaint", **form()).status_code == 200


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (form(image=None), 422, "image"),
        (form(image=b"not a picture"), 422, "image"),
        (form(image=PHOTO[:200]), 422, "image"),
        (form(mask=b"GIF89a"), 422, "mask"),
        (form(mask=png(HOLE[1:])), 422, "56x39"),
        (form(mask=png(np.zeros_like(HOLE))), 422, "nothing to repaint"),
        (form(mask=None), 422, "no mask"),
        (form(bogus=1), 422, "bogus"),
        (form(seed=-1), 422, "seed"),
        (form(seed="many"), 422, "seed"),
        (form(order="spiral"), 422, "order"),
        (form(top_p=0), 422, "top_p"),
        (form(guidance_scale="nan"), 422, "guidance_scale"),
        (form(model="huge"), 422, "huge"),
        (form(num_images_per_prompt=4), 422, "at most 3"),
        (form(extend="1,2"), 422, "extend"),
        (form(extend="4096,4096,0,0"), 413, "megapixels"),
        (form(image=png(np.zeros((1100, 1000), np.uint8))), 413, "megapixels"),
        (form(image=RNG.bytes(1_100_000)), 413, "MB"),
        ({"json": {"image": "%%%"}}, 422, "base64"),
        ({"json": [1]}, 422, "body"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "JSON"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "form"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 422, "form"),
        ({"content": b"x"}, 422, "multipart/form-data"),
    ],
)
def test_what_cannot_be_used_gets_one_line(
    http: httpx.Client, request_: dict[str, Any], status: int, says: str
) -> None:
    answer = http.post("/v1/inpaint", **request_)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert says in detail and "\n" not in detail and "Traceback" not in detail
    assert answer.json()["error"]["message"] == detail


def test_a_body_of_unknown_length_is_cut_off(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/inpaint", content=(bytes(100_000) for _ in range(20)), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


def test_unknown_places_are_not_found(http: httpx.Client) -> None:
    for path in ("/v1/jobs/none", "/v1/jobs/none/events", "/v1/jobs/none/images/0", "/v1/none", "/../pyproject.toml"):
        assert http.get(path).status_code == 404
    job = http.post("/v1/inpaint", **form()).json()["id"]
    assert http.get(f"/v1/jobs/{job}/images/1").status_code == 404


def test_more_than_may_wait_are_told_when_to_come_back(address: str) -> None:
    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{address}/v1/inpaint", **form(), timeout=120)

    with held() as go, concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, i) for i in range(16)]
        while sum(one.done() for one in asked) < 16 - 1 - LIMITS.queue:  # one runs
            time.sleep(0.02)
        go.set()
        answers = [one.result() for one in asked]
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 429} and LIMITS.queue <= codes.count(200) <= LIMITS.queue + 1
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost"}, 200),
    ],
)
def test_foreign_hosts_and_origins_are_refused(http: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert http.get("/v1/models", headers=headers).status_code == status


def test_a_job_that_is_over_holds_no_photo(tiny_model: Path) -> None:
    from fastapi.testclient import TestClient

    from nuwa_lip.serving.app import create_app

    app = create_app([str(tiny_model)], limits=Limits(kept=2))
    with TestClient(app, base_url="http://localhost") as client:
        for _ in range(4):
            assert client.post("/v1/inpaint", **form()).status_code == 200
        jobs = app.state.worker.jobs
        assert 1 <= len(jobs) <= 3 and all(job.order.photo is None for job in jobs.values() if job.over)


def test_nothing_may_come_from_elsewhere(http: httpx.Client) -> None:
    for path in ("/", "/docs", "/v1/models", "/none"):
        assert "default-src 'self'" in http.get(path).headers["content-security-policy"]


def test_tokens_are_asked_for(tiny_model: Path) -> None:
    with running(tiny_model, tokens=["secret", "other"]) as address:
        for path, status in (("/", 200), ("/healthz", 200), ("/v1/models", 401), ("/metrics", 401)):
            assert httpx.get(address + path).status_code == status
        for token, status in (("secret", 200), ("other", 200), ("secre", 401), ("x" * 99, 401), ("sécret", 401)):
            headers = {"authorization": f"Bearer {token}".encode()}
            assert httpx.get(f"{address}/v1/models", headers=headers).status_code == status


def test_health_models_and_figures(http: httpx.Client, tiny_model: Path) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    http.post("/v1/inpaint", **form())
    model = http.get("/v1/models").json()["data"][0]
    assert {"prompt", "squares", "blend"} <= {*model.pop("options")}
    assert model == {"id": str(tiny_model), "resolution": 32, "loaded": True}
    figures = http.get("/metrics").text
    assert 'nuwa_lip_jobs_total{state="done"}' in figures and "nuwa_lip_job_seconds_count" in figures


def test_a_model_that_is_not_there_is_said_to_be_missing() -> None:
    from fastapi.testclient import TestClient

    from nuwa_lip.serving.app import create_app

    with TestClient(create_app(["no-such-model"]), base_url="http://localhost") as client:
        while (answer := client.get("/readyz")).json()["status"] == "loading":
            time.sleep(0.01)
        assert answer.status_code == 503 and "no-such-model" in answer.json()["detail"]
        assert client.post("/v1/inpaint", **form()).status_code == 503


def test_the_description_holds_an_example(http: httpx.Client) -> None:
    description = http.get("/openapi.json").json()
    body = description["paths"]["/v1/inpaint"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    example = body["application/json"]["schema"]["examples"][0]
    assert Image.open(io.BytesIO(base64.b64decode(example["image"]))).size
