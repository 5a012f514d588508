"""Previews of a job: within their share of its time, only where somebody watches, and of the hole alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip.images.photo import as_photo
from nuwa_lip.images.preview import Preview
from nuwa_lip.images.windows import Box
from nuwa_lip.serving import previews as module
from nuwa_lip.serving.client import Client
from nuwa_lip.serving.previews import PAUSE, SHARE, Previews
from tests.running_server import held, running
from tests.serving.test_app import HOLE, MASK, PHOTO, form


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


@pytest.mark.parametrize(("step", "cost"), [(0.02, 0.05), (0.5, 0.05), (1.0, 4.0), (0.01, 5.0)])
def test_they_keep_to_their_share(clock: Clock, step: float, cost: float) -> None:
    """Of jobs of a hundred steps after an encoding of three."""

    def decode() -> torch.Tensor:
        clock.now += cost
        return torch.zeros(1, 3, 8, 8)

    preview = Preview(as_photo(np.zeros((8, 8, 3), np.uint8)), Box(0, 0, 8, 8), np.ones((8, 8), bool), decode)
    previews, taken = Previews(cost), []
    clock.now += 3 * step
    for i in range(1, 101):
        clock.now += step
        if previews.take(preview, i / 100):
            taken.append(clock.now)
    assert len(taken) * cost <= SHARE * (103 * step + len(taken) * cost)
    assert bool(taken) == (cost <= SHARE * 103 * step)
    assert all(b - a >= PAUSE for a, b in zip(taken, taken[1:], strict=False))


@pytest.fixture(scope="module")
def address(tiny_model: Path) -> Iterator[str]:
    with running(tiny_model) as address:
        yield address


@pytest.fixture
def unhurried() -> Iterator[None]:
    """There is time for a preview after every step but the first."""
    with mock.patch.multiple(module, SHARE=1e9, PAUSE=0.0):
        yield


def test_who_watches_is_shown_the_hole(address: str, unhurried: None) -> None:
    with Client(address) as client:
        with held() as go:
            job = client.start(PHOTO, MASK, "a bear", seed=1, num_inference_steps=4, num_images_per_prompt=2)
            events = client.follow(job, previews=True)
            next(events)
            go.set()
            found = [*events]
        shown = [progress.preview for progress in found if progress.preview is not None]
        assert 1 <= len(shown) <= 7 and found[-1].preview is None and found[-1].known_changed == 0
        for preview in shown:
            left, top, width, height = preview.box
            picture = Image.open(io.BytesIO(preview.webp))
            assert (picture.format, picture.size) == ("WEBP", (width, height))
            seen = np.zeros_like(HOLE)
            seen[top : top + height, left : left + width] = np.asarray(picture.convert("RGBA"))[..., 3] > 0
            assert (seen == HOLE).all()
        plain = client.start(PHOTO, MASK, "a bear", seed=1, num_inference_steps=4, num_images_per_prompt=2)
        assert [*client.follow(plain)][-1].state == "done"
        assert [one.png for one in client.results(plain)] == [one.png for one in client.results(job)]


def test_nobody_is_shown_what_was_not_asked_for(address: str, unhurried: None) -> None:
    with (
        mock.patch.object(Preview, "small", side_effect=AssertionError("nobody watches")) as small,
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        assert http.post("/v1/inpaint", **form(num_inference_steps=4)).status_code == 200
        job = http.post("/v1/jobs", **form(num_inference_steps=4)).json()["id"]
        events = http.get(f"/v1/jobs/{job}/events").text
        last = json.loads(events.strip().splitlines()[-1].removeprefix("data: "))
        assert last["state"] == "done" and last["preview"] is None and not small.called
