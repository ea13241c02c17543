"""What stands between the network and the explorer: names, origins, a token, bounds on what is sent, a strict policy.

A page of another site that the user visits can send requests to 127.0.0.1, and by DNS rebinding even read the answers.
So the Host header must name this server, an Origin header must be this server's, and what changes anything must not
come from another site. Nothing is trusted because it comes from this machine.
"""

from __future__ import annotations

import asyncio
import hmac
import http.cookies
import json
import time
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convscope.explorer.settings import Settings

COOKIE = "convscope"
READING = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Refused(HTTPException):
    """A request is not answered; this status and this sentence are, also where it comes up while a body is read."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, refused or passed on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began = _Began(send)
        try:
            self._check(scope)
            if self._settings.token and not self._known(scope):
                self._let_in(scope)
                return await _answer(began, 303, {"location": scope["path"], "set-cookie": self._cookie()}, b"")
            await self._app(scope, self._bounded(scope, receive), began)
        except Refused as refused:
            if not began.started:
                body = json.dumps({"detail": refused.detail}).encode()
                await _answer(began, refused.status_code, {"content-type": "application/json"}, body)

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = headers.get("host", "").lower()
        if host not in self._settings.hosts:
            raise Refused(421, f"this server is not {host or 'unnamed'}; open http://{self._address()}")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "a page of another site asked; only the explorer's own page may")
        if scope["method"] not in READING and headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            raise Refused(403, "a page of another site asked; only the explorer's own page may")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.upload:
            raise Refused(413, f"at most {self._settings.upload:,} bytes can be sent at once")

    def _address(self) -> str:
        host = self._settings.host
        return f"{f'[{host}]' if ':' in host else host}:{self._settings.port}"

    # ---- the token

    def _known(self, scope: Scope) -> bool:
        headers = _headers(scope)
        jar: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
        try:
            jar.load(headers.get("cookie", ""))
        except http.cookies.CookieError:
            return False
        shown = jar[COOKIE].value if COOKIE in jar else headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(shown.encode(), self._settings.token.encode())

    def _let_in(self, scope: Scope) -> None:
        shown = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not hmac.compare_digest(shown.encode(), self._settings.token.encode()):
            raise Refused(401, "the token is missing or wrong; open the address that `convscope explore` printed")

    def _cookie(self) -> str:
        return f"{COOKIE}={self._settings.token}; HttpOnly; SameSite=Strict; Path=/"

    # ---- what is sent

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The body, as long as it is neither too long nor too slow."""
        left, due = self._settings.upload, time.monotonic() + self._settings.patience
        whole = False

        async def bounded() -> Message:
            nonlocal left, whole
            if whole:  # only the end of the connection can come now, however late
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, due - time.monotonic()))
            except asyncio.TimeoutError:
                raise Refused(408, f"the request took longer than {self._settings.patience:g} seconds") from None
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if left < 0:
                    raise Refused(413, f"at most {self._settings.upload:,} bytes can be sent at once")
            return message

        return bounded


class _Began:
    """Sends, with the headers of every answer, and knows whether the answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            there = {name.lower() for name, _ in message.get("headers", [])}
            more = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in there]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await self._send(message)


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    listed = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    listed.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, Any]:
    """Lower-case name to value; of several the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
