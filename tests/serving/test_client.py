"""The client against a real server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.serving.client import Client, Refused
from tests.running_server import held, running
from tests.serving.test_app import HOLE, MASK, PHOTO, PIXELS


@pytest.fixture(scope="module")
def client(tiny_model: Path) -> Iterator[Client]:
    with running(tiny_model, tokens=["secret"]) as address, Client(address, token="secret") as client:
        yield client


def test_results_are_as_asked_for(client: Client, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(PHOTO)
    results = client.inpaint(photo, MASK, "a bear", num_images_per_prompt=2, seed=3)
    assert sorted(result.seed for result in results) == [3, 4]
    assert results[0].score >= results[1].score
    for result in results:
        painted = np.asarray(Image.open(io.BytesIO(result.png)))
        assert (painted[~HOLE] == PIXELS[~HOLE]).all()


def test_a_job_can_be_followed_and_cancelled(client: Client, tiny_model: Path) -> None:
    with held() as go:
        first, second = (client.start(PHOTO, MASK, "") for _ in range(2))
        client.cancel(second)
        go.set()
    assert [*client.follow(first)][-1].state == "done"
    assert [*client.follow(second)][-1].state == "cancelled"
    assert client.models() == [str(tiny_model)]


def test_a_replica_is_waited_for(tiny_model: Path, client: Client) -> None:
    with running(tiny_model, replica=True) as address, Client(address) as replica:
        found, expected = (one.inpaint(PHOTO, MASK, "x", seed=3, num_images_per_prompt=2) for one in (replica, client))
        assert found == expected
        with pytest.raises(Refused, match="/v1/inpaint") as refused:
            replica.start(PHOTO, MASK, "x")
        assert refused.value.status == 409


def test_refusals_are_errors(client: Client) -> None:
    with pytest.raises(Refused, match="bogus") as refused:
        client.inpaint(PHOTO, MASK, "", bogus=1)
    assert refused.value.status == 422
    with pytest.raises(Refused) as refused:
        [*client.follow("none")]
    assert refused.value.status == 404
