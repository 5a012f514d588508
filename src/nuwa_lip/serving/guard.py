"""The door: who may ask, from where, and how much may be sent; plain ASGI, before anything is parsed."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/healthz", "/readyz")
"""Paths that need no token: a load balancer asks them."""
PRIVATE = ("/v1/", "/api/", "/metrics")
"""Paths that need one, where tokens are given; the page itself asks for it."""


HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Of every answer: nothing comes from elsewhere, and no other page shows this one within itself."""


class _TooMuch(Exception):
    """The body is larger than what is taken."""


class Guard:
    """Refuses foreign hosts and origins, missing tokens and large bodies.

    A page of another site can make a browser send requests to this machine (DNS rebinding, forms): `Host` must be a
    name of this server, and `Origin`, where there is one, the same.

    Args:
        app: what is behind the door.
        hosts: names that the server answers to; "*" for any.
        tokens: of which a request must bear one; none: everybody may ask.
        largest: bytes of a body.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], tokens: Sequence[str], largest: int) -> None:
        self.app, self.hosts, self.tokens, self.largest = app, tuple(hosts), tuple(tokens), largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, pass on the others."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refusal = self._refuse(scope["path"], Headers(scope=scope))
        if refusal is not None:
            return await refusal(scope, receive, send)
        taken, begun = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.largest:
                raise _TooMuch
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _TooMuch:
            if not begun:
                await self._too_much()(scope, receive, send)

    def _refuse(self, path: str, headers: Headers) -> JSONResponse | None:
        host = _name(f"//{headers.get('host', '')}")
        if "*" not in self.hosts and host not in self.hosts:
            return problem(421, f"this server does not answer to the host {host!r}; --allow-host names others")
        origin = headers.get("origin")
        if origin is not None and _place(origin) != _place(f"//{headers.get('host', '')}"):
            return problem(403, f"requests from pages of {origin} are refused")
        if self.tokens and path.startswith(PRIVATE):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            known = [hmac.compare_digest(given.encode(), token.encode()) for token in self.tokens]
            if scheme.lower() != "bearer" or not any(known):
                refused = problem(401, "this server asks for a token: Authorization: Bearer TOKEN")
                refused.headers["www-authenticate"] = "Bearer"
                return refused
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.largest:
            return self._too_much()
        return None

    def _too_much(self) -> JSONResponse:
        return problem(413, f"the request is larger than the {self.largest / 1e6:.0f} MB that this server takes")


def problem(status: int, message: str, kind: str = "invalid_request_error") -> JSONResponse:
    """Make the answer to a request that is refused or failed.

    Args:
        status: of HTTP.
        message: what is wrong, and the mend.
        kind: as OpenAI's clients expect it.
    """
    return JSONResponse({"error": {"message": message, "type": kind}, "detail": message}, status)


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _place(url: str) -> tuple[str, int | None]:
    """Host and port, that of http or https if none is given."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return "", -1
