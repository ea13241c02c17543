"""Who is let in, and what is refused before anything looks at it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from convscope.explorer.security import Guard
from convscope.explorer.settings import Settings


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says how much was sent."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def asked(settings: Settings, host: str = "http://127.0.0.1:8765") -> TestClient:
    return TestClient(Guard(app, settings), base_url=host)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200), ("localhost:8765", 200), ("LOCALHOST:8765", 200), ("[::1]:8765", 200),
        ("evil.example", 421), ("evil.example:8765", 421), ("127.0.0.1:80", 421), ("127.0.0.1.evil.example:8765", 421),
    ],
)  # fmt: skip
def test_only_its_own_names_are_answered(host: str, status: int) -> None:
    answer = asked(Settings()).get("/", headers={"host": host})
    assert answer.status_code == status
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"origin": "http://127.0.0.1:8765"}, 200), ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403), ({"sec-fetch-site": "cross-site"}, 403), ({"sec-fetch-site": "same-origin"}, 200),
    ],
)  # fmt: skip
def test_pages_of_other_sites_may_not_ask(headers: dict[str, str], status: int) -> None:
    assert asked(Settings()).post("/", headers=headers, content=b"x").status_code == status


def test_a_token_is_asked_for_once() -> None:
    client = asked(Settings(token="s3cret"))
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    entered = client.get("/page?token=s3cret", follow_redirects=False)
    assert entered.status_code == 303
    assert entered.headers["location"] == "/page"
    assert "HttpOnly" in entered.headers["set-cookie"]
    assert client.get("/").status_code == 200
    assert asked(Settings(token="s3cret")).get("/", headers={"authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("length", ["1000001", "-1", "abc"])
def test_a_length_that_cannot_be_is_refused(length: str) -> None:
    settings = Settings(upload=1_000_000)
    assert asked(settings).post("/", headers={"content-length": length}, content=b"").status_code == 413


def test_a_long_body_without_a_length_is_cut_off() -> None:
    chunks = (b"x" * 1000 for _ in range(100))
    assert asked(Settings(upload=50_000)).post("/", content=chunks).status_code == 413


def test_a_slow_client_is_told_so() -> None:
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message)

    settings = replace(Settings(), patience=0.1)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8765")],
    }
    asyncio.run(Guard(app, settings)(scope, never, send))
    assert sent[0]["status"] == 408
    assert "longer than 0.1 seconds" in json.loads(sent[1]["body"])["detail"]


def test_an_address_that_others_reach_is_not_local() -> None:
    assert Settings().local
    assert not Settings(host="0.0.0.0").local
    assert "192.168.1.5:8765" in Settings(host="192.168.1.5").hosts
