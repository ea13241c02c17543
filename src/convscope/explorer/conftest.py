"""An explorer on a tiny network, asked without a socket, and one that listens on a port."""

from __future__ import annotations

import io
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from convscope.explorer.app import create_app
from convscope.explorer.settings import Settings

FACTORY = """
    import torch
    from torch import nn

    def small():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
        )
"""
ADDRESS = "http://127.0.0.1:8765"


def png(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of coarse noise."""
    cells = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """For a network of four classes on pictures of 24 by 32 pixels."""
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "nets.py").write_text(textwrap.dedent(FACTORY))
    loaded = {
        "network": f"{folder / 'nets.py'}:small", "labels": ["ant", "bee", "cat", "dog_fish"], "input_size": (24, 32),
    }  # fmt: skip
    return Settings(loaded=loaded, cache=folder / "cache", upload=300_000, queue=4, pixels=4_000_000)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """The application, asked directly."""
    with TestClient(create_app(settings), base_url=ADDRESS, raise_server_exceptions=True) as asked:
        yield asked


@pytest.fixture(scope="module")
def desk(client: TestClient) -> Any:
    """What the application knows."""
    return client.app._app.state.desk  # type: ignore[attr-defined]


@pytest.fixture
def picture(client: TestClient) -> str:
    """A picture that is open."""
    return str(client.post("/api/pictures?title=noise", content=png()).json()["id"])


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """A server on a free port, in a thread."""
    import uvicorn

    from convscope.explorer.serve import _listening

    with _listening(replace(settings, port=0)) as place:
        settings = replace(settings, port=place.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([place],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{settings.port}"
        finally:
            server.should_exit = True
            thread.join(15)


def until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What ``check`` gives once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} seconds")


def ended(client: TestClient, job: dict[str, Any], seconds: float = 90.0) -> dict[str, Any]:
    """A job once it has ended."""

    def check() -> dict[str, Any] | None:
        told = client.get(f"/api/jobs/{job['id']}").json()
        return told if told["state"] in ("done", "failed", "cancelled") else None

    return dict(until(check, seconds))
