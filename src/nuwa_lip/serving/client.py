"""A client of the API, in plain Python types: bytes in, `Result`s out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from nuwa_lip.errors import InputError

SEVERAL = 409
"""What a server of several replicas answers to requests for jobs, which it does not have."""


class Refused(InputError):
    """The server refused a request, or failed at it.

    Args:
        status: of HTTP.
        message: why.
        retry_after: seconds after which the server asks to be asked again.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Result:
    """Holds one candidate."""

    png: bytes
    seed: int
    score: float
    """Mean log-probability of the new parts, at most 0."""


@dataclass(frozen=True)
class Preview:
    """Holds the hole as far as it is painted, to be laid over its place in the upright photo."""

    box: tuple[int, int, int, int]
    """Left, top, width and height in the photo's pixels."""
    webp: bytes
    """Transparent outside the hole; it may be smaller than the box."""


@dataclass(frozen=True)
class Progress:
    """Says how far a job is."""

    id: str
    state: str
    progress: float
    seconds_left: float | None
    known_changed: int | None
    error: str | None
    preview: Preview | None = None


class Client:
    """Asks a server of `nuwa-lip serve`; to be used in a `with` statement.

        with Client("http://localhost:8080") as client:
            best, *others = client.inpaint("photo.jpg", "mask.png", "green grass", num_images_per_prompt=3)

    Args:
        address: of the server.
        token: that it asks for.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self, address: str = "http://localhost:8080", *, token: str | None = None, timeout: float = 600
    ) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def inpaint(
        self, image: Path | str | bytes, mask: Path | str | bytes | None, prompt: str, **options: Any
    ) -> list[Result]:
        """Repaint a photo and wait for the results, best first.

        Args:
            image: the photo, its file or the file's bytes.
            mask: white is repainted; None: what is transparent in the photo.
            prompt: what the picture shows.
            options: others of the API, such as seed, num_images_per_prompt, guidance_scale.

        Raises:
            Refused: the server did not paint.
        """
        try:
            job = self.start(image, mask, prompt, **options)
        except Refused as refused:
            if refused.status != SEVERAL:
                raise
            found = _checked(self._post("/v1/inpaint", image, mask, prompt, options)).json()["images"]
            return [Result(base64.b64decode(one["b64"]), one["seed"], one["score"]) for one in found]
        for progress in self.follow(job):
            if progress.state == "failed":
                raise Refused(422, progress.error or "the job failed")
            if progress.state == "cancelled":
                raise Refused(499, "the job was cancelled")
        return self.results(job)

    def start(self, image: Path | str | bytes, mask: Path | str | bytes | None, prompt: str, **options: Any) -> str:
        """Begin a job, and give its id.

        Args:
            image: see `inpaint`, as the others.
            mask: as above.
            prompt: as above.
            options: as above.

        Raises:
            Refused: the server did not take it.
        """
        return str(_checked(self._post("/v1/jobs", image, mask, prompt, options)).json()["id"])

    def _post(
        self,
        path: str,
        image: Path | str | bytes,
        mask: Path | str | bytes | None,
        prompt: str,
        options: dict[str, Any],
    ) -> httpx.Response:
        files = {"image": _content(image)}
        if mask is not None:
            files["mask"] = _content(mask)
        fields = {name: str(value) for name, value in options.items() if value is not None}
        return self._http.post(path, data={"prompt": prompt, **fields}, files=files)

    def follow(self, job: str, *, previews: bool = False) -> Iterator[Progress]:
        """Yield a job's progress at each change, until it is over; with some of them a preview, if asked for.

        Raises:
            Refused: the server does not know the job.
        """
        with self._http.stream("GET", f"/v1/jobs/{job}/events", params={"previews": previews}) as answer:
            if answer.is_error:
                answer.read()
            for line in _checked(answer).iter_lines():
                if line.startswith("data: "):
                    found = json.loads(line.removeprefix("data: "))
                    if shown := found.get("preview"):
                        webp = base64.b64decode(shown["url"].partition(",")[2])
                        found["preview"] = Preview(tuple(shown["box"]), webp)
                    yield Progress(**{name: found.get(name) for name in Progress.__dataclass_fields__})

    def results(self, job: str) -> list[Result]:
        """Fetch what a job has painted.

        Raises:
            Refused: the server does not know the job.
        """
        found = _checked(self._http.get(f"/v1/jobs/{job}")).json()["images"]
        return [Result(_checked(self._http.get(one["url"])).content, one["seed"], one["score"]) for one in found]

    def cancel(self, job: str) -> None:
        """Cancel a job.

        Raises:
            Refused: the server does not know the job.
        """
        _checked(self._http.delete(f"/v1/jobs/{job}"))

    def models(self) -> list[str]:
        """Name the models that can be asked for; the first is the default.

        Raises:
            Refused: the server does not say.
        """
        return [model["id"] for model in _checked(self._http.get("/v1/models")).json()["data"]]


def _content(source: Path | str | bytes) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _checked(answer: httpx.Response) -> httpx.Response:
    """Pass an answer on, or raise why there is none."""
    if not answer.is_error:
        return answer
    try:
        message = answer.json()["detail"]
    except (ValueError, KeyError):
        message = f"the server answered {answer.status_code}"
    wait = answer.headers.get("retry-after", "")
    raise Refused(answer.status_code, message, float(wait) if wait.isdecimal() else None)
